from __future__ import annotations

import gc
from dataclasses import dataclass, field

import pytest
import torch

from nodes.engines.streaming.pinned import PinnedMemory
from nodes.engines.streaming.pinned_weights import PinnedWeights

pytestmark = pytest.mark.torch


@dataclass
class Driver:
    """Stands in for the CUDA runtime, which this machine may lack."""

    error: int = 0
    registered: dict[int, int] = field(default_factory=dict)

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        if not self.error:
            self.registered[address] = nbytes
        return self.error

    def cudaHostUnregister(self, address: int) -> int:
        del self.registered[address]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    return driver


def test_no_byte_more_is_pinned_than_was_asked_for_and_each_is_released_once(driver: Driver) -> None:
    memory, other = PinnedMemory(5000), PinnedMemory(70)
    for each in (memory, other):
        each.bytes.fill_(7)
        each.pin()
    assert sorted(driver.registered.values()) == [70, 5000]
    memory.release()
    memory.release()
    assert list(driver.registered.values()) == [70]
    kept = other.bytes
    del other, each
    gc.collect()
    assert driver.registered == {}
    assert torch.equal(kept, torch.full((70,), 7, dtype=torch.uint8))  # it lives as long as any view of it


def test_nothing_is_not_pinned(driver: Driver) -> None:
    PinnedMemory(0).pin()
    assert driver.registered == {}


def test_a_driver_that_pins_nothing_leaves_ordinary_memory_and_says_so(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.error = 2
    memory = PinnedMemory(4096)
    memory.pin()
    memory.release()
    assert "CUDA error 2" in caplog.text
    assert memory.bytes.nbytes == 4096


def test_pinned_weights_keep_the_order_of_their_elements() -> None:
    layer = torch.nn.Conv3d(3, 4, 3).requires_grad_(False)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
    expected = layer.weight.clone()
    pinned = PinnedWeights(layer, "cpu")
    with pinned.on_card():
        assert torch.equal(layer.weight, expected)
        assert layer.weight.stride() == expected.stride() != layer.weight.contiguous().stride()
