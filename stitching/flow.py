"""Dense optical flow between two pictures of the same moment, and where it can be trusted.

DIS flow (Kroeger et al. 2016, arXiv 1603.03590) as OpenCV ships it: no weights to download, and the best of
OpenCV's methods on a stereo pair with ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Floats, Image
from stitching.warp import pixel_grid, sample

# Forward-backward check |F + G(p+F)|^2 <= a (|F|^2 + |G|^2) + b, after Sundaram, Brox & Keutzer 2010; both
# constants are twice theirs (0.01, 0.5), because two renders of a moment differ in more than motion.
_CHECK_RELATIVE = 0.02
_CHECK_ABSOLUTE_PX2 = 1.0
_FILL_SIGMA_PX = 5.0
# From this size on, searching at half scale gives the same seams (measured: no figure moves by more than 2 %)
# for a quarter of the time.
_HALF_SCALE_SIDE_PX = 512
_FULL_FLOW_PIXELS = 1280 * 720  # above it the flow is found at half size: its cost grows with the pixels


@dataclass(frozen=True)
class FlowPair:
    """Flow between pictures a and b, (H, W, 2) float32 in pixels: a(p) looks like b(p + forward(p)).

    valid_forward, valid_backward: (H, W) float32, 1 where the two flows agree, else 0; there the flow is
    filled in from its surroundings.
    """

    forward: Floats
    backward: Floats
    valid_forward: Floats
    valid_backward: Floats

    @property
    def residual_fraction_of_width(self) -> float:
        """Median length of the flow, as a fraction of the picture's width."""
        return float(np.sqrt(np.median(squared_length(self.forward))) / self.forward.shape[1])

    @property
    def valid_fraction(self) -> float:
        return float((self.valid_forward.mean() + self.valid_backward.mean()) / 2)


def flow_pair(first: Image, second: Image) -> FlowPair:
    """Flow both ways between two pictures (H, W, 3) uint8 of one size; their luma decides."""
    height, width = first.shape[:2]
    a, b = _luma(first), _luma(second)
    halved = height * width > _FULL_FLOW_PIXELS
    if halved:
        half = (-(-width // 2), -(-height // 2))
        a, b = (np.asarray(cv2.resize(x, half, interpolation=cv2.INTER_AREA), np.uint8) for x in (a, b))
    finest_scale = 0 if max(a.shape) < _HALF_SCALE_SIDE_PX else 1
    forward, backward = (dense_flow(x, y, finest_scale=finest_scale) for x, y in ((a, b), (b, a)))
    valid_forward, valid_backward = agreement(forward, backward), agreement(backward, forward)
    forward, backward = _filled(forward, valid_forward), _filled(backward, valid_backward)
    if halved:
        scale = np.array([width / a.shape[1], height / a.shape[0]], np.float32)
        forward, backward = (_enlarged(x, width, height) * scale for x in (forward, backward))
        valid_forward, valid_backward = (_enlarged(x, width, height) for x in (valid_forward, valid_backward))
    return FlowPair(forward, backward, valid_forward, valid_backward)


def dense_flow(
    a: NDArray[np.uint8], b: NDArray[np.uint8], *, finest_scale: int, patch_stride_px: int | None = None
) -> Floats:
    """(H, W, 2) float32, in pixels. finest_scale: 0 the pixels themselves, 1 half size, ...

    patch_stride_px: between the patches of 8 pixels that are searched; None: as the medium preset has it.
    """
    if min(a.shape) < 16:  # DIS needs at least a patch or two; so small a picture has no motion to speak of
        return np.zeros((*a.shape, 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(finest_scale)
    if patch_stride_px is not None:
        search.setPatchStride(patch_stride_px)
    flow = search.calc(a, b, None)  # type: ignore[call-overload]
    limit = float(max(a.shape))  # sampling far outside a picture would take for ever
    return np.asarray(np.clip(np.nan_to_num(flow, nan=0.0), -limit, limit), np.float32)


def agreement(flow: Floats, other: Floats) -> Floats:
    """(H, W) float32: 1 where `other` leads back to where `flow` came from, else 0."""
    height, width = flow.shape[:2]
    back = sample(other, pixel_grid(height, width) + flow)
    motion = squared_length(flow) + squared_length(back)
    bound = _CHECK_RELATIVE * motion + _CHECK_ABSOLUTE_PX2
    return np.asarray(squared_length(flow + back) <= bound, np.float32)


def _luma(image: Image) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _filled(flow: Floats, valid: Floats) -> Floats:
    """`flow` where valid; elsewhere the mean of the valid flow around, or `flow` again where none is near."""
    if valid.min() > 0:
        return flow
    weight = cv2.GaussianBlur(valid, (0, 0), _FILL_SIGMA_PX)[..., None]
    mean = cv2.GaussianBlur(flow * valid[..., None], (0, 0), _FILL_SIGMA_PX) / np.maximum(weight, 1e-6)
    keep = (valid[..., None] > 0) | (weight < 1e-3)
    return np.where(keep, flow, mean).astype(np.float32)


def _enlarged(values: Floats, width: int, height: int) -> Floats:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def squared_length(flow: Floats) -> Floats:
    """(H, W) of (H, W, 2)."""
    return np.asarray(np.square(flow[..., 0]) + np.square(flow[..., 1]), np.float32)
