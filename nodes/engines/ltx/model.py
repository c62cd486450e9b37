"""One LTX-Video model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nodes.engines.ltx.conditioning import Places
from nodes.engines.ltx.facts import ModelFacts
from nodes.engines.ltx.layout import TRANSFORMER, VAE_DECODER, VAE_ENCODER, LtxFolder


@dataclass(frozen=True)
class Model:
    """What renders windows. ``components`` maps transformer, vae_encoder and vae_decoder to modules."""

    folder: LtxFolder
    facts: ModelFacts
    components: dict[str, Any]
    #: (C, 1, 1, 1) each, float32: latents are (z - mean) / std of what the VAE gives.
    latent_mean: torch.Tensor
    latent_std: torch.Tensor

    @property
    def transformer(self) -> Any:
        return self.components[TRANSFORMER]

    @property
    def vae_encoder(self) -> Any:
        return self.components[VAE_ENCODER]

    @property
    def vae_decoder(self) -> Any:
        return self.components[VAE_DECODER]

    @property
    def text_width(self) -> int:
        return int(self.folder.transformer.get("caption_channels", 4096))

    @property
    def places(self) -> Places:
        folder = self.folder
        return Places(folder.frames_per_latent, folder.pixels_per_latent, causal=folder.takes_any_frame)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of one latent of frames of ``height`` x ``width`` pixels."""
        side = self.folder.pixels_per_latent
        return self.folder.latent_channels, height // side, width // side


@dataclass(frozen=True)
class TextModel:
    """What encodes prompts. ``components`` maps text_encoder to its module."""

    facts: ModelFacts
    components: dict[str, Any]
    tokenizer: Any
    #: (V, T): the text encoder's table, of which a prompt reads a few rows; it stays on the host.
    token_embeds: torch.Tensor
