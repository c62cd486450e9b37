"""Exact changes to an I2VGenXLUNet that is called with one batch row at a time, as on a CPU: less work.

All frames of a row have the same context and all steps the same first image, so what depends on these alone
is computed once: keys and values of cross-attention once a call, the first image's features once a window.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import nn

_SAME_AT_EVERY_STEP = (
    "image_latents_proj_in",
    "image_latents_temporal_encoder",
    "image_latents_context_embedding",
)


class OncePerInput(nn.Module):
    """A module that gives its last output again while its input has the same values."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        last = self._last  # read once: another thread may replace it
        if last is None or not torch.equal(last[0], hidden_states):
            self._last = last = (hidden_states, self.whole(hidden_states))
        return last[1]


class OneContext(nn.Module):
    """A projection of (frames, tokens, channels) that are the same for every frame."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.whole(context[:1])
        return projected.expand(context.shape[0], -1, -1)


def prepare_for_one_row(unet: Any) -> None:
    """Change the UNet in place. Afterwards every call must have one batch row."""
    for name in _SAME_AT_EVERY_STEP:
        setattr(unet, name, OncePerInput(getattr(unet, name)))
    for layer in list(unet.modules()):
        if isinstance(layer, Attention) and layer.is_cross_attention:
            for name in ("to_k", "to_v"):
                setattr(layer, name, OneContext(getattr(layer, name)))
        if isinstance(layer, TransformerTemporalModel):
            layer.proj_in.register_forward_pre_hook(_contiguous)


def _contiguous(_: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    # With one row the input is a transposed view, which PyTorch would multiply pixel by pixel.
    return (inputs[0].contiguous(),)
