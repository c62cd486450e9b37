"""Cutting a run of frames into overlapping windows. Frame counts are exact for every length from 1 up."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from farm.capabilities import FrameRule

#: A model that renders any number of frames.
ANY_NUMBER = FrameRule()


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


def shifted_windows(num_frames: int, window: int, overlap: int, rule: FrameRule = ANY_NUMBER) -> list[Window]:
    """Windows spread evenly, each kept ``overlap`` frames into the next, none further past the end than the
    rule makes it.

    For engines that read an input video, whose last frame is repeated where a window needs more.

    >>> shifted_windows(12, 8, 3)
    [Window(start=0, end=7, num_frames=8), Window(start=4, end=12, num_frames=8)]
    >>> shifted_windows(12, 9, 1, FrameRule.causal(4, max_frames=33))
    [Window(start=0, end=5, num_frames=9), Window(start=4, end=12, num_frames=9)]
    """
    if num_frames <= window:
        return [Window(0, num_frames, rule.at_least(num_frames))]
    stride = rule.frames_per_latent
    last = -(-(num_frames - window) // stride)
    gaps = -(-last * stride // (window - overlap))
    starts = [i * last // gaps * stride for i in range(gaps + 1)]
    # Where windows crowd, less is kept: a join may use no frame that the join after it needs.
    ends = [here + min(overlap, after - here) for here, after in pairwise([*starts[1:], num_frames])]
    return [Window(start, end, window) for start, end in zip(starts, [*ends, num_frames], strict=True)]
