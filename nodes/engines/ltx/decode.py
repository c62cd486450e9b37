"""Decoding: latents to frames, in memory that does not grow with the window."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nodes.engines.common import ClipOnHost, Holder
from nodes.engines.engine import Frames
from nodes.engines.ltx.layout import VAE_DECODER
from nodes.engines.ltx.model import Model
from nodes.engines.ltx.vae import decoded

OnFrames = Callable[[int, int], None]
"""``on_frames(done, total)``: called when some frames are there; may raise to stop."""


@torch.no_grad()
def decode(
    held: Holder[Model],
    latents: torch.Tensor,
    noise: torch.Tensor | None = None,
    *,
    on_frames: OnFrames | None = None,
) -> Frames:
    """Latents (C, L, h, w) of a whole window to its frames (F, H, W, 3) uint8.

    Args:
        held: The loaded model.
        latents: As ``denoise`` gives them.
        noise: Of the same shape, for a decoder that removes the last noise; None shows it the latents alone.
        on_frames: Called as frames come.
    """
    placed, model = held.placed, held.placed.model
    facts, mean, std = model.facts, model.latent_mean, model.latent_std
    latents = latents.to(held.device)
    clean = (latents * std.to(held.device) + mean.to(held.device)).to(held.dtype)
    timestep = None
    if model.folder.vae.get("timestep_conditioning"):
        timestep = torch.tensor([facts.decode_timestep], device=held.device, dtype=held.dtype)
        if noise is not None:
            share = facts.decode_noise
            clean = (1 - share) * clean + share * noise.to(held.device, held.dtype)
    total = (latents.shape[1] - 1) * model.folder.frames_per_latent + 1
    done = 0
    _, _, height, width = latents.shape
    side = model.folder.pixels_per_latent
    with placed.on_card(VAE_DECODER), ClipOnHost((total, height * side, width * side)) as clip:
        chunks = decoded(
            model.vae_decoder, clean[None], timestep, frames_at_once=placed.placement.decode_frames
        )

        def following() -> torch.Tensor:
            return next(chunks)[0].transpose(0, 1)

        while done < total:
            pixels = held.made(following)
            clip.put(pixels, first=done)
            done += len(pixels)
            if on_frames is not None:
                on_frames(done, total)
        return clip.frames()
