"""Pictures no model here was trained on, and 160 cases of them: what a camera is asked, and the true clip.

Five are photographs, four of scikit-image and one of scikit-learn; fifteen are procedural, from seeds kept
for this. Every picture meets every judged motion once.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""(F, H, W, 3), RGB."""

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.tiny_wan.recipe.data.camera import (  # noqa: E402
    MOTIONS,
    PACES,
    Pace,
    film,
    parameters,
    stays_in_view,
    view_points,
)
from models.tiny_wan.recipe.data.grammar import random_prompt  # noqa: E402
from models.tiny_wan.recipe.data.pictures import HELD_OUT_PHOTOGRAPHS, HELD_OUT_SEED, procedural_pictures  # noqa: E402

#: The motions that are judged; "counterclockwise" is "clockwise" in a mirror.
JUDGED = ("left", "right", "up", "down", "in", "out", "clockwise", "still")
PHOTOGRAPHS = ("coffee", "chelsea", "rocket", "astronaut", "china")
PROCEDURAL = 15
#: The shorter side of a picture, and the side of a frame, in pixels.
PICTURE_PX, FRAME_PX = 256, 128
FRAMES = 8
FPS = (4.0, 8.0, 16.0)
#: Clips that show no motion of a camera.
FALSE = ("fade", "noise", "other pictures")


@dataclass(frozen=True)
class HeldOutCase:
    """What is asked, and the view the clip begins with (see ``camera.film``)."""

    number: int
    picture: str
    motion: str
    pace: Pace
    prompt: str
    fps: float
    centre: tuple[float, float]
    scale: float

    @property
    def is_photograph(self) -> bool:
        return self.picture in PHOTOGRAPHS


def held_out_pictures(px: int = PICTURE_PX) -> dict[str, torch.Tensor]:
    """By name, (3, H, W) uint8, the shorter side ``px``; photographs stand among the others."""
    drawn = procedural_pictures(PROCEDURAL, px, HELD_OUT_SEED, "cpu")
    pictures: dict[str, torch.Tensor] = {}
    for place, name in enumerate(PHOTOGRAPHS):
        pictures[name] = torch.from_numpy(photograph(name, px)).permute(2, 0, 1)
        each = PROCEDURAL // len(PHOTOGRAPHS)
        for number in range(place * each, (place + 1) * each):
            pictures[f"procedural {number + 1}"] = drawn[number]
    return pictures


def photograph(name: str, px: int = PICTURE_PX) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, scaled to a shorter side of ``px``."""
    if name in HELD_OUT_PHOTOGRAPHS:
        from skimage import data

        picture = getattr(data, name)()
    else:
        from sklearn.datasets import load_sample_image

        picture = load_sample_image(f"{name}.jpg")
    picture = np.ascontiguousarray(picture[..., :3])
    factor = px / min(picture.shape[:2])
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    )


def held_out_cases(pictures: dict[str, torch.Tensor]) -> list[HeldOutCase]:
    """Every picture with every judged motion, in an order in which any beginning is a mix."""
    rng, words = random.Random(HELD_OUT_SEED), random.Random(HELD_OUT_SEED + 1)
    cases: list[HeldOutCase] = []
    for i, (name, picture) in enumerate(pictures.items()):
        for j, motion in enumerate(JUDGED):
            pace = tuple(PACES)[(i + j) % len(PACES)]
            scale = rng.uniform(0.7, 1.1)
            half = scale * FRAME_PX / 2  # the first frame lies inside the picture
            height, width = picture.shape[1:]
            centre = (rng.uniform(half, width - 1 - half), rng.uniform(half, height - 1 - half))
            prompt = random_prompt(words, motion, pace, held_out=True)
            fps = FPS[(i + j // 3) % len(FPS)]
            cases.append(HeldOutCase(len(cases), name, motion, pace, prompt, fps, centre, scale))
    return cases


def true_clip(
    case: HeldOutCase, picture: torch.Tensor, *, num_frames: int = FRAMES, side: int = FRAME_PX
) -> tuple[Frames, NDArray[np.bool_]]:
    """What a real camera films: (F, H, W, 3) uint8, and (F, H, W) what the first frame already shows.

    A larger frame shows the same part of the picture, larger.
    """
    return filmed(
        picture,
        case.motion,
        case.pace,
        fps=case.fps,
        num_frames=num_frames,
        side=side,
        centre=case.centre,
        scale=case.scale * FRAME_PX / side,
    )


def filmed(
    picture: torch.Tensor,
    motion: str,
    pace: Pace,
    *,
    fps: float,
    num_frames: int,
    side: int,
    centre: tuple[float, float],
    scale: float,
) -> tuple[Frames, NDArray[np.bool_]]:
    """(F, side, side, 3) uint8 frames of a picture (3, H, W) uint8; (F, side, side) what stays in view."""
    camera = parameters([MOTIONS[motion].at(pace)], "cpu")
    points = view_points(camera, torch.arange(num_frames)[None] / fps, side, side)
    frames = film(picture[None].float(), points, torch.tensor([centre]), torch.tensor([scale]))[0]
    pixels = frames.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return pixels.numpy(), stays_in_view(points)[0].numpy()


def worn(frames: Frames, rng: np.random.Generator) -> Frames:
    """As a small model may draw them: ever blurrier, uneven in exposure, noisy."""
    drawn = []
    for number, frame in enumerate(frames):
        soft = cv2.GaussianBlur(frame.astype(np.float64), (0, 0), 0.5 + 1.5 * number / (len(frames) - 1))
        drawn.append(soft * rng.uniform(0.95, 1.05) + rng.normal(scale=6, size=frame.shape))
    return _pixels(np.stack(drawn))


def false_clip(shows: str, stills: list[Frames], rng: np.random.Generator) -> Frames:
    """One of ``FALSE``, from still clips of different pictures."""
    num_frames = len(stills[0])
    if shows == "noise":
        return _pixels(rng.uniform(0, 256, stills[0].shape))
    if shows == "other pictures":
        return np.stack([stills[t % len(stills)][0] for t in range(num_frames)])
    share = np.linspace(0, 1, num_frames)[:, None, None, None]
    return _pixels(stills[0] * (1 - share) + stills[1] * share)


def _pixels(values: NDArray[np.float64]) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
