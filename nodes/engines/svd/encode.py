"""Encoding: a picture and a video to what the denoising loop reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from numpy.typing import NDArray

from nodes.engines.common import Holder, channel_statistics, image_hash, pulled_to_anchor, vae_pixels
from nodes.engines.engine import Frames
from nodes.engines.svd.layout import IMAGE_ENCODER, VAE_ENCODER
from nodes.engines.svd.model import Model


@dataclass(frozen=True)
class Conditioning:
    """Everything a denoising step needs beside the latents. Tensors are on the device.

    Rows are the negative one (zeros in place of the picture) and the positive one; without guidance the
    positive alone. ``context`` (B, 1, D): the picture's embedding; ``image_latents`` (B, C, h, w): its
    latent, not scaled; ``added_time_ids`` (B, 3) float32: rate less one, motion, noise of the picture;
    ``guidance`` (F, 1, 1, 1) float32.
    """

    context: torch.Tensor
    image_latents: torch.Tensor
    added_time_ids: torch.Tensor
    guidance: torch.Tensor

    @property
    def guided(self) -> bool:
        return len(self.context) == 2


@torch.no_grad()
def encode(
    held: Holder[Model],
    image: NDArray[np.uint8],
    *,
    num_frames: int,
    fps: float,
    guidance_scale: float,
    noise: NDArray[np.float32],
    anchor: tuple[NDArray[np.float32], NDArray[np.float32], float] | None = None,
) -> Conditioning:
    """Make the conditioning of a window. The picture's embedding is cached by content.

    Args:
        held: The loaded model.
        image: (H, W, 3) uint8 at the size to render.
        num_frames: Frames of the window.
        fps: Frame rate the motion is meant for.
        guidance_scale: Of the last frame; over 1 guides, at twice the work.
        noise: (3, H, W), standard normal: what the picture is given before it is encoded.
        anchor: Mean and deviation (C,) of the first window's latents, and how strongly to pull to them.
    """
    placed, model = held.placed, held.placed.model
    facts = model.facts
    key = f"image {image_hash(image)}"
    context = held.cached(IMAGE_ENCODER, [(key, partial(_embed, held, model, image))])
    pixels = vae_pixels(image) + facts.noise_aug_strength * torch.from_numpy(noise)[None]
    with placed.on_card(VAE_ENCODER):
        latent = held.made(partial(_encoded, held, pixels))
    if anchor is not None:
        mean, std, strength = anchor
        pulled = pulled_to_anchor(latent[0].cpu().numpy(), mean, std, strength)
        latent = torch.from_numpy(pulled)[None].to(latent)
    latent = latent.to(held.dtype)
    told = torch.tensor([[fps - 1, facts.motion_bucket_id, facts.noise_aug_strength]], device=held.device)
    if guidance_scale > 1:
        context, latent = (torch.cat([torch.zeros_like(each), each]) for each in (context, latent))
        told = told.expand(2, -1)
    rising = torch.linspace(facts.min_guidance_scale, guidance_scale, num_frames, device=held.device)
    return Conditioning(context, latent, told.float(), rising.view(-1, 1, 1, 1))


@torch.no_grad()
def encode_video(held: Holder[Model], frames: Frames) -> torch.Tensor:
    """(F, H, W, 3) uint8 to latents (F, C, h, w) float32, scaled: each frame's mode, one at a time."""
    placed = held.placed

    def encoded(frame: NDArray[np.uint8]) -> torch.Tensor:
        return _encoded(held, vae_pixels(frame))

    with placed.on_card(VAE_ENCODER):
        latents = held.calls.map(encoded, frames, at_once=placed.placement.decode_frames)
    return torch.cat(latents) * placed.model.scaling_factor


def statistics(latent: torch.Tensor, model: Model) -> dict[str, NDArray[np.float32]]:
    """Mean and deviation of a denoised latent (C, h, w), as a picture's latent has them: not scaled."""
    return channel_statistics((latent / model.scaling_factor).cpu().numpy())


def _embed(held: Holder[Model], model: Model, image: NDArray[np.uint8]) -> torch.Tensor:
    size = (model.clip_size, model.clip_size)
    resized = _resize_with_antialiasing(vae_pixels(image), size)  # type: ignore[no-untyped-call]
    channels = (3, 1, 1)
    mean, std = (torch.tensor(each).view(channels) for each in (model.clip_mean, model.clip_std))
    pixels = ((resized + 1) / 2 - mean) / std
    encoded = model.components[IMAGE_ENCODER](pixels.to(held.device, held.dtype))
    embeds: torch.Tensor = encoded.image_embeds
    return embeds[:, None]


def _encoded(held: Holder[Model], pixels: torch.Tensor) -> torch.Tensor:
    encoder = held.placed.model.components[VAE_ENCODER]
    latent: torch.Tensor = encoder(pixels.to(held.device, encoder.quant_conv.weight.dtype))
    return latent.float()
