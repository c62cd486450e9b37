"""Cutting a run of frames into overlapping windows. Frame counts are exact for every length from 1 up."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """Frames [start, end) that are kept, and how many the engine renders from ``start`` on."""

    start: int
    end: int
    num_frames: int


def cropped_windows(num_frames: int, window: int, overlap: int) -> list[Window]:
    """Windows a fixed step apart; the last keeps only what is left and drops the rest of its frames.

    >>> cropped_windows(12, 8, 3)
    [Window(start=0, end=8, num_frames=8), Window(start=5, end=12, num_frames=8)]
    """
    step = window - overlap
    count = 1 if num_frames <= window else 1 + -(-(num_frames - window) // step)
    return [Window(i * step, min(i * step + window, num_frames), window) for i in range(count)]


def shifted_windows(num_frames: int, window: int, overlap: int) -> list[Window]:
    """Windows that never reach past the end: spread evenly, each kept ``overlap`` frames into the next.

    For engines that read an input video, where there is nothing behind the last frame.

    >>> shifted_windows(12, 8, 3)
    [Window(start=0, end=7, num_frames=8), Window(start=4, end=12, num_frames=8)]
    """
    last = num_frames - window
    if last <= 0:
        return [Window(0, num_frames, num_frames)]
    gaps = -(-last // (window - overlap))
    starts = [i * last // gaps for i in range(gaps + 1)]
    # Where windows crowd, less is kept: a join may use no frame that the join after it needs.
    ends = [here + min(overlap, after - here) for here, after in pairwise([*starts[1:], num_frames])]
    return [Window(start, end, window) for start, end in zip(starts, [*ends, num_frames], strict=True)]
