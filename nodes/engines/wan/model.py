"""One Wan model in memory, and what its loop over a window reads beside the latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nodes.engines.wan.facts import ModelFacts
from nodes.engines.wan.layout import VAE, WanFolder


@dataclass(frozen=True)
class Model:
    """What renders windows. ``components`` maps transformer(s) and vae to modules."""

    folder: WanFolder
    facts: ModelFacts
    components: dict[str, Any]
    #: (C, 1, 1, 1) each: latents are (z - mean) / std of what the VAE gives.
    latent_mean: torch.Tensor
    latent_std: torch.Tensor

    @property
    def vae(self) -> Any:
        return self.components[VAE]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of one latent of frames of ``height`` x ``width`` pixels."""
        scale = self.folder.pixels_per_latent
        return int(self.folder.vae["z_dim"]), height // scale, width // scale

    def num_latents(self, num_frames: int) -> int:
        return (num_frames - 1) // self.folder.frames_per_latent + 1


@dataclass(frozen=True)
class TextModel:
    """What encodes prompts. ``components`` maps text_encoder to its module."""

    facts: ModelFacts
    components: dict[str, Any]
    tokenizer: Any
    #: (V, D): the text encoder's table, of which a prompt reads a few rows; it stays on the host.
    token_embeds: torch.Tensor


@dataclass(frozen=True)
class Text:
    """(1, L, D) each, on the device in its dtype. ``negative`` is None without guidance."""

    prompt: torch.Tensor
    negative: torch.Tensor | None
    guidance_scale: float

    @property
    def rows(self) -> list[torch.Tensor]:
        return [self.prompt] if self.negative is None else [self.prompt, self.negative]


@dataclass(frozen=True)
class Given:
    """Tensors on the device, float32; of the three, the one that the kind of model reads."""

    #: (t + C, L, h, w): which frames are given, a channel for each of a latent's, and their latents.
    channels: torch.Tensor | None = None
    #: (C, L, h, w) latents that are given and (1, L, 1, 1), 0 where they are and 1 where they are made.
    in_place: tuple[torch.Tensor, torch.Tensor] | None = None
    #: (2 C + p^2, R + L, h, w): what is kept, what is changed, and where, behind R reference images.
    control: torch.Tensor | None = None
    num_references: int = 0
