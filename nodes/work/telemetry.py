"""How a worker's device is right now: a card by NVML, a CPU worker by its process.

What a machine does not tell is None, never an estimate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import psutil
import pynvml

from farm.capabilities import Worker
from farm.state import Telemetry
from nodes.engines.memory import held_on_card_bytes

T = TypeVar("T")

#: Of CUDA's context on a card, where the driver does not say.
USUAL_CONTEXT_BYTES = 512 * 2**20
#: Drivers of the sensors in processors, as Linux names them.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")


class Sampler:
    """Looks at a worker's device, from the worker's process. Not for use from several threads at once."""

    def __init__(self, worker: Worker, *, cores: int) -> None:
        """cores: CPU threads the worker may use; its load is its share of them."""
        self._worker = worker
        self._cores = cores
        self._process = psutil.Process()
        self._process.cpu_percent()  # a share is measured from one call to the next
        self._card = _card(worker.device_uuid) if worker.device_uuid else None

    def sample(self) -> Telemetry:
        """One look, of a millisecond or so. A sensor that does not answer is None; nothing is raised."""
        memory = _told(lambda: int(self._process.memory_info().rss))
        if self._worker.kind == "cuda":
            return _of_card(self._worker.id, self._card, memory)
        share = _told(lambda: self._process.cpu_percent() / 100 / self._cores)
        return Telemetry(
            worker_id=self._worker.id,
            load=None if share is None else min(1.0, share),
            temperature_c=_told(cpu_temperature_c),
            memory_used_bytes=memory,
        )


def cpu_temperature_c() -> float | None:
    """The hottest sensor of this machine's processor; None where there is none (virtual machines, macOS)."""
    if sys.platform != "linux":
        return None
    sensors = psutil.sensors_temperatures()
    found = [sensor.current for name in _CPU_SENSORS for sensor in sensors.get(name, ())]
    return max(found) if found else None


def _of_card(worker_id: str, card: Any, memory_used_bytes: int | None) -> Telemetry:
    if card is None:
        return Telemetry(worker_id, memory_used_bytes=memory_used_bytes)
    before = _own_bytes(card)
    held = _told(lambda: pynvml.nvmlDeviceGetMemoryInfo(card))
    own = max(before, _own_bytes(card))  # it may have taken some, or let go of it, between the looks
    percent = _told(lambda: pynvml.nvmlDeviceGetUtilizationRates(card).gpu)
    celsius = _told(lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU))
    milliwatts = _told(lambda: pynvml.nvmlDeviceGetPowerUsage(card))
    return Telemetry(
        worker_id,
        vram_used_bytes=None if held is None else int(held.used),
        vram_total_bytes=None if held is None else int(held.total),
        vram_others_bytes=None if held is None else max(0, int(held.used) - own),
        load=None if percent is None else min(1.0, percent / 100),
        temperature_c=None if celsius is None else float(celsius),
        power_w=None if milliwatts is None else milliwatts / 1000,
        memory_used_bytes=memory_used_bytes,
    )


def _own_bytes(card: Any) -> int:
    """What this process holds of a card: by the driver, which in a container may not know it by its number,
    or else what its allocator holds and a context's usual size."""
    listed = _told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(card)) or ()
    told = [each.usedGpuMemory for each in listed if each.pid == os.getpid() and each.usedGpuMemory]
    if told:
        return int(told[0])
    held = held_on_card_bytes()
    return held + USUAL_CONTEXT_BYTES if held is not None else 0


def _card(device_uuid: str) -> Any:
    """NVML's handle of a card, good for the life of the process; None when it does not answer."""
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(device_uuid)
    except pynvml.NVMLError:
        return None


def _told(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except (pynvml.NVMLError, psutil.Error, OSError):
        return None
