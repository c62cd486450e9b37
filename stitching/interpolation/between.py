"""Pictures between two others: each moved along the motion between them to meet, then mixed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Floats, Frames, Image, StitchError
from stitching.interpolation.motion import Motion, motion_between
from stitching.interpolation.paths import motions_at
from stitching.warp import pixel_grid

_Scalar = TypeVar("_Scalar", np.uint8, np.float32)

# A motion counts by exp((least - c) / (_SOFTNESS + _RELATIVE_SOFTNESS least)) of the difference c, in grey
# levels, of what it brings together: where no motion explains the pictures, all that come near are mixed.
_SOFTNESS = np.float32(2.0)
_RELATIVE_SOFTNESS = np.float32(1.5)
_SIGMA_PX = 1.5
# Of a side's share, by its doubt in grey levels: what is seen in one picture only is taken from there.
_DOUBT_STEEPNESS = np.float32(0.015)


def frames_between(keyframes: Mapping[int, Image], indices: Sequence[int]) -> Frames:
    """The frames (F, H, W, 3) at `indices`, from keyframes (H, W, 3) uint8 by their frame number.

    A keyframe's own moment gives the keyframe itself. Any other is made from the nearest keyframe on either
    side, at constant speed (see `picture_between`). The same two keyframes give the same frame whatever else
    is asked for, so neighbours that overlap get equal frames.

    Raises:
        StitchError: a moment lies before the first or after the last keyframe.
    """
    known = sorted(keyframes)
    motions: dict[int, Motion] = {}
    frames = []
    for index in indices:
        if index in keyframes:
            frames.append(keyframes[index])
            continue
        following = bisect_right(known, index)
        if not 0 < following < len(known):
            held = f"{known[0]} to {known[-1]}" if known else "none"
            raise StitchError(f"indices: frame {index} is not between keyframes; they are {held}")
        before, after = known[following - 1], known[following]
        a, b = keyframes[before], keyframes[after]
        if before not in motions:
            motions[before] = motion_between(a, b)
        frames.append(picture_between(a, b, motions[before], (index - before) / (after - before)))
    return np.stack(frames)


def picture_between(a: Image, b: Image, motion: Motion, fraction: float, bend: Floats | None = None) -> Image:
    """The picture `fraction` of the way from a to b: both moved by all that may be true, mixed by how they
    agree.

    bend: as `paths.bend_of` gives it; None: everything moves straight and evenly.
    """
    height, width = a.shape[:2]
    half_height, half_width = motion.luma_a.shape
    t = np.float32(fraction)
    aside = (t * t - t) * bend if bend is not None else np.zeros_like(motion.forward)
    grid = pixel_grid(half_height, half_width) - aside
    motions = motions_at(motion, fraction, aside)
    ends = [(grid - t * through, grid + (1 - t) * through) for through in motions]
    trust_a = (1 - t) * np.exp(-_DOUBT_STEEPNESS * _read(motion.doubt_forward, ends[0][0]))
    trust_b = t * np.exp(-_DOUBT_STEEPNESS * _read(motion.doubt_backward, ends[0][1]))
    costs = [
        cv2.GaussianBlur(
            cv2.absdiff(_read(motion.luma_a, at_a), _read(motion.luma_b, at_b)), (0, 0), _SIGMA_PX
        )
        for at_a, at_b in ends
    ]
    least = np.minimum.reduce(costs)
    softness = _SOFTNESS + _RELATIVE_SOFTNESS * least
    weights = [np.exp((least - cost) / softness) for cost in costs]
    total = np.add.reduce(weights)
    share_a, share_b = (_enlarged(trust, width, height) for trust in (trust_a, trust_b))
    scale = np.array([width / half_width, height / half_height], np.float32)
    full = pixel_grid(height, width) - _enlarged(aside, width, height) * scale
    mixed = np.zeros(a.shape, np.float32)
    for through, weight in zip(motions, weights, strict=True):
        moved = _enlarged(through, width, height) * scale
        seen_a = _read(a, full - t * moved, cv2.INTER_CUBIC)
        seen_b = _read(b, full + (1 - t) * moved, cv2.INTER_CUBIC)
        seen = cv2.blendLinear(seen_a, seen_b, share_a, share_b)
        mixed += seen * _enlarged(weight / total, width, height)[..., None]
    return np.asarray(np.rint(np.clip(mixed, 0.0, 255.0)), np.uint8)


def _read(values: NDArray[_Scalar], at: Floats, method: int = cv2.INTER_LINEAR) -> NDArray[_Scalar]:
    """The values at the places `at`; beyond the border the border's own."""
    # one map holds x and y, so there is no second; OpenCV's stubs do not know that None says so
    found = cv2.remap(values, at, None, method, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(found, values.dtype)


def _enlarged(values: Floats, width: int, height: int) -> Floats:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
