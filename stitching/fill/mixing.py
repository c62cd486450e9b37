"""Whether the middle of a clip is what motion makes of its ends, or a mix of them as they stand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stitching.clip import Floats
from stitching.flow import dense_flow
from stitching.warp import pixel_grid, sample

#: Motion is looked for at this size: what a fade leaves of an end is seen there too.
_SIDE_PX = 128
#: What is coarser is light and shade, which a mix keeps and motion does not have to.
_COARSE_SIGMA_PX = 4.0
_BLOCK_PX = 16
#: The ends differ in a block by so many grey levels, squared: elsewhere motion and mix look alike.
_DIFFER = 16.0
#: Where in the clip it is asked: three frames about the middle.
_PLACES = (3 / 8, 1 / 2, 5 / 8)
#: Frames with less of the ends' texture show neither.
_LOST_PART = 0.55


def mixed(lumas: Sequence[Floats]) -> float:
    """How far frames in the middle are mixes of the first and the last (H, W), or of nothing, 0 to 1.

    Of a frame f, where the ends differ: what is left of it by whichever end its flow leads to, over that and
    what the best mix of the two as they stand leaves. Motion leaves hardly anything and a mix much (0 to
    1/3), a fade the other way round (1/2 to 1); the median counts. Where all of them have lost the texture of
    both ends, it is what neither end explains of their own.
    """
    small = [_small(luma) for luma in (lumas[0], *(lumas[_at(lumas, place)] for place in _PLACES), lumas[-1])]
    first, last = small[0], small[-1]
    fine_first, fine_last = _fine(first), _fine(last)
    change = fine_last - fine_first
    changes = _blocks(change**2)
    differ = changes > _DIFFER
    if not differ.any():
        return 0.0
    texture = float((_blocks(fine_first**2) + _blocks(fine_last**2))[differ].sum()) / 2
    mixes, lost = [], []
    for frame in small[1:-1]:
        fine = _fine(frame)
        moved = np.minimum(*(_blocks((fine - _fine(_moved_to(end, frame))) ** 2) for end in (first, last)))
        share = float(_blocks((fine - fine_first) * change).sum() / max(float(changes.sum()), 1e-6))
        blend = _blocks((fine - fine_first - min(max(share, 0.0), 1.0) * change) ** 2)
        by_motion, by_mix, own = (float(x[differ].sum()) for x in (moved, blend, _blocks(fine**2)))
        mixes.append(by_motion / max(by_motion + by_mix, 1e-6))
        lost.append(min(by_motion / max(own, 1e-6), 1.0) if own < _LOST_PART * texture else 0.0)
    return max(float(np.median(mixes)), min(lost))


def _at(lumas: Sequence[Floats], place: float) -> int:
    return round(place * (len(lumas) - 1))


def _small(luma: Floats) -> Floats:
    height, width = luma.shape
    scale = min(1.0, _SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.float32)


def _fine(luma: Floats) -> Floats:
    return np.asarray(luma - cv2.GaussianBlur(luma, (0, 0), _COARSE_SIGMA_PX), np.float32)


def _moved_to(end: Floats, frame: Floats) -> Floats:
    """An end with its pixels where they are in the frame, as far as its flow leads there."""
    a, b = (np.clip(x, 0, 255).astype(np.uint8) for x in (frame, end))
    return sample(end, pixel_grid(*frame.shape) + dense_flow(a, b, finest_scale=0))


def _blocks(values: Floats) -> Floats:
    """Means over blocks."""
    height, width = values.shape
    size = (max(1, width // _BLOCK_PX), max(1, height // _BLOCK_PX))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)
