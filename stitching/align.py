"""Is the new clip early or late? Two renders of the same moments may disagree on when they happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Image

MAX_SLIP_FRAMES = 2


@dataclass(frozen=True)
class TimeSlip:
    """frames > 0: the new clip is late, its frame k + frames looks like the old one's frame k.

    cost_drop: the share of the difference between the overlaps that goes away when this is undone, 0 to 1.
    """

    frames: float
    cost_drop: float


def time_slip(before: Sequence[Image], old: Sequence[Image], new: Sequence[Image]) -> TimeSlip:
    """Compares quarter-size luma of the overlap shifted by up to two frames.

    before: the old clip's frames just before the overlap; old: its overlap; new: the new clip from the
    overlap's first frame on, beyond its end where frames are to be had, so that every shift is judged on as
    many pairs as possible.
    """
    earlier = min(MAX_SLIP_FRAMES, len(before))
    old_small = [_small(f) for f in (*before[len(before) - earlier :], *old)]
    new_small = [_small(f) for f in new[: len(old) + MAX_SLIP_FRAMES]]
    costs: dict[int, float] = {}
    for shift in range(-MAX_SLIP_FRAMES, MAX_SLIP_FRAMES + 1):
        pairs = [
            float(cv2.absdiff(old_small[i + earlier], new_small[i + shift]).mean())
            for i in range(-earlier, len(old))
            if 0 <= i + shift < len(new_small)
        ]
        if len(pairs) >= min(2, len(old)):
            costs[shift] = float(np.mean(pairs))
    best = min(costs, key=lambda s: (costs[s], abs(s)))
    if costs[0] <= 0.0:
        return TimeSlip(0.0, 0.0)
    return TimeSlip(best + _vertex(costs, best), 1.0 - costs[best] / costs[0])


def _vertex(costs: dict[int, float], best: int) -> float:
    """Where the parabola through the best cost and its neighbours has its bottom, in -0.5 ... 0.5."""
    if best - 1 not in costs or best + 1 not in costs:
        return 0.0
    left, middle, right = costs[best - 1], costs[best], costs[best + 1]
    curvature = left - 2 * middle + right
    return 0.0 if curvature <= 0 else max(-0.5, min(0.5, 0.5 * (left - right) / curvature))


def _small(frame: Image) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    size = (max(1, width // 4), max(1, height // 4))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
