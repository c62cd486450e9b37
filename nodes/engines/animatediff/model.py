"""One AnimateDiff model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nodes.engines.animatediff.layout import AnimateDiffFolder
from nodes.engines.animatediff.textual_inversions import TextualInversion


@dataclass(frozen=True)
class Model:
    """The parts of one model. ``components``: denoiser, vae and text_encoder."""

    folder: AnimateDiffFolder
    components: dict[str, Any]
    tokenizer: Any
    scheduler: Any
    inversions: tuple[TextualInversion, ...] = ()

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a frame of ``height`` x ``width`` pixels."""
        side = self.folder.pixels_per_latent
        return int(self.folder.unet.get("in_channels", 4)), height // side, width // side
