"""A video at a higher rate, made as its frames come."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TypeAlias

import numpy as np

from stitching.clip import Frames, Image, StitchError, check_frames
from stitching.interpolation.between import picture_between
from stitching.interpolation.motion import Motion, motion_between
from stitching.interpolation.paths import bend_of

_WORKERS = os.cpu_count() or 1
Between: TypeAlias = Callable[[Image, Image, Sequence[float]], list[Image]]
"""Makes pictures at parts of the way from one to another; called by several threads."""

# OpenCV and NumPy release the interpreter's lock, so threads are enough. It starts what it was given in
# order: what waits there for a motion waits for one that runs.
_pool = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="interpolation")


@dataclass
class _Gap:
    """From a frame of the video to the next, and what is to be given out from it on, before the next."""

    first: Image
    fractions: list[float]
    second: Image | None = None
    motion: Future[Motion] | None = None  # None: over a cut, or behind the end


class Interpolator:
    """Gives `num_frames` frames at `deliver_fps` of a video that comes at `fps`: write() its frames,
    finish().

    Frame k of what is given out is the moment k / deliver_fps. Where the video has a frame of that moment it
    is that frame, bit for bit; else it is made from the frames around it. Over a cut nothing is made: the
    frame before it stays until the next one's moment. Behind the video's last frame that one stays. In memory
    are a few frames for each processor, however long the video is.
    """

    def __init__(
        self,
        sink: Callable[[Frames], None],
        *,
        fps: Fraction,
        deliver_fps: Fraction,
        num_frames: int,
        between: Between | None = None,
    ) -> None:
        """sink receives arrays (n, H, W, 3) uint8, in order. between makes the frames in place of optical
        flow, which still tells cuts.

        Raises:
            StitchError: deliver_fps is not above fps, or a number is not positive.
        """
        if not 0 < fps < deliver_fps or num_frames < 1:
            raise StitchError(
                f"fps, deliver_fps, num_frames: got {fps}, {deliver_fps}, {num_frames}; expected a rate "
                "to deliver above the video's own, and at least one frame"
            )
        self._sink = sink
        self._between = between
        self._step = fps / deliver_fps  # of the video's frames, for each that is given out
        self._num_left = num_frames
        self._num_planned = 0  # moments that were handed to a gap
        self._num_written = 0
        self._cuts: set[int] = set()
        self._gaps: deque[_Gap] = deque(maxlen=3)  # the last of them is open
        self._waiting: deque[Future[list[Image]]] = deque()

    def cut(self, index: int) -> None:
        """Frame `index` of the video, not written yet, begins another shot."""
        self._cuts.add(index)

    def write(self, frames: Frames) -> None:
        """Takes the next frames (F, H, W, 3) uint8. The arrays must not change afterwards."""
        for frame in check_frames(frames):
            if self._gaps:
                self._end_gap(frame, is_cut=self._num_written in self._cuts)
            self._cuts.discard(self._num_written)
            self._gaps.append(_Gap(frame, self._moments_of(self._num_written)))
            self._num_written += 1

    def finish(self) -> None:
        """Gives out what is still to come. Raises StitchError when nothing was written."""
        if not self._gaps:
            raise StitchError("no frame was written; there is nothing to go between")
        if len(self._gaps) > 1:
            self._make(-2)
        self._make(-1)
        while self._waiting:
            self._give_first()
        last = self._gaps[-1].first[None]
        while self._num_left:
            self._give(last)

    def close(self) -> None:
        """Lets go of what is being made, when nothing is wanted any more."""
        for made in self._waiting:
            made.cancel()
        self._waiting.clear()

    def _moments_of(self, number: int) -> list[float]:
        """Moments to be given out from frame `number` on, before the next, as parts of the way to it."""
        fractions = []
        while self._num_planned * self._step < number + 1:
            fractions.append(float(self._num_planned * self._step - number))
            self._num_planned += 1
        return fractions

    def _end_gap(self, frame: Image, *, is_cut: bool) -> None:
        """What follows the last frame is known, and so is how paths go on in the gap before."""
        gap = self._gaps[-1]
        if not is_cut:
            gap.second, gap.motion = frame, _pool.submit(motion_between, gap.first, frame)
        if len(self._gaps) > 1:
            self._make(-2)

    def _make(self, index: int) -> None:
        gap = self._gaps[index]
        last = len(self._gaps) - 1
        at = index % len(self._gaps)
        before = self._gaps[at - 1].motion if at > 0 else None
        after = self._gaps[at + 1].motion if at < last else None
        self._waiting.append(_pool.submit(_made, gap, before, after, self._between))
        while len(self._waiting) > 2 * _WORKERS:
            self._give_first()

    def _give_first(self) -> None:
        made = self._waiting.popleft().result()
        if made:
            self._give(np.stack(made))

    def _give(self, frames: Frames) -> None:
        given = frames[: self._num_left]
        self._num_left -= len(given)
        if len(given):
            self._sink(given)


def _made(
    gap: _Gap, before: Future[Motion] | None, after: Future[Motion] | None, made_by: Between | None
) -> list[Image]:
    motion = None if gap.motion is None or gap.fractions in ([], [0.0]) else gap.motion.result()
    if motion is None or motion.is_cut or gap.second is None:
        return [gap.first] * len(gap.fractions)
    if made_by is not None:
        made = iter(made_by(gap.first, gap.second, [fraction for fraction in gap.fractions if fraction]))
        return [next(made) if fraction else gap.first for fraction in gap.fractions]
    around = [None if m is None or m.result().is_cut else m.result() for m in (before, after)]
    bend = bend_of(around[0], motion, around[1])
    between = partial(picture_between, gap.first, gap.second, motion, bend=bend)
    return [gap.first if fraction == 0.0 else between(fraction) for fraction in gap.fractions]
