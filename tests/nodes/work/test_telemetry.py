"""What is said of a device is what its machine says, and nothing where the machine says nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.state.workers import Telemetry
from nodes.work.telemetry import USUAL_CONTEXT_BYTES, Sampler, cpu_temperature_c

CPU = Worker(id="a/cpu0", node="a", kind="cpu", device_name="a CPU", vram_bytes=GIB)
CARD = Worker(
    id="a/gpu-0", node="a", kind="cuda", device_name="a card", vram_bytes=GIB, device_uuid="GPU-none-such"
)


def busy(seconds: float) -> None:
    """Work for that long of this process's own time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_cpu_worker_tells_its_process_memory_and_its_share_of_its_cores() -> None:
    sampler = Sampler(CPU, cores=2)
    busy(0.2)
    sample = sampler.sample()
    assert sample.worker_id == "a/cpu0"
    assert sample.memory_used_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert sample.load is not None
    assert 0.0 < sample.load <= 1.0
    assert (sample.vram_used_bytes, sample.vram_total_bytes, sample.power_w) == (None, None, None)


TAKE_MEMORY = """
import sys
import numpy as np
from farm.capabilities import Worker
from nodes.work.telemetry import Sampler

sampler = Sampler(Worker.model_validate_json(sys.argv[1]), cores=1)
before = sampler.sample().memory_used_bytes
taken = np.ones(200_000_000, np.uint8)
print(sampler.sample().memory_used_bytes - before)
"""


@pytest.mark.slow
def test_memory_that_is_taken_shows_in_the_next_look() -> None:
    # In a process of its own: an engine has this one keep what it frees, and hand it out again.
    told = subprocess.run(
        [sys.executable, "-c", TAKE_MEMORY, CPU.model_dump_json()],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) == pytest.approx(200_000_000, rel=0.1)


def test_more_cores_make_the_share_smaller_and_it_never_exceeds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "cpu_percent", lambda self: 150.0)
    shares = [Sampler(CPU, cores=cores).sample().load for cores in (1, 2, 6)]
    assert shares == [1.0, 0.75, 0.25]


def test_the_hottest_sensor_of_the_processor_counts_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def sensors(*degrees: float) -> list[SimpleNamespace]:
        return [SimpleNamespace(current=current) for current in degrees]

    shown = {"nvme": sensors(80.0), "coretemp": sensors(51.0, 63.5), "acpitz": sensors(90.0)}
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: shown, raising=False)
    assert cpu_temperature_c() == 63.5
    del shown["coretemp"]
    assert cpu_temperature_c() is None


def test_a_card_that_does_not_answer_is_unknown_and_not_zero() -> None:
    sample = Sampler(CARD, cores=1).sample()
    assert sample.memory_used_bytes is not None
    assert sample == Telemetry("a/gpu-0", memory_used_bytes=sample.memory_used_bytes)


def test_a_card_without_a_power_sensor_tells_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NVML's own answers in place of a card's, in the units of its documentation."""

    def silent(card: object) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(used=3 * GIB, total=8 * GIB),
        "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=93, memory=40),
        "nvmlDeviceGetTemperature": lambda card, sensor: 71,
        "nvmlDeviceGetPowerUsage": silent,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    sample = Sampler(CARD, cores=1).sample()
    assert (sample.vram_used_bytes, sample.vram_total_bytes) == (3 * GIB, 8 * GIB)
    assert (sample.load, sample.temperature_c, sample.power_w) == (0.93, 71.0, None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda card: 182_500)
    assert Sampler(CARD, cores=1).sample().power_w == 182.5


def test_what_others_hold_of_a_card_is_what_this_process_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[SimpleNamespace] = []
    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(used=5 * GIB, total=8 * GIB),
        "nvmlDeviceGetComputeRunningProcesses": lambda card: listed,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    sampler = Sampler(CARD, cores=1)
    monkeypatch.setattr("nodes.work.telemetry.held_on_card_bytes", lambda: None)
    assert sampler.sample().vram_others_bytes == 5 * GIB, "it has not opened the card"
    monkeypatch.setattr("nodes.work.telemetry.held_on_card_bytes", lambda: 2 * GIB)
    assert sampler.sample().vram_others_bytes == 3 * GIB - USUAL_CONTEXT_BYTES
    listed += [
        SimpleNamespace(pid=1, usedGpuMemory=GIB),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=4 * GIB),
    ]
    assert sampler.sample().vram_others_bytes == GIB, "the driver knows it exactly"
    listed[1].usedGpuMemory = 6 * GIB
    assert sampler.sample().vram_others_bytes == 0
