"""Cards as NVML tells of them (its calls are answered here: no card is needed), and the CPU for real."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pynvml
import pytest

from farm.capabilities.worker import DESKTOP_RESERVE_BYTES, GIB
from farm.errors import CannotRun, InvalidInput
from nodes.machine.host_cores import usable_cores
from nodes.machine.probe import CPU_MEMORY_SHARE, HOST_MEMORY_SHARE, probe, workers_here

CARDS = [
    ("GPU-1b2c3d4e-0000-0000-0000-000000000000", "NVIDIA GeForce RTX 3060", 12 * GIB, (8, 6)),
    ("GPU-5f607182-0000-0000-0000-000000000000", "NVIDIA GeForce RTX 2070", 8 * GIB, (7, 5)),
]


class Driver:
    """What NVML answers, and how often it was opened and closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = 0
        self.broken: int | None = None

        def opened(change: int) -> None:
            self.opened += change

        answers = {
            "nvmlInit": lambda: opened(1),
            "nvmlShutdown": lambda: opened(-1),
            "nvmlSystemGetDriverVersion": lambda: "580.65.06",
            "nvmlDeviceGetCount": lambda: len(CARDS),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda card: CARDS[card][0],
            "nvmlDeviceGetName": lambda card: CARDS[card][1],
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetCudaComputeCapability": lambda card: CARDS[card][3],
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)

    def _memory(self, card: int) -> SimpleNamespace:
        if card == self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(total=CARDS[card][2])


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Driver(monkeypatch)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)


def test_every_card_is_a_worker_with_its_memory_less_a_reserve(driver: Driver) -> None:
    first, second = probe(node="attic", address="10.0.0.2")
    assert (first.id, first.node, first.address, first.kind) == (
        "attic/gpu-1b2c3d4e",
        "attic",
        "10.0.0.2",
        "cuda",
    )
    assert (first.device_name, first.compute_capability) == ("NVIDIA GeForce RTX 3060", "8.6")
    assert (first.device_uuid, first.driver) == (CARDS[0][0], "580.65.06")
    assert first.vram_bytes == 12 * GIB - DESKTOP_RESERVE_BYTES
    assert (second.id, second.vram_bytes) == ("attic/gpu-5f607182", 8 * GIB - DESKTOP_RESERVE_BYTES)
    assert (first.price_per_hour, second.price_per_hour) == (None, None)
    assert first.host_bytes == second.host_bytes
    assert 0 < first.host_bytes <= HOST_MEMORY_SHARE * psutil.virtual_memory().total / 2
    assert driver.opened == 0, "NVML is closed again"


def test_a_limit_caps_every_card_and_the_price_is_shared(driver: Driver) -> None:
    workers = workers_here(None, "10GiB", name="attic", price_per_hour=0.3)
    assert [worker.vram_bytes for worker in workers] == [10 * GIB, 8 * GIB - DESKTOP_RESERVE_BYTES]
    assert [worker.price_per_hour for worker in workers] == [0.15, 0.15]


def test_each_card_may_have_a_limit_of_its_own(driver: Driver) -> None:
    workers = workers_here(None, "11GiB,6GiB", name="attic")
    assert [worker.vram_bytes for worker in workers] == [11 * GIB, 6 * GIB]
    with pytest.raises(
        InvalidInput, match=r"has 3 amounts, and this machine 2 workers \(NVIDIA GeForce RTX 3060, "
    ):
        workers_here(None, "11GiB,6GiB,4GiB", name="attic")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("1", ["5f607182"]),
        ("1, 0", ["1b2c3d4e", "5f607182"]),
        ("GPU-1b2c", ["1b2c3d4e"]),
        ("0,MIG-1,1", ["1b2c3d4e"]),
        ("", []),
        ("-1", []),
    ],
)
def test_cards_that_cuda_is_not_to_see_are_left_alone(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, named: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    workers = [worker for worker in probe(node="attic", address="") if worker.kind == "cuda"]
    assert [worker.id.removeprefix("attic/gpu-") for worker in workers] == found


def test_a_card_that_does_not_answer_is_named_in_one_line(driver: Driver) -> None:
    driver.broken = 1
    with pytest.raises(CannotRun) as refused:
        probe(node="attic", address="")
    assert refused.value.message == (
        "card 1 of this machine does not answer (GPU is lost); see nvidia-smi, or give --workers for the CPU"
    )
    assert driver.opened == 0


@pytest.mark.usefixtures("no_driver")
def test_without_a_card_the_cpu_is_the_one_worker() -> None:
    (worker,) = probe(node="attic", address="10.0.0.2", price_per_hour=0.3)
    assert (worker.id, worker.kind, worker.price_per_hour) == ("attic/cpu0", "cpu", 0.3)
    assert worker.device_name == f"CPU, {usable_cores()} threads"
    assert (worker.device_uuid, worker.compute_capability, worker.driver) == (None, None, None)
    assert GIB // 2 <= worker.vram_bytes <= CPU_MEMORY_SHARE * psutil.virtual_memory().total


@pytest.mark.usefixtures("no_driver")
def test_a_limit_caps_the_cpu_too() -> None:
    assert {worker.vram_bytes for worker in workers_here(None, "256MiB", name="attic")} == {GIB // 4}
