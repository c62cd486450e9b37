"""How a clip between two given frames gets from the one to the other: by motion, evenly, in their colours.

A model that is given both ends may fade from one to the other, reach the last too early and hold it, hold the
first and jump, or render its own frames in other colours than the two it was given. Each has a figure that is
read off the frames alone, with a longer side of 256 pixels. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Floats, Frames, Image
from stitching.fill.mixing import mixed

#: The gates.
MAX_FADE = 0.35
MAX_HOLD_FRACTION = 0.2
MAX_STILL_FRACTION = 0.6
MAX_END_STEP = 1.5

GATES = ("fade", "keyframe_early", "static_fill", "colour_at_ends")

#: Fewer steps tell nothing of what is usual between them.
MIN_FRAMES = 8
_MEASURED_SIDE_PX = 256
#: Grain and a decoder's flicker are no motion.
_SMOOTH_SIGMA_PX = 2.0
#: Ends that differ by less, in grey levels, have nothing between them.
_SAME_GREY_LEVELS = 2.0
#: A step is still under this part of the mean step, or of the largest.
_STILL_PART = 0.25


@dataclass(frozen=True)
class FillReport:
    """What was measured of one clip, 0 at its best.

    fade: how far the middle is a mix of the two ends as they stand instead of them moved, 0 to 1.
    hold_fraction: of the steps, how many at the end do not move any more. still_fraction: how many of all do
    not. end_step: by how much the step of the colours, in CIE Lab, changes next to either end beyond what it
    does elsewhere.
    failed_gates: names out of GATES.
    """

    fade: float
    hold_fraction: float
    still_fraction: float
    end_step: float
    failed_gates: tuple[str, ...]


def fill_report(frames: Frames) -> FillReport:
    """Measure and judge a clip (F, H, W, 3) uint8 whose first and last frame were given.

    Clips of fewer than ``MIN_FRAMES`` frames pass.
    """
    if len(frames) < MIN_FRAMES:
        return FillReport(0.0, 0.0, 0.0, 0.0, ())
    small = [_small(frame) for frame in frames]
    lumas = [_luma(frame) for frame in small]
    fade = mixed(lumas)
    hold, still = _pace([_smooth(luma, _SMOOTH_SIGMA_PX) for luma in lumas])
    step = _end_step([_mean_lab(frame) for frame in small])
    verdicts = (
        fade > MAX_FADE,
        hold > MAX_HOLD_FRACTION,
        still > MAX_STILL_FRACTION,
        step > MAX_END_STEP,
    )
    failed = tuple(gate for gate, wrong in zip(GATES, verdicts, strict=True) if wrong)
    return FillReport(fade, hold, still, step, failed)


def _small(frame: Image) -> Image:
    height, width = frame.shape[:2]
    scale = min(1.0, _MEASURED_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _luma(frame: Image) -> Floats:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32)


def _mean_lab(frame: Image) -> NDArray[np.float64]:
    lab = cv2.cvtColor(frame.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    return np.array(cv2.mean(lab)[:3])


def _smooth(luma: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(luma, (0, 0), sigma_px), np.float32)


def _pace(lumas: Sequence[Floats]) -> tuple[float, float]:
    """Of the steps from frame to frame: those at the end that are still, and all that are.

    A step reaches over an eighth of the clip, lest slow motion drown in grain.
    """
    flat = [luma - luma.mean() for luma in lumas]  # a change of light is no motion
    if np.abs(flat[-1] - flat[0]).mean() < _SAME_GREY_LEVELS:
        return 0.0, 0.0
    reach = max(1, len(flat) // 8)
    steps = np.array([np.abs(b - a).mean() for a, b in zip(flat, flat[reach:], strict=False)])
    moving = np.flatnonzero(steps >= _STILL_PART * steps.mean())
    # A jump changes a picture no more than a few steps of motion do, so one counts against the largest alone.
    still = steps < _STILL_PART * steps.max()
    return float((len(steps) - 1 - moving[-1]) / len(steps)), float(still.mean())


def _end_step(labs: Sequence[NDArray[np.float64]]) -> float:
    """How much more the change of colours changes next to the ends than it does anywhere between."""
    turns = np.linalg.norm(np.diff(labs, n=2, axis=0), axis=1)
    return max(0.0, float(max(turns[0], turns[-1]) - turns[1:-1].max()))
