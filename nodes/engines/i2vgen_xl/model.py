"""One I2VGen-XL model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Model:
    """The parts of one model. ``components`` maps unet, vae, text_encoder and image_encoder to modules."""

    components: dict[str, Any]
    tokenizer: Any
    scheduler: Any
    clip_size: int
    clip_mean: list[float]
    clip_std: list[float]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a frame of ``height`` x ``width`` pixels."""
        scale = 2 ** (len(self.components["vae"].config.block_out_channels) - 1)
        return int(self.components["unet"].config.in_channels), height // scale, width // scale
