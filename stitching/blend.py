"""Turning the end of one clip into the beginning of the next, frame by frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Image
from stitching.flow import FlowPair
from stitching.warp import advance

_TRUST_SIGMA_PX = 1.5
_LEAST_TRUST = 0.02  # keeps a weight where neither side is trusted


def transition_fractions(overlap: int) -> list[float]:
    """How much of the new clip each of the `overlap` frames holds: smoothstep of (k + 1) / (overlap + 1).

    Never 0 or 1, so that every frame of the overlap is used; flat at both ends, so that the motion added by
    the morph begins and ends gently.
    """
    positions = [(k + 1) / (overlap + 1) for k in range(overlap)]
    return [t * t * (3.0 - 2.0 * t) for t in positions]


def morph(a: Image, b: Image, flow: FlowPair, fraction: float) -> Image:
    """The picture `fraction` of the way from a to b: both moved to meet there, then mixed.

    Where the flow of one side cannot be trusted, the other side is preferred.
    """
    moved_a = advance(a, flow.forward, fraction)
    moved_b = advance(b, flow.backward, 1.0 - fraction)
    trust_a = np.maximum(cv2.GaussianBlur(flow.valid_forward, (0, 0), _TRUST_SIGMA_PX), _LEAST_TRUST)
    trust_b = np.maximum(cv2.GaussianBlur(flow.valid_backward, (0, 0), _TRUST_SIGMA_PX), _LEAST_TRUST)
    weight_b = fraction * trust_b / (fraction * trust_b + (1.0 - fraction) * trust_a)
    return mix(moved_a, moved_b, weight_b)


def mix(a: Image, b: Image, weight_b: float | NDArray[np.floating[Any]]) -> Image:
    """(1 - weight_b) a + weight_b b, rounded; weight_b is a number or (H, W). Equal pixels stay as they are."""
    weight = np.float32(weight_b) if isinstance(weight_b, float) else weight_b[..., None]
    mixed = a + weight * (b.astype(np.float32) - a)
    return np.rint(mixed).astype(np.uint8)
