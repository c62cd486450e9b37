"""What the modes that cut a shot into windows have in common. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from farm.capabilities import EngineSpec
from farm.planning.modes.windows import Window, cropped_windows
from farm.planning.plan import Segment, Shot

#: A chain drifts; after this many hops it is pulled fully to its first segment's statistics.
HOPS_BETWEEN_ANCHORS = 6
#: Pull at every other hop (the factor of LTX's long-video pipeline).
ANCHOR_STRENGTH = 0.25

#: Time of a draft as a share of a chain's, in steps: with more, a job whose draft has every frame would take
#: longer than 0.35 of a chain's time on any farm. One whose frames are far apart has all of its steps.
DRAFT_STEP_SHARE = 0.35
#: Fewer steps than this make no picture.
MIN_DRAFT_STEPS = 4


@dataclass(frozen=True)
class Drafting:
    """What a draft is cut by: its windows in frames of its own, its steps."""

    #: Of the model that renders it.
    spec: EngineSpec
    window: int
    num_inference_steps: int
    #: Frames of the video from one of its frames to the next.
    stride: int
    #: Whether its frames become keyframes only when the video's own model has rendered over them.
    refined: bool = False


@dataclass(frozen=True)
class Cut:
    """What shots are cut by. ``window`` and ``overlap`` in frames, ``fps`` of the video."""

    spec: EngineSpec
    window: int
    overlap: int
    fps: Fraction
    num_inference_steps: int
    #: Of the draft whose frames are keyframes (``infill``).
    drafting: Drafting | None = None


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


def draft(shot: Shot, by: Drafting, num_points: int, *, whole_windows: bool = True) -> list[Segment]:
    """A chain over every ``by.stride``-th frame, ``num_points`` of them or more.

    A window begins with the last frame of the one before, and so has all but one of its frames to itself.
    (With latents handed over, too, colours of a draft in few steps run away.) The last is a whole window, or
    the shortest that holds what is left.
    """
    segments, stride = [], by.stride
    for i, w in enumerate(cropped_windows(num_points, by.window, 1)):
        start = shot.start + w.start * stride
        num_frames = w.num_frames if whole_windows else by.spec.frames.at_least(w.end - w.start)
        segments.append(
            Segment(
                id=f"d{shot.index}-{i}",
                shot=shot.index,
                level="draft",
                start=start,
                end=start + (num_frames - 1) * stride + 1,
                num_frames=num_frames,
                frame_stride=stride,
                num_inference_steps=by.num_inference_steps,
            )
        )
    return chained(segments)


def draft_stride(step: int, fps: Fraction, min_fps: float) -> int:
    """Frames of the video from one draft frame to the next, for windows that start ``step`` frames apart.

    A divisor of ``step``, so that every window starts on a draft frame, and the largest at which the draft
    still has ``min_fps`` frames a second; 1 when there is none.
    """
    return max(d for d in range(1, step + 1) if d == 1 or (step % d == 0 and float(fps / d) >= min_fps))


def draft_steps(num_inference_steps: int, stride: int) -> int:
    """Denoising steps of a draft of every ``stride``-th frame of a job with so many."""
    wanted = max(MIN_DRAFT_STEPS, round(DRAFT_STEP_SHARE * stride * num_inference_steps))
    return min(wanted, num_inference_steps)


def chained(segments: Sequence[Segment], *, handover_latents: int = 0) -> list[Segment]:
    """These segments, each to start from the frame of the one before where it begins, and from so many
    latents behind it."""
    starts = [s.start for s in segments[1:]]
    return [
        segment.model_copy(
            update={
                "depends_on": (segments[i - 1].id,) if i else (),
                "handover_from": segments[i - 1].id if i else None,
                "anchor_from": segments[0].id if i else None,
                "handover_index": segment.frame_indices.index(starts[i]) if i < len(starts) else None,
                "handover_latents": handover_latents if i < len(starts) else 0,
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
