from __future__ import annotations

import os
import sys

import pytest
import torch

from nodes.engines.engine import OutOfMemory
from nodes.engines.memory.vram import (
    cap_process,
    out_of_memory_is_ours,
    peak_bytes,
    reset_peak,
    use_expandable_segments,
)

MIB = 2**20


def test_an_allocation_nobody_can_hold_becomes_out_of_memory() -> None:
    with pytest.raises(OutOfMemory, match="allocate"), out_of_memory_is_ours():
        torch.empty(2**55, dtype=torch.uint8)


def test_another_failure_passes_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), out_of_memory_is_ours():
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_the_tensors_of_a_failed_call_are_released_when_it_becomes_out_of_memory() -> None:
    held: list[int] = []

    class Witness:
        def __del__(self) -> None:
            held.append(1)

    def fails() -> None:
        witness = Witness()
        torch.empty(2**55, dtype=torch.uint8)
        del witness

    def attempt() -> None:
        with out_of_memory_is_ours():
            fails()

    with pytest.raises(OutOfMemory):
        attempt()
    assert held == [1]


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="resident size on Linux")
def test_the_peak_on_a_cpu_counts_what_was_held_since_the_reset() -> None:
    reset_peak()
    before = peak_bytes()
    block = bytearray(96 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    grown = peak_bytes() - before
    del block
    reset_peak()
    assert 90 * MIB < grown < 128 * MIB
    assert peak_bytes() < before + 48 * MIB


def test_a_cap_smaller_than_the_driver_context_is_refused() -> None:
    with pytest.raises(ValueError, match="vram_bytes is 100"):
        cap_process(100, context_bytes=512 * MIB)


@pytest.mark.skipif(torch.cuda.is_available(), reason="no card")
def test_without_a_card_there_is_no_cap() -> None:
    assert cap_process(8 * 2**30) is False


ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def test_segments_are_made_expandable_when_the_user_has_set_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALLOCATOR_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    use_expandable_segments()
    chosen = os.environ.pop("PYTORCH_CUDA_ALLOC_CONF")
    assert chosen == "expandable_segments:True"


@pytest.mark.parametrize("name", ALLOCATOR_VARIABLES)
def test_an_allocator_the_user_has_set_up_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in ALLOCATOR_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "max_split_size_mb:128")
    use_expandable_segments()
    assert {n: os.environ[n] for n in ALLOCATOR_VARIABLES if n in os.environ} == {
        name: "max_split_size_mb:128"
    }
