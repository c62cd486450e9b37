"""One Stable Video Diffusion model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nodes.engines.svd.facts import ModelFacts


@dataclass(frozen=True)
class Model:
    """The parts of one model. ``components``: unet, vae_encoder, vae_decoder and image_encoder.

    ``latent_channels`` are those of a frame's latent; latents that are denoised are the VAE's times
    ``scaling_factor``, those of the picture are not scaled.
    """

    components: dict[str, Any]
    scheduler: Any
    facts: ModelFacts
    clip_size: int
    clip_mean: list[float]
    clip_std: list[float]
    latent_channels: int
    scaling_factor: float
    pixels_per_latent: int

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a frame of ``height`` x ``width`` pixels."""
        return self.latent_channels, height // self.pixels_per_latent, width // self.pixels_per_latent
