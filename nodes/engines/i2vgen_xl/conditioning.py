"""What I2VGen-XL is conditioned on: text and image embeddings, the first frame's latent, a frame clock.

The maths follow the released model (Zhang et al., arXiv 2311.04145) as diffusers' I2VGenXLPipeline runs it;
tests/nodes/engines/i2vgen_xl/test_engine.py holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn


@dataclass(frozen=True)
class Conditioning:
    """Everything a denoising step needs beside the latents. Tensors are on the device, in its dtype.

    ``prompt_embeds`` (2, 77, D) and ``image_embeds`` (2, 1, D) hold the negative row first; without guidance
    they have the positive row alone. ``image_latents`` (1, C, F, h, w): frame 0 is the first frame's latent,
    frame f the constant f / (F - 1).
    """

    prompt_embeds: torch.Tensor
    image_embeds: torch.Tensor
    image_latents: torch.Tensor
    fps: float
    guidance_scale: float

    @property
    def guided(self) -> bool:
        return self.prompt_embeds.shape[0] == 2


class PenultimateText(nn.Module):
    """The text encoder's last layer but one, through its final norm: (B, 77) ids to (B, 77, D).

    A module of its own, so that the whole computation passes through ``forward`` and its weights can be
    streamed.
    """

    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.text_encoder(input_ids, output_hidden_states=True).hidden_states[-2]
        # transformers 5.6 dropped the inner ``text_model`` of CLIPTextModel.
        inner: Any = getattr(self.text_encoder, "text_model", self.text_encoder)
        return inner.final_layer_norm(hidden)  # type: ignore[no-any-return]


def clip_pixels(image: NDArray[np.uint8], *, size: int, mean: list[float], std: list[float]) -> torch.Tensor:
    """(H, W, 3) uint8 to the (1, 3, size, size) the CLIP image encoder reads.

    The middle square of side W, scaled by box filter to cover it, then to ``size`` bilinearly.
    """
    width = image.shape[1]
    square = _covering(Image.fromarray(image), width, width).resize((size, size), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(square, dtype=np.float32)).permute(2, 0, 1) / 255
    channels = (3, 1, 1)
    return ((pixels - torch.tensor(mean).view(channels)) / torch.tensor(std).view(channels))[None]


def _covering(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(image.width / width, image.height / height)
    scaled = image.resize((round(image.width // scale), round(image.height // scale)), Image.Resampling.BOX)
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def with_frame_clock(first_latent: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(N, C, h, w) to (N, C, F, h, w): the first frame's latent, then constant planes f / (F - 1)."""
    frames = [first_latent]
    frames += [torch.full_like(first_latent, f / (num_frames - 1)) for f in range(1, num_frames)]
    return torch.stack(frames, dim=2)
