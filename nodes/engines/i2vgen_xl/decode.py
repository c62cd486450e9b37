"""Decoding: latents to frames."""

from __future__ import annotations

import torch

from nodes.engines.common import Holder, frames_of
from nodes.engines.engine import Frames
from nodes.engines.i2vgen_xl.model import Model


@torch.no_grad()
def decode(held: Holder[Model], latents: torch.Tensor) -> Frames:
    """Latents (F, C, h, w) to frames (F, H, W, 3) uint8."""
    placed = held.placed
    vae = placed.model.components["vae"]

    def decoded(chunk: torch.Tensor) -> torch.Tensor:
        scaled = chunk.to(held.device, held.dtype) / vae.config.scaling_factor
        return frames_of(vae.decode(scaled).sample)

    at_once = placed.placement.decode_frames
    chunks = torch.split(latents, 1 if held.on_cpu else at_once)
    with placed.on_card("vae"):
        frames = held.calls.map(decoded, chunks, at_once=at_once)
    return torch.cat(frames).numpy()
