"""Where everything is between two pictures: the flow both ways, and how far it is to be believed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stitching.clip import Floats, Image
from stitching.flow import dense_flow
from stitching.warp import pixel_grid, sample

#: Pictures so far apart that less than this share of them is found again are of two scenes. Measured at a
#: third of the rate: hard cuts 0.00 to 0.01, fast pans and crossing cars down to 0.44.
_LEAST_FOUND = 0.15
_FOUND_DOUBT = np.float32(12.0)
_PATCH_STRIDE_PX = 2
_PX_AS_GREY_LEVELS = np.float32(4.0)
_MOST_DOUBT = np.float32(60.0)
_LOCAL_SIGMA_PX = 1.0


@dataclass(frozen=True)
class Motion:
    """Between pictures a and b, on a grid of half their size (h, w), rounded up, and in its pixels.

    forward, backward: (h, w, 2) float32: a(p) looks like b(p + forward(p)). doubt_forward, doubt_backward:
    (h, w): how little that is true, in grey levels. luma_a, luma_b: (h, w) float32.
    """

    forward: Floats
    backward: Floats
    doubt_forward: Floats
    doubt_backward: Floats
    luma_a: Floats
    luma_b: Floats

    @property
    def is_cut(self) -> bool:
        """Whether the pictures show different scenes."""
        found = (self.doubt_forward < _FOUND_DOUBT).mean() + (self.doubt_backward < _FOUND_DOUBT).mean()
        return bool(found / 2 < _LEAST_FOUND)


def motion_between(a: Image, b: Image) -> Motion:
    """Of two pictures (H, W, 3) uint8 of one size."""
    small_a, small_b = _half_luma(a), _half_luma(b)
    forward = dense_flow(small_a, small_b, finest_scale=0, patch_stride_px=_PATCH_STRIDE_PX)
    backward = dense_flow(small_b, small_a, finest_scale=0, patch_stride_px=_PATCH_STRIDE_PX)
    luma_a, luma_b = small_a.astype(np.float32), small_b.astype(np.float32)
    return Motion(
        forward,
        backward,
        _doubt(luma_a, luma_b, forward, backward),
        _doubt(luma_b, luma_a, backward, forward),
        luma_a,
        luma_b,
    )


def _half_luma(image: Image) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    half = (-(-width // 2), -(-height // 2))
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(luma, half, interpolation=cv2.INTER_AREA), np.uint8)


def _doubt(a: Floats, b: Floats, flow: Floats, other: Floats) -> Floats:
    """By how many grey levels a(p) differs from b where flow leads, more where `other` does not lead back."""
    at = pixel_grid(*a.shape) + flow
    differs = cv2.GaussianBlur(cv2.absdiff(sample(b, at), a), (0, 0), _LOCAL_SIGMA_PX)
    missed = flow + sample(other, at)
    return np.minimum(
        differs + _PX_AS_GREY_LEVELS * cv2.magnitude(missed[..., 0], missed[..., 1]), _MOST_DOUBT
    )
