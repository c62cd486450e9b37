"""A VAE that knows frames alone, of a model with a component ``vae``: clips frame by frame."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nodes.engines.common.holder import Holder
from nodes.engines.common.pixels import frames_of, vae_pixels
from nodes.engines.engine import Frames

_VAE = "vae"


def encode_frame(
    held: Holder[Any], frame: NDArray[np.uint8], generator: torch.Generator | None = None
) -> torch.Tensor:
    """(H, W, 3) uint8 to its latent (1, C, h, w) float32: the mode, or drawn by ``generator``; the VAE is on
    the card."""
    vae = held.placed.model.components[_VAE]
    distribution = vae.encode(vae_pixels(frame, held.device).to(held.dtype)).latent_dist
    latent: torch.Tensor = distribution.mode() if generator is None else distribution.sample(generator)
    return latent.float() * float(vae.config.scaling_factor)


@torch.no_grad()
def encode_frames(held: Holder[Any], frames: Frames) -> torch.Tensor:
    """(F, H, W, 3) uint8 to latents (F, C, h, w) float32: each frame's mode, one frame at a time."""
    with held.placed.on_card(_VAE):
        latents = held.calls.map(
            partial(encode_frame, held), frames, at_once=held.placed.placement.decode_frames
        )
    return torch.cat(latents)


@torch.no_grad()
def decode_frames(held: Holder[Any], latents: torch.Tensor) -> Frames:
    """Latents (F, C, h, w) to frames (F, H, W, 3) uint8."""
    placed = held.placed
    vae = placed.model.components[_VAE]

    def decoded(chunk: torch.Tensor) -> torch.Tensor:
        scaled = chunk.to(held.device, held.dtype) / vae.config.scaling_factor
        return frames_of(vae.decode(scaled).sample)

    at_once = placed.placement.decode_frames
    size = 1 if held.on_cpu else at_once
    chunks = [latents[first : first + size] for first in range(0, len(latents), size)]
    with placed.on_card(_VAE):
        frames = held.calls.map(decoded, chunks, at_once=at_once)
    return torch.cat(frames).numpy()
