"""The attention kernels of a denoiser, as a machine's owner chose them."""

from __future__ import annotations

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
        try:
            unet.enable_xformers_memory_efficient_attention()
        except (ImportError, NotImplementedError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CannotRun(
                f"attention is 'xformers', but its kernels cannot be used here ({reason}): "
                "install the xformers built for this PyTorch and CUDA, or use attention='sdpa'",
                param="attention",
            ) from None
    set_attention_processors(unet, max_rows=max_rows)
