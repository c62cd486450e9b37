"""The pictures that a plan's windows are rendered between or over, for somebody to look at first. Pure.

What is looked at is what the windows get: frames of a draft, or of a clip that refines them. What is made
again is the segment that decided the picture, which for a refined frame is the draft under it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from farm.errors import CannotRun
from farm.planning.plan import FrameRun, Plan, Segment
from farm.values import Value


class Keyframe(Value):
    """One of them, numbered from 1 in the order of the video."""

    number: int
    shot: int
    #: Global number of the frame.
    frame: int
    #: Where it is found: the segment, and the position among its frames.
    segment: str
    position: int
    #: The segment that decides the picture: rendered again, it gives another.
    made_by: str
    #: Consecutive frames that begin with it and are one clip; 1: it stands alone, and can be replaced.
    clip_frames: int = 1


def keyframes(plan: Plan) -> tuple[Keyframe, ...]:
    """The frames that a plan's windows take from other segments, in order; of consecutive ones the first."""
    of = {s.id: s for s in plan.segments}
    shown = {place: None for s in plan.final_segments for run in _runs(s) for place in _places(of, run)}
    found: list[Keyframe] = []
    clip_of: dict[tuple[str, int], int] = {}
    for segment, position in sorted(shown, key=lambda at: (of[at[0]].shot, of[at[0]].frame_indices[at[1]])):
        frame = of[segment].frame_indices[position]
        shot = plan.shots[of[segment].shot]
        if found and found[-1].shot == shot.index and found[-1].frame >= shot.end - 1:
            continue  # frames that are dropped are all that is made from it
        before = clip_of.get((segment, frame - 1))
        if before is not None:
            found[before] = found[before].model_copy(update={"clip_frames": found[before].clip_frames + 1})
            clip_of[segment, frame] = before
            continue
        clip_of[segment, frame] = len(found)
        found.append(
            Keyframe(
                number=len(found) + 1,
                shot=of[segment].shot,
                frame=frame,
                segment=segment,
                position=position,
                made_by=_made_by(of, segment),
            )
        )
    return tuple(found)


def reviewed(plan: Plan) -> Plan:
    """The plan of a job that waits for its user once its keyframes are there.

    Raises:
        CannotRun: it has none; says what would have some.
    """
    found = keyframes(plan)
    if not found:
        raise CannotRun(f"there is nothing to review: {_why_none(plan)}", param="review")
    count = f"{len(found)} keyframes" if len(found) > 1 else "1 keyframe"
    note = f"waits for you after {count}: no window is rendered before you approve"
    return plan.model_copy(update={"review": True, "notes": (*plan.notes, note)})


def time_s(keyframe: Keyframe, fps: Fraction) -> float:
    """When it is shown, in seconds from the video's start."""
    return float(keyframe.frame / fps)


def _why_none(plan: Plan) -> str:
    if plan.mode == "infill" and plan.shots[0].last_media is not None:
        return (
            f"the {len(plan.shots) + 1} pictures given are the keyframes, and nothing is drafted between "
            "them; leave review out"
        )
    if plan.mode in ("infill", "refine"):
        return (
            f"with mode {plan.mode} this video has no keyframes of its own; leave review out, or ask for "
            "more frames than a window has"
        )
    return (
        f"mode {plan.mode} renders its windows without keyframes; use infill or refine with a model that "
        "can, or leave review out"
    )


def _runs(segment: Segment) -> tuple[FrameRun, ...]:
    return (*segment.sources, *segment.known)


def _places(of: Mapping[str, Segment], run: FrameRun) -> Iterator[tuple[str, int]]:
    """Where the pictures of a run come from: (segment, position).

    A clip that grows out of a frame it is given as it is shows that frame, and nothing else to decide on.
    """
    segment = of[run.segment]
    for position in range(run.first, run.end):
        if segment.known:
            here = _at(segment, position)
            yield from ((k.segment, k.first) for k in segment.known if _at(of[k.segment], k.first) == here)
        else:
            yield run.segment, position


def _at(segment: Segment, position: int) -> int:
    return segment.frame_indices[position]


def _made_by(of: Mapping[str, Segment], segment: str) -> str:
    """A clip over frames of another segment only refines them."""
    while of[segment].sources:
        segment = of[segment].sources[0].segment
    return segment
