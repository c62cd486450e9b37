"""One AnimateDiff model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nodes.engines.animatediff.layout import AnimateDiffFolder
from nodes.engines.animatediff.textual_inversions import TextualInversion


@dataclass(frozen=True)
class Model:
    """The parts of one model. ``components``: denoiser, vae, text_encoder and perhaps image_encoder."""

    folder: AnimateDiffFolder
    components: dict[str, Any]
    tokenizer: Any
    scheduler: Any
    inversions: tuple[TextualInversion, ...] = ()
    #: What prepares references for the image encoder; None: there is none.
    image_processor: Any = None

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a frame of ``height`` x ``width`` pixels."""
        side = self.folder.pixels_per_latent
        return int(self.folder.unet.get("in_channels", 4)), height // side, width // side
