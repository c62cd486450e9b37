"""A job's keyframes as people are shown them: plain, JSON-safe values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from farm.planning import Keyframe, time_s
from farm.state import Job, TaskStatus, made_again

#: Of a job whose user wants to look at its keyframes before its windows are rendered.
ReviewStatus = Literal["rendering", "waiting", "approved"]


class KeyframeDetail(TypedDict):
    """A picture that a job's windows are rendered from."""

    #: From 1, in the order of the video.
    number: int
    #: Of the video, and when it is shown.
    frame: int
    time_s: float
    prompt: str
    #: Where it is found.
    segment: str
    position: int
    #: Whether it can be looked at: "done", or what the segment waits for.
    status: TaskStatus
    take: int
    #: What it was made with, or is being made.
    seed: int
    #: Whether a picture stands for it.
    replaced: bool
    #: Whether one may: it is no part of a clip.
    replaceable: bool
    #: Numbers of the other keyframes that are made again with it.
    made_again_with: list[int]
    #: Of what can be looked at, the newest there is; None: it is not there yet.
    sha256: str | None


def keyframe_details(job: Job, wanted: Sequence[Keyframe] | None = None) -> list[KeyframeDetail]:
    """Every keyframe, or those that are wanted, in the order of the video."""
    wanted = job.keyframes if wanted is None else wanted
    again = {made_by: made_again(job, made_by) for made_by in {k.made_by for k in wanted}}
    return [_detail(job, k, [n for n in again[k.made_by] if n != k.number]) for k in wanted]


def _detail(job: Job, keyframe: Keyframe, others: list[int]) -> KeyframeDetail:
    task, maker = job.tasks[keyframe.segment], job.tasks[keyframe.made_by]
    picture = job.pictures.get((keyframe.segment, keyframe.position))
    artifact = task.artifacts[max(task.artifacts)] if task.artifacts else None
    return {
        "number": keyframe.number,
        "frame": keyframe.frame,
        "time_s": round(time_s(keyframe, job.plan.fps), 3),
        "prompt": job.plan.shots[keyframe.shot].prompt,
        "segment": keyframe.segment,
        "position": keyframe.position,
        "status": task.status if picture is None else "done",
        "take": task.take,
        "seed": job.plan.seed if maker.seed is None else maker.seed,
        "replaced": picture is not None,
        "replaceable": keyframe.clip_frames == 1,
        "made_again_with": others,
        "sha256": picture.sha256 if picture else artifact.sha256 if artifact else None,
    }


def made_again_words(detail: KeyframeDetail) -> str:
    """What making a keyframe again takes along, for people."""
    others = detail["made_again_with"]
    if not others:
        return f"keyframe {detail['number']} alone is made again"
    number, count = detail["number"], len(others)
    if others == [*range(others[0], others[0] + count)] and count > 2:
        named = f"{others[0]} to {others[-1]}"
    else:
        named = ", ".join(map(str, others))
    return f"keyframe {number} is made again, and with it {named}: they come of the same draft"


def review_status(job: Job) -> ReviewStatus | None:
    """How far the review of a job is; None where nobody asked for one."""
    if not job.plan.review:
        return None
    return "approved" if job.approved else "waiting" if job.awaits_review else "rendering"
