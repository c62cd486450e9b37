"""Decoding: latents to frames, each alone: in the memory of one, and the same at every rung."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nodes.engines.common import Holder, frames_of
from nodes.engines.engine import Frames
from nodes.engines.svd.layout import VAE_DECODER
from nodes.engines.svd.model import Model

OnFrames = Callable[[int, int], None]
"""``on_frames(done, total)``: called after some frames; may raise to stop."""


@torch.no_grad()
def decode(held: Holder[Model], latents: torch.Tensor, *, on_frames: OnFrames | None = None) -> Frames:
    """Latents (F, C, h, w) to frames (F, H, W, 3) uint8."""
    placed = held.placed
    decoder = placed.model.components[VAE_DECODER]

    def decoded(latent: torch.Tensor) -> torch.Tensor:
        scaled = latent.to(held.device) / placed.model.scaling_factor
        return frames_of(decoder(scaled.to(held.dtype)))

    at_once = placed.placement.decode_frames
    frames: list[torch.Tensor] = []
    with placed.on_card(VAE_DECODER):
        for first in range(0, len(latents), at_once):
            some = [latents[i : i + 1] for i in range(first, min(first + at_once, len(latents)))]
            frames += held.calls.map(decoded, some, at_once=at_once)
            if on_frames is not None:
                on_frames(len(frames), len(latents))
    return torch.cat(frames).numpy()
