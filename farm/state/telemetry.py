"""What a worker's device is seen to do between events: watched, never journaled."""

from __future__ import annotations

from dataclasses import dataclass

#: Between two ``Telemetry`` of one worker, at least.
TELEMETRY_INTERVAL_S = 2.0
#: Of all workers together, in a second.
MAX_TELEMETRY_RATE = 1000.0


def telemetry_interval_s(num_workers: int) -> float:
    """Seconds between two ``Telemetry`` of one worker, on a farm of so many."""
    return max(TELEMETRY_INTERVAL_S, num_workers / MAX_TELEMETRY_RATE)


@dataclass(frozen=True)
class Telemetry:
    """How a worker's device is right now. None where the machine does not say; nothing is estimated."""

    worker_id: str
    #: Of the whole card, other programs included. None for a CPU worker.
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    #: 0..1: of the card, or of the cores a CPU worker may use.
    load: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    #: Resident memory of the worker's process.
    memory_used_bytes: int | None = None
