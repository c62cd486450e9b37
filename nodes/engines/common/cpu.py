"""How engines use a CPU: calls side by side, convolutions in oneDNN, freed memory kept for a window."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Parameters of mallopt (malloc.h of glibc).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


class InTurn:
    """Runs calls one after the other in the caller's thread: a card has its own way of doing much at once."""

    def map(
        self, call: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int = 1
    ) -> list[_Result]:
        return [call(item) for item in items]


class SideBySide:
    """Runs calls in up to ``threads`` threads; inside a call PyTorch computes with one thread.

    A sum that PyTorch splits over threads has other last bits for another number of threads. Here no sum is
    split: each call gives the same bits whatever ``threads`` is.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"cpu_threads is {threads}: expected 1 or more")
        self._threads = ThreadPoolExecutor(threads, "one-core", initializer=_compute_with_one_thread)

    def map(
        self, call: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int = 1
    ) -> list[_Result]:
        """``call`` of every item, in order, at most ``at_once`` in flight. The first error is raised."""
        left = iter(items)
        results: list[_Result] = []
        while some := list(islice(left, at_once)):
            results += self._threads.map(call, some)
        return results


def _compute_with_one_thread() -> None:
    # OpenMP, MKL and autograd keep both settings by thread.
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def convolve_with_onednn(model: nn.Module) -> None:
    """Have the Conv3d layers of a model use oneDNN wherever they run on a CPU in float32.

    PyTorch's own choice goes by B x C x F x H alone: up to 20,480 of them, as a small VAE's layers have, it
    takes a convolution of its own that needs two to five times as long.
    """
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for layer in model.modules():
            if isinstance(layer, nn.Conv3d) and layer.padding_mode == "zeros":
                layer._conv_forward = partial(_convolved, layer)  # type: ignore[method-assign]


def _convolved(
    layer: nn.Conv3d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    if isinstance(layer.padding, str):
        return functional.conv3d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return padded_conv3d(layer, x, layer.padding)


def padded_conv3d(layer: nn.Conv3d, x: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
    """A layer's convolution of (1, C, F, H, W) with other zeros around it than its own; by oneDNN on a CPU in
    float32."""
    how = (layer.stride, layer.dilation, layer.groups)
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return functional.conv3d(x, layer.weight, layer.bias, how[0], padding, *how[1:])
    return torch.mkldnn_convolution(x, layer.weight, layer.bias, padding, *how)


def keep_freed_memory() -> None:
    """Have the allocator keep what this process frees, until ``return_freed_memory``.

    A step frees and takes the same megabytes again and again. By default glibc returns many of them to the
    kernel each time, and taking them anew costs page faults.
    Other allocators are left as they are.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        # An arena for each thread would keep memory of its own.
        mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Give what was kept back to the system."""
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
