"""Cutting a shot into the windows of a mode that starts from images. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from farm.engine_spec import EngineSpec
from farm.errors import CannotRun
from farm.plan import Segment, Shot
from farm.windows import Window, cropped_windows

#: A chain drifts; after this many hops it is pulled fully to its first segment's statistics.
HOPS_BETWEEN_ANCHORS = 6
#: Pull at every other hop (the factor of LTX's long-video pipeline).
ANCHOR_STRENGTH = 0.25


@dataclass(frozen=True)
class Cut:
    """What shots are cut by. ``window`` and ``overlap`` in frames, ``fps`` of the video."""

    spec: EngineSpec
    window: int
    overlap: int
    fps: Fraction
    num_inference_steps: int


def final_segments(shot: Shot, windows: Sequence[Window], spec: EngineSpec) -> list[Segment]:
    """One final segment a window; an engine that can start anywhere renders just what is kept."""
    return [
        Segment(
            id=f"s{shot.index}-{i}",
            shot=shot.index,
            level="final",
            start=shot.start + w.start,
            end=shot.start + w.end,
            num_frames=spec.num_frames_at_least(w.end - w.start) if spec.random_access else w.num_frames,
            head=0 if i == 0 else windows[i - 1].end - w.start,
        )
        for i, w in enumerate(windows)
    ]


def independent(shot: Shot, cut: Cut) -> list[Segment]:
    """Every window alone."""
    windows = cropped_windows(shot.end - shot.start, cut.window, cut.overlap)
    return final_segments(shot, windows, cut.spec)


def chain(shot: Shot, cut: Cut) -> list[Segment]:
    """Each window starts from the frame where the one before hands over: the first of their overlap."""
    windows = cropped_windows(shot.end - shot.start, cut.window, max(1, cut.overlap))
    return chained(final_segments(shot, windows, cut.spec.model_copy(update={"random_access": False})))


def chained(segments: Sequence[Segment]) -> list[Segment]:
    """These segments, each to start from the frame of the one before where it begins."""
    starts = [s.start for s in segments[1:]]
    return [
        segment.model_copy(
            update={
                "depends_on": (segments[i - 1].id,) if i else (),
                "handover_from": segments[i - 1].id if i else None,
                "anchor_from": segments[0].id if i else None,
                "handover_index": segment.frame_indices.index(starts[i]) if i < len(starts) else None,
                "hop": i,
                "anchor_strength": _anchor_strength(i),
            }
        )
        for i, segment in enumerate(segments)
    ]


def _anchor_strength(hop: int) -> float:
    if hop == 0:
        return 0.0
    return 1.0 if hop % HOPS_BETWEEN_ANCHORS == 0 else ANCHOR_STRENGTH


def infill(shot: Shot, cut: Cut) -> list[Segment]:
    """One window between two keyframes; neighbours share the key frame.

    Raises:
        CannotRun: there are more frames between two images than a window has, or a number the model refuses.
    """
    length = shot.end - shot.start
    num_frames = cut.spec.num_frames_at_least(length)
    if num_frames > cut.window or num_frames != length:
        raise CannotRun(
            f"mode infill has {length} frames between two images, and {cut.spec.model} renders a window of "
            f"{cut.window}; give more images or fewer frames",
            param="frames",
        )
    return [
        Segment(
            id=f"s{shot.index}-0",
            shot=shot.index,
            level="final",
            start=shot.start,
            end=shot.end,
            num_frames=length,
            head=0 if shot.index == 0 else 1,
        )
    ]
