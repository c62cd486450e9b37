"""The attention kernels of a denoiser, as a machine's owner chose them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from farm.errors import CannotRun
from nodes.engines.common.pieces import MAX_ATTENTION_ROWS, set_attention_processors
from nodes.engines.engine import Attentions


def set_attention(unet: Any, attention: Attentions, *, max_rows: int = MAX_ATTENTION_ROWS) -> None:
    """Choose the attention kernels and guard their row limit.

    Raises:
        CannotRun: xformers was asked for and is missing, or its kernels do not load beside this PyTorch.
    """
    if attention == "xformers":
        with _loading(attention):
            unet.enable_xformers_memory_efficient_attention()
    set_attention_processors(unet, max_rows=max_rows)


def set_attention_backend(transformer: Any, attention: Attentions) -> None:
    """Choose the attention kernels of a transformer.

    Raises:
        CannotRun: as ``set_attention``.
    """
    if attention != "sdpa":
        with _loading(attention):
            transformer.set_attention_backend(attention)


@contextmanager
def _loading(attention: Attentions) -> Iterator[None]:
    """Kernels that do not load inside the body are told in one line."""
    try:
        yield
    except (ImportError, NotImplementedError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(
            f"attention is {attention!r}, but its kernels cannot be used here ({reason}): install the "
            f"{attention} built for this PyTorch and CUDA, or use attention='sdpa'",
            param="attention",
        ) from None
