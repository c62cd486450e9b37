"""What the modes that cut a shot into windows have in common. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from farm.capabilities import EngineSpec
from farm.planning.plan import Segment, Shot
from farm.planning.windows import Window

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
            num_frames=spec.frames.at_least(w.end - w.start) if spec.random_access else w.num_frames,
            head=0 if i == 0 else windows[i - 1].end - w.start,
        )
        for i, w in enumerate(windows)
    ]


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
