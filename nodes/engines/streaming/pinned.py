"""Host memory that a card copies from by itself, exactly as much as is asked for."""

from __future__ import annotations

import logging
import mmap
import sys
import weakref
from contextlib import suppress
from typing import Any

import torch

_LOG = logging.getLogger(__name__)


class PinnedMemory:
    """``nbytes`` bytes of host memory, which ``pin`` registers with the driver.

    PyTorch's own pinned memory is rounded up to a power of two (PyTorch issue 95823): the layers of a large
    transformer would take half as much again. Pages of its own, for no page is registered twice.
    """

    def __init__(self, nbytes: int) -> None:
        #: (nbytes,) uint8; the memory lives as long as any view of it.
        self.bytes = torch.frombuffer(_pages(max(1, nbytes)), dtype=torch.uint8)[:nbytes]
        self._release: weakref.finalize[[int], PinnedMemory] | None = None

    def pin(self) -> None:
        """Register the memory, when it has been written to: what is registered counts as used.

        Where the driver will not, copies are right and slower.
        """
        if self.bytes.nbytes == 0:
            return
        address = self.bytes.data_ptr()
        error = int(_runtime().cudaHostRegister(address, self.bytes.nbytes, 0))
        if error:
            _LOG.warning(
                "cannot pin %.1f GB of host memory (CUDA error %d): streaming is slower",
                self.bytes.nbytes / 1e9,
                error,
            )
            _forget_error()
        else:
            self._release = weakref.finalize(self, _unregister, address)
            self._release.atexit = False  # the driver may have ended before

    def release(self) -> None:
        """Make it ordinary memory again, when no copy from it is on its way."""
        if self._release is not None:
            self._release()


def _pages(nbytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, nbytes)
    # Else they would be shared memory, which is counted and limited apart.
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # else the first touch of each 4 kB costs more than its reading
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _unregister(address: int) -> None:
    _runtime().cudaHostUnregister(address)


def _forget_error() -> None:
    """Take the driver's last error, which the next kernel would be blamed for."""
    with suppress(RuntimeError, AssertionError):
        torch.zeros(1, device="cuda")


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
