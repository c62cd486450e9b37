"""Calls side by side: one thread a call, whatever else the process computes with."""

from __future__ import annotations

import threading

import pytest
import torch

from nodes.engines.common.cpu import SideBySide, convolve_with_onednn


def test_calls_run_side_by_side_in_threads_that_compute_with_one_each() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    both = threading.Barrier(2, timeout=20)  # broken unless two calls run at once

    def call(item: int) -> tuple[int, int, bool]:
        both.wait()
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    try:
        results = SideBySide(2).map(call, range(4), at_once=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert results == [(item, 1, False) for item in range(4)]


@pytest.mark.parametrize(("cores", "at_once", "most"), [(1, 4, 1), (4, 1, 1), (4, 2, 2)])
def test_no_more_calls_are_in_flight_than_cores_or_than_the_rung_allows(
    cores: int, at_once: int, most: int
) -> None:
    lock, running, peak = threading.Lock(), 0, 0

    def call(_: int) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    SideBySide(cores).map(call, range(6), at_once=at_once)
    assert peak <= most


def test_an_error_of_a_call_is_raised_and_the_threads_work_on() -> None:
    calls = SideBySide(2)
    with pytest.raises(ZeroDivisionError):
        calls.map(lambda n: 1 // n, [1, 0], at_once=2)
    assert calls.map(lambda n: 1 // n, [1], at_once=2) == [1]


def test_an_engine_without_a_core_is_refused() -> None:
    with pytest.raises(ValueError, match="cpu_threads is 0: expected 1 or more"):
        SideBySide(0)


def test_small_convolutions_of_a_clip_run_in_onednn_and_give_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = torch.nn.Conv3d(4, 6, (3, 3, 3), stride=(2, 1, 1), padding=(0, 1, 1))
    clip = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = layer(clip)
    convolve_with_onednn(layer)
    onednn, asked = torch.mkldnn_convolution, []
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *given: asked.append(1) or onednn(*given))
    torch.testing.assert_close(layer(clip), plain, atol=1e-5, rtol=1e-5)
    assert asked == [1]
    assert layer.double()(clip.double()).shape == plain.shape  # what it is not for stays PyTorch's
    assert asked == [1]
