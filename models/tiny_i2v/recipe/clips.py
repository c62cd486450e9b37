"""Training clips made on the device: pictures filmed along camera paths, encoded, and what tells of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from models.tiny_i2v.recipe.camera import MOTIONS, PACES, parameters, stays_in_view, view_points
from models.tiny_i2v.recipe.pictures import Atlas
from models.tiny_i2v.recipe.prompts import random_prompt
from models.tiny_i2v.recipe.vae import vision_pixels
from nodes.engines.i2vgen_xl.conditioning import PenultimateText, with_frame_clock

#: What the loss of a place counts that the first frame does not show: nobody can know it.
UNSEEN_WEIGHT = 0.3


@dataclass(frozen=True)
class Shape:
    """Frames, side in pixels and clips of one batch on one GPU."""

    frames: int
    side: int
    batch: int


@dataclass(frozen=True)
class Batch:
    """Clips in latents. N clips, F frames, h x w latents.

    latents: (N, 4, F, h, w). image_latents: the same shape, the first frame and the frame clock. text:
    (N, 77, D). image: (N, 1, D). fps: (N,). weight: (N, 1, F, h, w).
    """

    latents: torch.Tensor
    image_latents: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor
    fps: torch.Tensor
    weight: torch.Tensor


class Prompts:
    """Embedded prompts by motion and pace, and the embedding of no prompt."""

    def __init__(self, folder: Path, device: str, *, each: int, seed: int) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        encoder = PenultimateText(CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32))
        encoder.to(device).eval()
        rng = random.Random(seed)
        self.kinds = [(motion, pace) for motion in MOTIONS for pace in PACES]
        texts = [random_prompt(rng, motion, pace) for motion, pace in self.kinds for _ in range(each)]
        self.each = each
        with torch.no_grad():
            embedded = [
                self._embed(tokenizer, encoder, texts[i : i + 512], device) for i in range(0, len(texts), 512)
            ]
            self.none = self._embed(tokenizer, encoder, [""], device)
        self.table = torch.cat(embedded)

    @staticmethod
    def _embed(tokenizer: Any, encoder: Any, texts: list[str], device: str) -> torch.Tensor:
        tokens = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        return encoder(tokens.input_ids.to(device)).to(torch.bfloat16)  # type: ignore[no-any-return]


class ClipMaker:
    """Makes batches from an atlas, a frozen autoencoder and image encoder, and a table of prompts."""

    def __init__(
        self,
        pictures: Atlas,
        prompts: Prompts,
        vae: Any,
        image_encoder: Any,
        generator: torch.Generator,
        *,
        fast: bool,
    ) -> None:
        self.pictures = pictures
        self.prompts = prompts
        self.generator = generator
        self.device = generator.device
        self.scaling_factor = float(vae.config.scaling_factor)
        self._encode = torch.compile(vae.encoder, dynamic=False) if fast else vae.encoder
        self._compiled_shape: torch.Size | None = None
        self._vae = vae
        self._image_encoder = image_encoder
        kinds = [MOTIONS[motion].at(pace) for motion, pace in prompts.kinds]
        self._motions = parameters(kinds, self.device)

    @torch.no_grad()
    def make(self, shape: Shape, *, told: float = 0.9) -> Batch:
        """A batch of this shape; ``told`` is the share that has its prompt and image embedding."""
        count, device = shape.batch, self.device
        kind = torch.randint(len(self._motions), (count,), generator=self.generator, device=device)
        fps = self._fps(count)
        times = torch.arange(shape.frames, device=device)[None] / fps[:, None]
        points = view_points(self._motions[kind], times, shape.side, shape.side)
        scale = (0.6 + 0.7 * self._rand(count)) * min(1.0, 1.6 * 128 / shape.side)
        frames = self.pictures.film(points, 0.2 + 0.6 * self._rand(count, 2), scale, self.generator)
        latents = self._latents(frames.flatten(0, 1)).view(count, shape.frames, 4, *self._cells(shape))
        seen = stays_in_view(points).float().flatten(0, 1)[:, None]
        seen = F.avg_pool2d(seen, 4).view(count, 1, shape.frames, *self._cells(shape))
        text = self.prompts.table[kind * self.prompts.each + self._which_text(count)]
        with torch.autocast(device.type, torch.bfloat16):
            image = self._image_encoder(vision_pixels(frames[:, 0])).image_embeds[:, None]
        untold = self._rand(count, 1, 1) >= told
        return Batch(
            latents=latents.transpose(1, 2),
            image_latents=with_frame_clock(self._worn(latents[:, 0]), shape.frames),
            text=torch.where(untold, self.prompts.none, text),
            image=torch.where(untold, 0, image.to(torch.bfloat16)),
            fps=fps,
            weight=UNSEEN_WEIGHT + (1 - UNSEEN_WEIGHT) * seen,
        )

    def _rand(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def _which_text(self, count: int) -> torch.Tensor:
        return torch.randint(self.prompts.each, (count,), generator=self.generator, device=self.device)

    def _cells(self, shape: Shape) -> tuple[int, int]:
        return shape.side // 4, shape.side // 4

    def _fps(self, count: int) -> torch.Tensor:
        """Two thirds between 4 and 16 a second, a third as sparse as 1: drafts of long videos."""
        dense = 4 * 4 ** self._rand(count)
        return torch.where(self._rand(count) < 0.67, dense, 4 ** self._rand(count))

    def _latents(self, frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            # Compiled for the first shape it meets; the rarer ones are not worth the compiler's time.
            self._compiled_shape = self._compiled_shape or frames.shape
            encode = self._encode if frames.shape == self._compiled_shape else self._vae.encoder
            moments = self._vae.quant_conv(encode(frames))
        return moments[:, :4].float() * self.scaling_factor

    def _worn(self, first: torch.Tensor) -> torch.Tensor:
        """First frames as a later window gets them: some a little noisy, from latents a model made."""
        level = 0.25 * self._rand(len(first), 1, 1, 1) * (self._rand(len(first), 1, 1, 1) < 0.5)
        noise = torch.randn(first.shape, generator=self.generator, device=self.device)
        return first + level * noise
