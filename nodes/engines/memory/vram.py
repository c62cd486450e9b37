"""Capping and measuring the memory of this process, and turning a driver's failure into ``OutOfMemory``.

One process works on one card. PyTorch is imported only where CUDA is meant, so that a worker whose engine
does not need it never loads it.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from nodes.engines.engine import OutOfMemory
from nodes.engines.memory.process_memory import peak_rss_bytes, reset_peak_rss

#: How out of memory reads when it is a plain RuntimeError: the driver, cuBLAS, cuDNN, the CPU allocator.
_MESSAGES = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)


#: Where PyTorch reads its allocator's settings from; the first is the one every release since 2.1 honours for
#: CUDA (2.9 ignores the second: PyTorch issue 183387).
_ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def use_expandable_segments() -> None:
    """Let CUDA segments grow in place, unless the user has set the allocator up: call before importing torch.

    Fixed segments leave holes that later sizes do not fit: on an H200 they held 15 to 25 % more, and capped
    renders failed. PyTorch reads the variable when the allocator is first used, and parts of it when its
    library loads, so it is set before either. Where the driver has no virtual memory management (Windows),
    PyTorch warns and goes on with fixed segments.
    """
    if not any(os.environ.get(name) for name in _ALLOCATOR_VARIABLES):
        os.environ[_ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"


def cap_process(vram_bytes: int, *, context_bytes: int = 0) -> bool:
    """Make the allocator refuse to hold more than ``vram_bytes`` less ``context_bytes`` on the card.

    The driver's context is outside the allocator's count, so a process that must fit in ``vram_bytes`` as a
    whole passes its spec's ``context_bytes``. A machine without CUDA has no such cap: nothing is done.

    Returns:
        Whether the cap is enforced.

    Raises:
        ValueError: nothing is left of ``vram_bytes`` after the context.
    """
    allowed = vram_bytes - context_bytes
    if allowed <= 0:
        raise ValueError(
            f"vram_bytes is {vram_bytes}: expected more than the {context_bytes} bytes of the driver context"
        )
    import torch

    if not torch.cuda.is_available():
        return False
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))
    return True


def uses_cuda() -> bool:
    """Whether this process has opened a CUDA card."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def held_on_card_bytes() -> int | None:
    """What the allocator holds of this process's card; None: the process has opened none."""
    return int(sys.modules["torch"].cuda.memory_reserved()) if uses_cuda() else None


def release() -> None:
    """Return every unused byte to the driver; without CUDA, collect garbage."""
    gc.collect()
    if uses_cuda():
        sys.modules["torch"].cuda.empty_cache()


def reset_peak() -> None:
    """Start a new measurement for ``peak_bytes``."""
    if uses_cuda():
        sys.modules["torch"].cuda.reset_peak_memory_stats()
    else:
        reset_peak_rss()


def peak_bytes() -> int:
    """The most bytes held since ``reset_peak``: what the allocator reserved on CUDA, else resident size.

    0 where the system does not say (a CPU worker on Windows).
    """
    if uses_cuda():
        return int(sys.modules["torch"].cuda.max_memory_reserved())
    return peak_rss_bytes() or 0


@contextmanager
def out_of_memory_is_ours() -> Iterator[None]:
    """Turn any out-of-memory failure of the body into ``nodes.engines.engine.OutOfMemory``, caches emptied.

    torch.OutOfMemoryError is a RuntimeError. The failed frames' locals are cleared first: they hold the
    tensors that filled the card.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and not any(message in text for message in _MESSAGES):
            raise
        traceback.clear_frames(error.__traceback__)
        release()
        raise OutOfMemory(text.splitlines()[0] if text else "out of memory") from None
