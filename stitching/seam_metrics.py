"""How well two clips are joined: the seam's transitions measured against the clips' own.

All but sharpness is measured on frames whose longer side is 256 pixels, the size at which the gates were
calibrated on real footage, and which costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Floats, Frames, Image
from stitching.flow import dense_flow, squared_length
from stitching.warp import pixel_grid, sample

# The gates. 95 % of the transitions of real footage stay at or under these ratios to their neighbourhood
# (measured, 7 clips: MAE 1.2-1.7, warp error 1.2-1.9, jerk 1.4-2.6; 5 % of the frames fall under 0.85-0.99 of
# the sharpness around).
MAX_MAE_RATIO = 1.5
MAX_WARP_ERROR_RATIO = 2.0
MAX_FLOW_JERK_RATIO = 2.0
MIN_SHARPNESS_RATIO = 0.90
MAX_LAB_STEP = 1.0  # CIE76 units over the clips' own; about one just visible difference
MAX_SCENE_CHANGE = 27.0  # PySceneDetect's ContentDetector calls this much mean HSV change a cut
MAX_RESIDUAL_FRACTION_OF_WIDTH = 0.02
MIN_VALID_FRACTION = 0.6  # of the pixels, where the flow forth and the flow back agree

# A still clip has almost no change of its own to divide by, and what nobody sees must not become a large
# ratio: no clip counts as calmer than the calmest of the real ones (measured: 1.5 grey levels, 3.8e-5, and
# 0.34 px in motion, 0.07 px for a fixed camera).
_MAE_FLOOR = 1.0  # grey levels
_WARP_ERROR_FLOOR = 3e-5  # of luma in 0..1, squared
_FLOW_JERK_FLOOR_PX = 0.3
_SHARPNESS_FLOOR = 1.0  # variance of the Laplacian; less is a flat picture

# Sharpness is the variance of the Laplacian of the luma smoothed by this much: it must tell a ghost from a
# clean picture, not count the grain that any resampling loses.
_SHARPNESS_SIGMA_PX = 1.0

CONTEXT_FRAMES = 5  # on each side of the seam: four transitions of the clip's own
_MEASURED_SIDE_PX = 256

GATES = ("mae", "warp_error", "flow_jerk", "sharpness", "lab_step", "scene_cut", "residual", "valid_fraction")


@dataclass(frozen=True)
class SeamReport:
    """What was measured at one join. Ratios are to the clips' own transitions: 1.0 is as smooth as they are.

    index: 1 for the join of the first and the second segment. overlap: frames joined. lab_step: mean colour
    jump in CIE Lab units beyond the clips' own. failed_gates: names out of GATES.
    """

    index: int
    overlap: int
    kind: Literal["morph", "cut"]
    time_slip_frames: float
    residual_fraction_of_width: float
    valid_fraction: float
    mae_ratio: float
    warp_error_ratio: float
    flow_jerk_ratio: float
    sharpness_ratio: float
    lab_step: float
    scene_cut: bool
    failed_gates: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failed_gates

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to what the measurement is worth."""
        values = asdict(self)
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        return {**rounded, "failed_gates": list(self.failed_gates), "passed": self.passed}


@dataclass(frozen=True)
class Continuity:
    """The part of a SeamReport that is read off the frames alone."""

    mae_ratio: float
    warp_error_ratio: float
    flow_jerk_ratio: float
    sharpness_ratio: float
    lab_step: float
    scene_cut: bool


@dataclass(frozen=True)
class Look:
    """What one frame shows: all but the sharpness is seen with a longer side of 256 pixels."""

    luma: NDArray[np.uint8]
    hsv: NDArray[np.int16]
    mean_lab: NDArray[np.float64]
    sharpness: float

    @staticmethod
    def at(frame: Image) -> Look:
        height, width = frame.shape[:2]
        scale = min(1.0, _MEASURED_SIDE_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
        smoothed = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), _SHARPNESS_SIGMA_PX)
        laplacian = cv2.Laplacian(smoothed, cv2.CV_16S)
        return Look(
            luma=np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8),
            hsv=cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.int16),
            mean_lab=np.array(cv2.mean(lab)[:3]),
            sharpness=float(cv2.meanStdDev(laplacian)[1][0, 0] ** 2),
        )


@dataclass(frozen=True)
class Step:
    """What changes from one frame to the next.

    flow: (h, w, 2) pixels. mae: mean absolute difference of the luma in grey levels. warp_error: mean squared
    difference to the motion-compensated next frame, luma in 0..1 (Lai et al. 2018), without motion boundaries
    (|grad F|^2 > 0.01 |F|^2 + 0.002), where pixels are covered or bared. lab_step: CIE76 distance of the mean
    colours. scene_change: mean absolute change of hue, saturation and value (PySceneDetect's content value).
    """

    flow: Floats
    mae: float
    warp_error: float
    lab_step: float
    scene_change: float

    @staticmethod
    def between(first: Look, second: Look) -> Step:
        flow = dense_flow(first.luma, second.luma, finest_scale=1)
        moved = sample(second.luma, pixel_grid(*flow.shape[:2]) + flow)
        gradients = (cv2.Sobel(flow, cv2.CV_32F, dx, dy, ksize=1, scale=0.5) for dx, dy in ((1, 0), (0, 1)))
        bend = sum(squared_length(np.asarray(g, np.float32)) for g in gradients)
        smooth = bend <= 0.01 * squared_length(flow) + 0.002
        difference = np.square((first.luma.astype(np.float32) - moved) / np.float32(255))
        return Step(
            flow=flow,
            mae=float(cv2.absdiff(first.luma, second.luma).mean()),
            warp_error=float(difference[smooth].mean() if smooth.any() else difference.mean()),
            lab_step=float(np.linalg.norm(second.mean_lab - first.mean_lab)),
            scene_change=float(cv2.absdiff(first.hsv, second.hsv).mean()),
        )


def flow_jerk(first: Step, second: Step) -> float:
    """Mean |F2(p + F1) - F1| in pixels: how abruptly motion changes over three frames."""
    flow = first.flow
    then = sample(second.flow, pixel_grid(*flow.shape[:2]) + flow)
    return float(np.sqrt(squared_length(then - flow)).mean())


@dataclass(frozen=True)
class Trace:
    """The measurements of consecutive frames: looks[i], and steps[i] from i to i + 1."""

    looks: list[Look]
    steps: list[Step]

    @staticmethod
    def of(frames: Sequence[Image] | Frames, pool: Executor) -> Trace:
        looks = list(pool.map(Look.at, frames))
        return Trace(looks, list(pool.map(Step.between, looks, looks[1:])))

    def last(self, num_frames: int) -> Trace:
        start = max(0, len(self.looks) - num_frames)
        return Trace(self.looks[start:], self.steps[start:])

    def jerks(self) -> list[float]:
        """jerks()[i] spans frames i, i + 1, i + 2."""
        return [flow_jerk(a, b) for a, b in zip(self.steps, self.steps[1:], strict=False)]


def continuity(joined: Trace, old: Trace, new: Trace, *, before: int, overlap: int) -> Continuity:
    """Compares the seam's transitions with those of the two clips.

    joined: `before` frames of the old clip, the overlap, then frames of the new clip. old: the old clip's own
    frames up to its end, which is the overlap's end. new: the new clip's own from the overlap's start on.
    Each transition is held against what the clips do at that very moment, or against the median around where
    that is more: motion that speeds up by itself is no fault of the join. Where neither clip has a transition
    of its own (single frames), there is nothing to differ from, and ratios are 1.
    """
    first = before - 1 if before else 0
    last = min(before + overlap, len(joined.steps))  # transitions first ... last - 1 touch the seam
    seam = range(first, last)
    old_start = before + overlap - len(old.looks)  # in frames of `joined`
    spans = ((old, old_start), (new, before))

    def worst(values: list[float], own: list[tuple[list[float], int]], where: range, floor: float) -> float:
        around = [v for series, _ in own for v in series]
        if not around or not len(where):
            return 1.0
        usual = max(float(np.median(around)), floor)
        ratios = [1.0]
        for i in where:
            now = [series[i - start] for series, start in own if 0 <= i - start < len(series)]
            ratios.append(values[i] / max(usual, float(np.mean(now)) if now else 0.0))
        return max(ratios[1:])

    def ratio(name: str, floor: float) -> float:
        own = [([getattr(s, name) for s in t.steps], start) for t, start in spans]
        return worst([getattr(s, name) for s in joined.steps], own, seam, floor)

    jerks = joined.jerks()
    jerk_own = [(t.jerks(), start) for t, start in spans]
    jerk_where = range(max(0, first - 1), min(last, len(jerks)))
    own_steps = [s for t, _ in spans for s in t.steps]
    own_lab = max((s.lab_step for s in own_steps), default=0.0)
    own_change = max((s.scene_change for s in own_steps), default=0.0)
    changes = [joined.steps[i].scene_change for i in seam]
    return Continuity(
        mae_ratio=ratio("mae", _MAE_FLOOR),
        warp_error_ratio=ratio("warp_error", _WARP_ERROR_FLOOR),
        flow_jerk_ratio=worst(jerks, jerk_own, jerk_where, _FLOW_JERK_FLOOR_PX),
        sharpness_ratio=_sharpness_ratio(joined.looks[before : before + overlap], old, new),
        lab_step=max((max(0.0, joined.steps[i].lab_step - own_lab) for i in seam), default=0.0),
        scene_cut=any(change > MAX_SCENE_CHANGE + own_change for change in changes),
    )


def _sharpness_ratio(joined: list[Look], old: Trace, new: Trace) -> float:
    """The blurriest joined frame against the two it was made of, or the median where that is less."""
    usual = float(np.median([look.sharpness for trace in (old, new) for look in trace.looks]))
    ratios = [1.0]
    for look, a, b in zip(joined, old.looks[len(old.looks) - len(joined) :], new.looks, strict=False):
        own = min(usual, (a.sharpness + b.sharpness) / 2)
        ratios.append(max(look.sharpness, _SHARPNESS_FLOOR) / max(own, _SHARPNESS_FLOOR))
    return min(ratios)


def failed_gates(
    found: Continuity, *, residual_fraction_of_width: float, valid_fraction: float
) -> tuple[str, ...]:
    """The names, out of GATES, of the limits that are exceeded."""
    verdicts = (
        found.mae_ratio > MAX_MAE_RATIO,
        found.warp_error_ratio > MAX_WARP_ERROR_RATIO,
        found.flow_jerk_ratio > MAX_FLOW_JERK_RATIO,
        found.sharpness_ratio < MIN_SHARPNESS_RATIO,
        found.lab_step > MAX_LAB_STEP,
        found.scene_cut,
        residual_fraction_of_width > MAX_RESIDUAL_FRACTION_OF_WIDTH,
        valid_fraction < MIN_VALID_FRACTION,
    )
    return tuple(gate for gate, failed in zip(GATES, verdicts, strict=True) if failed)
