"""Long videos of held-out photographs, made as the farm makes them, to watch their detail while it trains."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.held_out import PHOTOGRAPHS, filmed, photograph
from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.asked import Asked, with_rate
from models.tiny_wan.recipe.clips import ClipMaker, latent_mask
from models.tiny_wan.recipe.data.camera import MOTIONS, Pace
from models.tiny_wan.recipe.measure import write_sheet
from models.tiny_wan.recipe.prompts import random_prompt
from models.tiny_wan.recipe.text import LENGTH, padded
from models.tiny_wan.recipe.transformer import STEPS, generate

#: Frames of a window, of a draft and between a draft's frames; frames that a chain's windows share.
WINDOW, DRAFT, APART, SHARED = 17, 9, 16, 5
FPS = 8
#: How each photograph is filmed, with pixels of it to a pixel of the frame.
FILMED: tuple[tuple[str, Pace, float], ...] = (
    ("left", "normal", 0.7),
    ("in", "slow", 1.1),
    ("right", "slow", 1.0),
    ("down", "normal", 0.7),
)
#: Windows of the chain, and the last window between keyframes: of 96 frames.
CHAINED, LAST = 4, 5


class Watched:
    """A chain of windows, a draft, and the windows between the draft's first and last keyframes."""

    def __init__(self, maker: ClipMaker, tokenizer: Any, *, side: int = 128, each: int = 2) -> None:
        self.maker, self.device, self.tokenizer = maker, maker.device, tokenizer
        films, words, self.said = [], random.Random(41), []
        for number in range(len(PHOTOGRAPHS) * each):
            motion, pace, scale = FILMED[(number + number // len(PHOTOGRAPHS)) % len(FILMED)]
            films.append(_film(PHOTOGRAPHS[number % len(PHOTOGRAPHS)], motion, pace, scale, side))
            self.said.append(random_prompt(words, Asked((motion,), pace), held_out=True))
        pixels = np.stack(films)
        #: (N, 3, F, H, W)
        self.true = torch.from_numpy(pixels).permute(0, 4, 1, 2, 3).to(self.device).float() / 127.5 - 1
        kept = [self._decoded(self._latents(self.true[:, :, at : at + WINDOW])) for at in (0, APART * LAST)]
        self.kept = torch.cat(kept, 2)
        self.first_kept, self.last_kept = (detail(part[:, :, 1:]) for part in kept)
        self.text = {rate: self._text(rate) for rate in (FPS, FPS / APART)}

    @torch.no_grad()
    def _text(self, rate: float) -> torch.Tensor:
        said = [with_rate(prompt, rate) for prompt in self.said]
        ids = padded(self.tokenizer(said, truncation=True, max_length=LENGTH).input_ids, LENGTH)
        return self.maker.prompts.embed(ids.to(self.device))

    @torch.no_grad()
    def _latents(self, frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return (whole_clip.encode(self.maker.vae, frames)[0] - self.maker.mean) / self.maker.std

    @torch.no_grad()
    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            made = whole_clip.decode(self.maker.vae, latents * self.maker.std + self.maker.mean)
        return ((made.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    def window(
        self, transformer: Any, known: dict[int, torch.Tensor], frames: int, rate: float, seed: int
    ) -> torch.Tensor:
        """(N, 3, frames, H, W) from known frames (N, 3, H, W) by their places."""
        count, _, height, width = next(iter(known.values())).shape
        given = torch.zeros(count, 3, frames, height, width, device=self.device)
        told = torch.zeros(count, frames, device=self.device)
        for place, frame in known.items():
            given[:, :, place], told[:, place] = frame, 1
        condition = self._latents(given)
        mask = latent_mask(told)[..., None, None].expand(-1, -1, -1, *condition.shape[-2:])
        noise = torch.randn(condition.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        return self._decoded(generate(transformer, condition, mask, self.text[rate], noise, STEPS))

    def made(self, transformer: Any) -> dict[str, torch.Tensor]:
        """A chain; a draft; the first and the last window between the draft's keyframes."""
        chain = self.window(transformer, {0: self.true[:, :, 0]}, WINDOW, FPS, 0)
        for turn in range(1, CHAINED):
            shared = {place: chain[:, :, place - SHARED] for place in range(SHARED)}
            chain = torch.cat([chain, self.window(transformer, shared, WINDOW, FPS, turn)[:, :, SHARED:]], 2)
        draft = self.window(transformer, {0: self.true[:, :, 0]}, DRAFT, FPS / APART, 20)
        between = [
            self.window(transformer, {0: draft[:, :, k], WINDOW - 1: draft[:, :, k + 1]}, WINDOW, FPS, 30 + k)
            for k in (0, LAST)
        ]
        return {"chain": chain, "draft": draft, "first": between[0], "last": between[1]}

    def figures(self, transformer: Any) -> dict[str, float]:
        """Medians over videos of the detail, over what the autoencoder keeps of the true clip; of lightness,
        on a scale of 100, the mean change from the first window to the last.
        """
        made = self.made(transformer)
        ratios = {
            "chain_detail": detail(made["chain"][:, :, -16:]) / self.last_kept,
            "draft_detail": detail(made["draft"][:, :, LAST : LAST + 2]) / self.last_kept,
            "infill_first_detail": detail(made["first"][:, :, 1:]) / self.first_kept,
            "infill_detail": detail(made["last"][:, :, 1:-1]) / self.last_kept,
        }
        found = {name: round(statistics.median(each.tolist()), 3) for name, each in ratios.items()}
        change = lightness(made["last"]) - lightness(made["first"])
        drift = lightness(made["chain"][:, :, -16:]) - lightness(made["chain"][:, :, :16])
        return {
            **found,
            "infill_detail_mean": round(float(np.exp(np.log(ratios["infill_detail"] + 1e-3).mean())), 3),
            "infill_lightness": round(float(np.abs(change).mean()), 2),
            "infill_lightness_signed": round(float(change.mean()), 2),
            "chain_lightness": round(float(np.abs(drift).mean()), 2),
        }

    def sheet(self, transformer: Any, path: Path) -> None:
        """Rows of each video: kept, chain, draft, the last window between keyframes."""
        made = self.made(transformer)
        kept = self.kept[:, :, -WINDOW:]
        left = [torch.cat([k, c[:, -WINDOW:]], 2).cpu() for k, c in zip(kept, made["chain"], strict=True)]
        pad = torch.nn.functional.interpolate(made["draft"], (WINDOW, *kept.shape[-2:]), mode="nearest")
        right = [torch.cat([d, last], 2).cpu() for d, last in zip(pad, made["last"], strict=True)]
        write_sheet(path, left, right, columns=9)


def _film(name: str, motion: str, pace: Pace, scale: float, side: int) -> Any:
    """(F, side, side, 3), the middle of the camera's path in the middle of the photograph."""
    picture = torch.from_numpy(photograph(name, 2 * side)).permute(2, 0, 1)
    speed, frames = MOTIONS[motion].at(pace), APART * (LAST + 1) + 1
    half_s = (frames - 1) / FPS / 2
    height, width = picture.shape[1:]
    centre = (
        (width - 1) / 2 - speed.right * half_s * scale,
        (height - 1) / 2 - speed.down * half_s * scale,
    )
    return filmed(picture, motion, pace, fps=FPS, num_frames=frames, side=side, centre=centre, scale=scale)[0]


def detail(clips: torch.Tensor) -> np.ndarray:
    """(N,) mean over frames of the variance of the Laplacian, of clips (N, 3, F, H, W) in [-1, 1]."""
    pixels = ((clips.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.array(
        [
            np.mean([cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var() for f in clip])
            for clip in pixels.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
        ]
    )


def lightness(clips: torch.Tensor) -> np.ndarray:
    """(N,) mean L of CIE Lab."""
    pixels = ((clips.float() + 1) / 2).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
    return np.array([np.mean([cv2.cvtColor(f, cv2.COLOR_RGB2LAB)[..., 0].mean() for f in c]) for c in pixels])
