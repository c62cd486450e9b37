"""What the transformer learns from: latents of clips, what is known of them, their prompts.

Known frames are drawn at random: the first; the first and the last; the last; the first k; k at both ends; a
keyframe in the middle too. The condition is the clip with its unknown frames zero, encoded, as the Wan
pipelines make it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, UMT5EncoderModel

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import SPATIAL, TEMPORAL
from models.tiny_wan.recipe.asked import RATES, with_rate
from models.tiny_wan.recipe.prompts import random_prompt
from models.tiny_wan.recipe.scenes import ALL_ASKED, Scene, Scenes, Shape, within_reach
from models.tiny_wan.recipe.text import LENGTH, padded

#: Which frames are known, by the share of clips: see ``known_frames``.
MASKS = {"first": 0.4, "ends": 0.25, "last": 0.05, "prefix": 0.1, "clips": 0.12, "middle": 0.08}


@dataclass(frozen=True)
class Batch:
    """N clips in latents. L latents of h x w.

    latents, condition: (N, z, L, h, w), of unit variance. mask: (N, 4, L, h, w), 1 for known frames, the four
    of each latent (the first latent's four are one frame). text: (N, LENGTH, D). seen: (N, 1, L, h, w), 1
    where a known frame shows what is there: nobody can know the rest. frames: (N, 3, F, H, W) in [-1, 1].
    """

    latents: torch.Tensor
    condition: torch.Tensor
    mask: torch.Tensor
    text: torch.Tensor
    seen: torch.Tensor
    frames: torch.Tensor


def known_frames(kind: str, num_frames: int, rng: random.Random) -> list[int]:
    """The frames a clip is told, by the name of a mask; k is one whole latent or two (5 or 9 frames)."""
    last = num_frames - 1
    k = rng.choice((5, 5, 9)) if num_frames >= 33 else 5
    if kind == "first":
        return [0]
    if kind == "ends":
        return [0, last]
    if kind == "last":
        return [last]
    if kind == "prefix":
        return list(range(min(k, last)))
    if kind == "clips":
        k = min(k, (num_frames - 1) // 2)
        return [*range(k), *range(num_frames - k, num_frames)]
    if kind == "middle":
        return sorted({0, rng.randrange(1, last), *((last,) if rng.random() < 0.5 else ())})
    raise ValueError(f"no such mask: {kind}")


def latent_mask(known: torch.Tensor) -> torch.Tensor:
    """(N, F) of frames to (N, 4, L): as the Wan pipelines fold it, the first frame four times."""
    whole = torch.cat([known[:, :1].expand(-1, TEMPORAL), known[:, 1:]], 1)
    return whole.view(len(known), -1, TEMPORAL).transpose(1, 2)


def random_masks(count: int, num_frames: int, rng: random.Random) -> torch.Tensor:
    """(count, num_frames), 1 for known frames."""
    known = torch.zeros(count, num_frames)
    for row, kind in enumerate(rng.choices(list(MASKS), list(MASKS.values()), k=count)):
        known[row, known_frames(kind, num_frames, rng)] = 1
    return known


class Prompts:
    """Prompts in token ids, ready on the device, and the frozen encoder that reads them."""

    def __init__(self, folder: Path, device: str, *, each: int, seed: int) -> None:
        self.encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        self.encoder.to(device).eval().requires_grad_(False)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        rng = random.Random(seed)
        said = [[random_prompt(rng, asked) for _ in range(each)] for asked in ALL_ASKED]
        texts = [with_rate(text, rate) for same in said for text in same for rate in RATES]
        ids = tokenizer(texts, truncation=True, max_length=LENGTH).input_ids
        rows = padded(ids, LENGTH).to(torch.int16)
        #: (asked, each, rate, LENGTH)
        self.table = rows.view(len(ALL_ASKED), each, len(RATES), LENGTH).to(device)
        self.each = each

    @torch.no_grad()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """(N, LENGTH) ids to states (N, LENGTH, D), zero beyond the end, as the pipelines make them."""
        mask = ids.gt(0).long()
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            states = self.encoder(ids.long(), mask).last_hidden_state
        return states.float() * mask[..., None]


class ClipMaker:
    """Makes batches from scenes, a frozen autoencoder and prompts."""

    def __init__(
        self, scenes: Scenes, prompts: Prompts, vae: Any, *, seed: int, compiled: Shape | None = None
    ) -> None:
        """``compiled``: the shape to compile the encoder for; for others it is not worth the time."""
        self.scenes, self.prompts, self.vae = scenes, prompts, vae
        self.device = scenes.device
        self.rng = random.Random(seed)
        z = vae.config.z_dim
        self.mean = torch.tensor(vae.config.latents_mean, device=self.device).view(1, z, 1, 1, 1)
        self.std = torch.tensor(vae.config.latents_std, device=self.device).view(1, z, 1, 1, 1)
        self._encode, self._compiled = torch.compile(whole_clip.encode, dynamic=False), compiled

    @torch.no_grad()
    def make(self, shape: Shape, known: torch.Tensor | None = None) -> Batch:
        """A batch of this shape; ``known`` (N, F), 1 for known frames, drawn at random if not given."""
        scene = self.scenes.make(shape)
        if known is None:
            known = random_masks(shape.batch, shape.frames, self.rng)
        known = known.to(self.device, non_blocking=True)
        given = scene.frames * known[:, None, :, None, None]
        encode = self._encode if shape == self._compiled else whole_clip.encode
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            both = torch.cat([encode(self.vae, frames)[0] for frames in (scene.frames, given)])
        latents, condition = ((both - self.mean) / self.std).chunk(2)
        mask = latent_mask(known)[..., None, None].expand(-1, -1, -1, *latents.shape[-2:])
        which = torch.randint(
            self.prompts.each, (shape.batch,), generator=self.scenes.generator, device=self.device
        )
        ids = self.prompts.table[scene.asked, which, scene.rate]
        frames = scene.frames.bfloat16() if self.device.type == "cuda" else scene.frames
        return Batch(latents, condition, mask, self.prompts.embed(ids), self._seen(scene, known), frames)

    def _seen(self, scene: Scene, known: torch.Tensor) -> torch.Tensor:
        """(N, 1, L, h, w): 1 where a known frame shows it or is it, 0 elsewhere.

        Exact for the first frame alone; for other known frames as if all that is seen moved as the camera.
        """
        cells = F.avg_pool2d(scene.seen, SPATIAL)
        motion, rate = self.scenes.motions[scene.asked], self.scenes.rates[scene.rate]
        times = torch.arange(known.shape[1], device=self.device)[None] / rate[:, None]
        in_cells = torch.cat([motion[:, :2] / SPATIAL, motion[:, 2:]], 1)
        reach = within_reach(in_cells, times, known, *cells.shape[2:]).float()
        only_first = (known.sum(1) == 1) & (known[:, 0] > 0)
        cells = torch.where(only_first[:, None, None, None], cells, reach)
        later = cells[:, 1:].unflatten(1, (-1, TEMPORAL)).mean(2)
        return torch.cat([cells[:, :1], later], 1)[:, None].clamp(0, 1)
