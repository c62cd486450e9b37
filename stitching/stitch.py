"""Joining overlapping segments into one stream of frames, seam by seam, with two clips in memory at most."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from stitching.align import time_slip
from stitching.blend import mix, morph, transition_fractions
from stitching.clip import Frames, Image, StitchError, check_frames
from stitching.color import ColorTransform, LabStatistics, match, with_pull
from stitching.flow import FlowPair, flow_pair
from stitching.seam_metrics import CONTEXT_FRAMES, Continuity, SeamReport, Trace, continuity, failed_gates

# Overlaps this close are one picture twice: no 8 by 8 block differs by more than rounding and coding noise.
_SAME_PICTURE_GREY_LEVELS = 1.5

# OpenCV releases the interpreter's lock, so threads are enough.
_pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="stitching")


@dataclass(frozen=True)
class Seam:
    """A computed join, to be accepted or thrown away. report says how good it is."""

    report: SeamReport
    joined: Frames  # (overlap, H, W, 3): replaces the end of the clip before and the start of the segment
    segment: Frames  # the whole segment, corrected
    transform: ColorTransform
    anchor: LabStatistics | None
    trace: Trace | None  # of the segment itself, where all of it was measured
    position: int  # of the stitcher when this was computed

    @property
    def body(self) -> Frames:
        """What follows the overlap."""
        return self.segment[self.report.overlap :]


class Stitcher:
    """Joins segments in order: start(), then for every next one accept(propose()) or cut(), then finish().

    sink receives arrays (n, H, W, 3) uint8 as soon as they can no longer change. The number of frames emitted
    is exactly the sum of the segments' lengths less the sum of the overlaps. Not for use from several threads
    at once; it computes on all cores.
    """

    def __init__(self, sink: Callable[[Frames], None], *, hold_frames: int | None = None) -> None:
        """hold_frames: the longest overlap to come, so that frames before it need no wait; None: unknown."""
        self._sink = sink
        self._hold_frames = hold_frames
        self._held: Frames | None = None  # of the last segment, what no join has used yet; None: not started
        self._emitted_tail: Frames | None = None  # the last frames given to the sink, context for measuring
        self._own_tail: Frames | None = None  # the last frames of the last segment itself, corrected
        self._own_trace: Trace | None = None  # of their end, once measured
        self._transform = ColorTransform()
        self._ramp_start = 0.0  # of the transform, counted from the next frame of the last segment
        self._anchor: LabStatistics | None = None
        self._position = 0
        self._num_seams = 0

    def start(self, frames: Frames) -> None:
        """The first segment, (F, H, W, 3) uint8; its colours are the target for all that follow."""
        if self._held is not None:
            raise StitchError("start: a segment is held already; use propose() and accept(), or cut()")
        check_frames(frames)
        self._anchor, self._transform = LabStatistics.of(frames), ColorTransform()
        self._hold(frames, own=frames)

    def extend(self, frames: Frames) -> None:
        """More frames of the segment last started or accepted: for segments too long for memory."""
        held, own = self._held, self._own_tail
        if held is None or own is None:
            raise StitchError("no segment is held; call start() with the first frames")
        check_frames(frames, like=(own.shape[1], own.shape[2]))
        more = self._transform.apply(frames, _pool, ramp_start=self._ramp_start)
        self._ramp_start -= len(frames)
        body = np.concatenate([held, more])
        self._hold(body, own=np.concatenate([own, more])[-(len(body) + CONTEXT_FRAMES) :])

    def propose(self, frames: Frames, *, overlap: int) -> Seam:
        """Computes the join of the held segment's end with `frames`, and emits nothing.

        The first `overlap` frames show the same moments as the held segment's last ones; 0 joins plainly. May
        be called again with another take of the same segment. Raises StitchError when the sizes differ or the
        overlap is longer than either side has to give.
        """
        held = self._checked(frames, overlap)
        if overlap == 0:
            return self._seam("cut", frames[:0], frames, self._trace_head(frames, 0))
        old = held[len(held) - overlap :]
        if _same_pictures(old, frames[:overlap]):
            fractions = transition_fractions(overlap)
            same = zip(old, frames[:overlap], fractions, strict=True)
            joined = np.stack([mix(a, b, t) for a, b, t in same])
            return self._seam("morph", joined, frames, self._trace_head(frames, overlap))
        head = LabStatistics.of(frames[:overlap])
        transform = match(head, LabStatistics.of(old))
        if self._anchor is not None:
            transform = with_pull(transform, LabStatistics.of(frames), self._anchor, len(frames) - overlap)
        segment = transform.apply(frames, _pool, ramp_start=(overlap - 1) / 2)
        slip = time_slip(self._before(overlap), list(old), list(segment))
        morphs = [
            _pool.submit(_flow_and_morph, a, b, fraction)
            for a, b, fraction in zip(old, segment, transition_fractions(overlap), strict=False)
        ]
        trace = self._trace_head(segment, overlap)  # measured while the morphs are made
        flows = [morph.result()[0] for morph in morphs]
        joined = np.stack([morph.result()[1] for morph in morphs])
        return self._seam(
            "morph", joined, segment, trace, flows, transform=transform, slip_frames=slip.frames
        )

    def accept(self, seam: Seam) -> None:
        """Makes a proposed join final and emits what can no longer change.

        Raises StitchError when another segment was joined since the proposal.
        """
        if seam.position != self._position or self._held is None:
            raise StitchError("seam: was proposed for an earlier segment; propose it again")
        overlap = seam.report.overlap
        self._emit(self._held[: len(self._held) - overlap])
        self._emit(seam.joined)
        self._transform, self._anchor = seam.transform, seam.anchor
        self._ramp_start = (overlap - 1) / 2 - len(seam.segment)
        self._num_seams += 1
        self._hold(seam.body, own=seam.segment, trace=seam.trace)

    def cut(self, frames: Frames, *, overlap: int, new_shot: bool) -> SeamReport:
        """Joins without a morph: the held segment stays whole, `frames` loses its first `overlap` frames.

        new_shot: the picture is meant to change; colours then follow `frames` from here on, and no gate
        applies. Raises StitchError as propose() does.
        """
        held = self._checked(frames, overlap)
        old = held[len(held) - overlap :]
        transform, segment = ColorTransform(), frames
        if not new_shot and overlap:
            transform = match(LabStatistics.of(frames[:overlap]), LabStatistics.of(old))
            segment = transform.apply(frames, _pool)
        trace = self._trace_head(segment, overlap)
        anchor = LabStatistics.of(frames) if new_shot else None
        seam = self._seam("cut", old, segment, trace, transform=transform, new_anchor=anchor)
        self.accept(seam)
        return seam.report

    def finish(self) -> None:
        """Emits what is still held. The stitcher can start() anew afterwards."""
        if self._held is not None:
            self._emit(self._held)
        self._held = self._emitted_tail = self._own_tail = self._own_trace = self._anchor = None
        self._num_seams = 0
        self._position += 1

    def _checked(self, frames: Frames, overlap: int) -> Frames:
        held = self._held
        if held is None:
            raise StitchError("no segment is held; call start() with the first one")
        like = self._own_tail
        assert like is not None
        check_frames(frames, like=(like.shape[1], like.shape[2]))
        longest = min(len(held), len(frames))
        if not 0 <= overlap <= longest:
            raise StitchError(
                f"overlap: got {overlap}, expected 0 to {longest}: the held segment has {len(held)} frames "
                f"that no join has used, the new one {len(frames)}"
            )
        return held

    def _hold(self, body: Frames, *, own: Frames, trace: Trace | None = None) -> None:
        ready = 0 if self._hold_frames is None else max(0, len(body) - self._hold_frames)
        self._emit(body[:ready])
        self._held, self._own_tail, self._own_trace = body[ready:], own, trace
        self._position += 1

    def _emit(self, frames: Frames) -> None:
        if not len(frames):
            return
        self._sink(frames)
        tail = frames[-CONTEXT_FRAMES:]
        if self._emitted_tail is not None and len(tail) < CONTEXT_FRAMES:
            tail = np.concatenate([self._emitted_tail[-(CONTEXT_FRAMES - len(tail)) :], tail])
        self._emitted_tail = tail.copy()

    def _before(self, overlap: int) -> list[Image]:
        """The last frames of the output before a join of `overlap` frames, two at most."""
        assert self._held is not None
        ready = self._held[: len(self._held) - overlap]
        emitted = [] if self._emitted_tail is None else list(self._emitted_tail)
        return [*emitted, *ready][-2:]

    @staticmethod
    def _trace_head(segment: Frames, overlap: int) -> Trace:
        return Trace.of(segment[: overlap + CONTEXT_FRAMES], _pool)

    def _measure(self, joined: Frames, segment: Frames, head: Trace, overlap: int) -> Continuity:
        assert self._own_tail is not None
        before = self._before(overlap)
        zone = Trace.of([*before, *joined, *segment[overlap : overlap + 2]], _pool)
        reach = overlap + CONTEXT_FRAMES
        if self._own_trace is None or len(self._own_trace.looks) < min(reach, len(self._own_tail)):
            self._own_trace = Trace.of(self._own_tail[-reach:], _pool)
        return continuity(zone, self._own_trace.last(reach), head, before=len(before), overlap=overlap)

    def _seam(
        self,
        kind: Literal["morph", "cut"],
        joined: Frames,
        segment: Frames,
        head: Trace,
        flows: Sequence[FlowPair] = (),
        *,
        transform: ColorTransform | None = None,
        slip_frames: float = 0.0,
        new_anchor: LabStatistics | None = None,
    ) -> Seam:
        """Measures and judges. flows: none where nothing had to move; new_anchor: of a new shot, ungated."""
        overlap = len(joined)
        found = self._measure(joined, segment, head, overlap)
        residual = float(np.median([f.residual_fraction_of_width for f in flows])) if flows else 0.0
        valid = float(np.mean([f.valid_fraction for f in flows])) if flows else 1.0
        failed = failed_gates(found, residual_fraction_of_width=residual, valid_fraction=valid)
        report = SeamReport(
            index=self._num_seams + 1,
            overlap=overlap,
            kind=kind,
            time_slip_frames=slip_frames,
            residual_fraction_of_width=residual,
            valid_fraction=valid,
            mae_ratio=found.mae_ratio,
            warp_error_ratio=found.warp_error_ratio,
            flow_jerk_ratio=found.flow_jerk_ratio,
            sharpness_ratio=found.sharpness_ratio,
            lab_step=found.lab_step,
            scene_cut=found.scene_cut,
            failed_gates=failed if new_anchor is None else (),
        )
        return Seam(
            report,
            joined,
            segment,
            transform or ColorTransform(),
            new_anchor or self._anchor,
            head if len(head.looks) == len(segment) else None,
            self._position,
        )


def _flow_and_morph(a: Image, b: Image, fraction: float) -> tuple[FlowPair, Image]:
    flow = flow_pair(a, b)
    return flow, morph(a, b, flow, fraction)


def _same_pictures(old: Frames, new: Frames) -> bool:
    for a, b in zip(old, new, strict=True):
        difference = cv2.absdiff(a, b)
        height, width = difference.shape[:2]
        blocks = cv2.resize(
            difference, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA
        )
        if blocks.max() > _SAME_PICTURE_GREY_LEVELS:
            return False
    return True
