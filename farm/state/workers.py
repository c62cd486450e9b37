"""Machines and their workers; what a device is seen to do between events, which no journal keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from farm.capabilities import DESKTOP_RESERVE_BYTES, Worker, gib

#: What other programs hold of a card is counted in steps of this, or every look would change what fits.
OTHERS_STEP_BYTES = 256 * 2**20

#: Between two ``Telemetry`` of one worker, at least.
TELEMETRY_INTERVAL_S = 2.0
#: Of all workers together, in a second.
MAX_TELEMETRY_RATE = 1000.0
#: The same of steps that they tell of.
MAX_PROGRESS_RATE = 2000.0


def telemetry_interval_s(num_workers: int) -> float:
    """Seconds between two ``Telemetry`` of one worker, on a farm of so many."""
    return max(TELEMETRY_INTERVAL_S, num_workers / MAX_TELEMETRY_RATE)


def progress_interval_s(num_workers: int) -> float:
    """Seconds between two ``Progress`` of one worker within a phase, at least, on a farm of so many."""
    return num_workers / MAX_PROGRESS_RATE


@dataclass(frozen=True)
class Telemetry:
    """How a worker's device is right now. None where the machine does not say; nothing is estimated."""

    worker_id: str
    #: Of the whole card, other programs included. None for a CPU worker.
    vram_used_bytes: int | None = None
    vram_total_bytes: int | None = None
    #: Of the card, what other programs than the worker hold.
    vram_others_bytes: int | None = None
    #: 0..1: of the card, or of the cores a CPU worker may use.
    load: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    #: Resident memory of the worker's process.
    memory_used_bytes: int | None = None


def as_others_leave(worker: Worker, telemetry: Telemetry) -> Worker:
    """The worker with the memory that it can have now, where other programs hold more of its card than what
    is left to the desktop anyway."""
    total, others = telemetry.vram_total_bytes, telemetry.vram_others_bytes
    if total is None or others is None or others <= DESKTOP_RESERVE_BYTES:
        return worker
    left = total - ceil(others / OTHERS_STEP_BYTES) * OTHERS_STEP_BYTES
    if left >= worker.vram_bytes:
        return worker
    return worker.model_copy(update={"vram_bytes": max(1, left)})


@dataclass
class WorkerState:
    worker: Worker
    draining: bool = False
    #: Drained because its machine goes away.
    leaving: bool = False
    #: attempt id -> (job id, task id)
    attempts: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: The model its last task used: still loaded.
    warm_model: str | None = None
    # Watched, not journaled.
    #: Models on its machine's disk, by name, with their bytes; None: it has not told.
    models: Mapping[str, int] | None = field(default=None, compare=False)
    telemetry: Telemetry | None = field(default=None, compare=False)
    #: In seconds since the epoch, for people.
    telemetry_at: float | None = field(default=None, compare=False)
    #: The worker with less memory, while other programs hold what it would have.
    limited: Worker | None = field(default=None, compare=False)

    @property
    def usable(self) -> Worker:
        """The worker as something may be placed on it now."""
        return self.limited or self.worker

    @property
    def others_words(self) -> str:
        """What other programs take from it, for people; empty where they take nothing."""
        if self.limited is None or self.telemetry is None:
            return ""
        return f"other programs hold {gib(self.telemetry.vram_others_bytes or 0)} of its card"


@dataclass
class NodeState:
    """A machine that joined at some time, here or not."""

    #: Ids of the keys it showed since it was last removed.
    key_ids: set[str] = field(default_factory=set)
    #: How often it was removed: its own token is another afterwards.
    num_removals: int = 0
    #: And was not let in again since.
    removed: bool = False
