"""What is measured while it trains, on photographs nothing here was trained on, and sheets to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.held_out import PHOTOGRAPHS, photograph
from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.asked import Asked
from models.tiny_wan.recipe.data.camera import MOTIONS, PACES, film, parameters, stays_in_view, view_points

#: The motions a photograph is filmed with, four of them each in turn.
_MOTIONS = ("right", "in", "clockwise", "up", "left", "out", "down", "still", "counterclockwise")
_EACH = 4


@dataclass(frozen=True)
class HeldOutClip:
    """A held-out photograph filmed. frames: (3, F, H, W) in [-1, 1]; seen: (F, H, W) bool."""

    photograph: str
    asked: Asked
    fps: float
    frames: torch.Tensor
    seen: torch.Tensor


def held_out_clips(
    *, side: int = 256, num_frames: int = 17, magnified: float = 1.0, each: int = _EACH
) -> list[HeldOutClip]:
    """Every held-out photograph (shorter side 256 pixels) under ``each`` motions, the same clips every time.

    A view has 0.7 to 1.1 pixels of the photograph to a pixel of a 256-pixel frame, or so much fewer as it is
    ``magnified``.
    """
    generator = torch.Generator().manual_seed(14)
    clips = []
    for place, name in enumerate(PHOTOGRAPHS):
        picture = torch.from_numpy(photograph(name).copy()).permute(2, 0, 1)[None].float()
        for turn in range(each):
            number = place * each + turn
            motion = _MOTIONS[number % len(_MOTIONS)]
            pace = tuple(PACES)[(number + number // 45) % len(PACES)]
            fps = (6.0, 8.0, 12.0, 16.0, 24.0)[(number + number // 5) % 5]
            uniform = torch.rand(3, generator=generator)
            scale = float(0.7 + 0.4 * uniform[0]) * 256 / side / magnified
            size = torch.tensor([picture.shape[3], picture.shape[2]])
            room = (size - scale * side).clamp(min=0)
            centre = (size - 1) / 2 + room * (uniform[1:] - 0.5)
            camera = parameters([MOTIONS[motion].at(pace)], "cpu")
            points = view_points(camera, torch.arange(num_frames)[None] / fps, side, side)
            frames = film(picture, points, centre[None], torch.tensor([scale]))[0]
            pixels = frames.round().clamp(0, 255).transpose(0, 1) / 127.5 - 1
            clips.append(HeldOutClip(name, Asked((motion,), pace), fps, pixels, stays_in_view(points)[0]))
    return clips


def psnr(made: torch.Tensor, true: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """In dB, of values in [-1, 1]; ``where`` (broadcast) says which count."""
    squared = (made.clamp(-1, 1) - true).square()
    if where is not None:
        weight = where.to(squared).expand_as(squared)
        return 10 * math.log10(4 / max(float((squared * weight).sum() / weight.sum().clamp(min=1)), 1e-10))
    return 10 * math.log10(4 / max(float(squared.mean()), 1e-10))


@torch.no_grad()
def autoencoder_figures(
    vae: Any, clips: list[HeldOutClip], *, stock: bool = False
) -> tuple[dict[str, Any], torch.Tensor]:
    """PSNR of the first and of the other frames, means over clips, and the clips rebuilt (N, 3, F, H, W).

    ``stock``: by ``vae.encode`` and ``vae.decode`` instead of whole clips.
    """
    weight = next(vae.parameters())
    rebuilt = []
    for clip in clips:
        frames = clip.frames[None].to(weight)
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=weight.is_cuda):
            if stock:
                made = vae.decode(vae.encode(frames).latent_dist.mode()).sample
            else:
                made = whole_clip.decode(vae, whole_clip.encode(vae, frames)[0])
        rebuilt.append(made[0].float().cpu().clamp(-1, 1))
    first = [psnr(made[:, :1], clip.frames[:, :1]) for made, clip in zip(rebuilt, clips, strict=True)]
    others = [psnr(made[:, 1:], clip.frames[:, 1:]) for made, clip in zip(rebuilt, clips, strict=True)]
    by_photograph = {
        name: round(
            float(np.mean([a for a, c in zip(others, clips, strict=True) if c.photograph == name])), 2
        )
        for name in PHOTOGRAPHS
    }
    figures = {
        "first_db": round(float(np.mean(first)), 3),
        "others_db": round(float(np.mean(others)), 3),
        "others_db_by_photograph": by_photograph,
    }
    return figures, torch.stack(rebuilt)


def write_sheet(path: Path, true: list[torch.Tensor], made: list[torch.Tensor], *, columns: int = 5) -> None:
    """A JPEG: for each clip (3, F, H, W) in [-1, 1] a row of true frames above a row of made ones."""
    rows = []
    for pair in zip(true, made, strict=True):
        for clip in pair:
            picks = torch.linspace(0, clip.shape[1] - 1, columns).round().long()
            pixels = ((clip[:, picks].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            rows.append(pixels.permute(2, 1, 3, 0).flatten(1, 2))
        rows.append(torch.full((6, *rows[-1].shape[1:]), 255, dtype=torch.uint8))
    Image.fromarray(torch.cat(rows).numpy()).save(path, quality=90)
