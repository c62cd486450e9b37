"""Windows longer than motion modules were trained on: overlapping contexts, and noise that is shared. Pure.

In each step every context is predicted alone and what overlaps is averaged, as the field's context windows
do; of the noise a window starts with, frames behind the first context have that of earlier ones, shuffled
(FreeNoise, Qiu et al. 2023), so that contexts agree on what they show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Frames that neighbouring contexts share, in parts of one.
_OVERLAP = 0.25


def overlap_of(size: int) -> int:
    """Frames that two contexts of ``size`` frames share."""
    return max(1, round(size * _OVERLAP)) if size > 1 else 0


def contexts(num_frames: int, size: int) -> list[range]:
    """Runs of ``size`` frames that cover a window, or the window itself where it is no longer; the last ends
    with it.

    >>> contexts(40, 16)
    [range(0, 16), range(12, 28), range(24, 40)]
    """
    if num_frames <= size:
        return [range(num_frames)]
    step = size - overlap_of(size)
    last = num_frames - size
    return [range(first, first + size) for first in (*range(0, last, step), last)]


def noise_keys(frame_indices: Sequence[int], shot_start: int, size: int, seed: int) -> list[int]:
    """Of each frame of a window the global number of the frame whose noise it starts with: that of the first
    context its own, behind it those of earlier frames, shuffled. The same for a frame in every window.

    Args:
        frame_indices: Global numbers, evenly apart.
        shot_start: The first frame of the shot, from which contexts are counted.
        size: Frames of a context.
        seed: The job's.
    """
    apart = frame_indices[1] - frame_indices[0] if len(frame_indices) > 1 else 1
    step = size - overlap_of(size)

    def source(place: int) -> int:
        while place >= size:
            block, within = divmod(place - size, step)
            order = np.random.Generator(np.random.Philox(key=[seed, block])).permutation(step)
            place = block * step + int(order[within])
        return place

    return [shot_start + apart * source((frame - shot_start) // apart) for frame in frame_indices]
