"""A job's keyframes before its windows: made again, replaced by a picture, approved.

What a change takes with it is decided in ``farm.state``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from farm.errors import InvalidInput, NotReady
from farm.planning import framing
from farm.request import MediaInfo, check_seed
from farm.running.coordinator import Coordinator
from farm.running.storage import stored_bytes
from farm.state import (
    Job,
    KeyframeReplaced,
    KeyframesRemade,
    ReviewApproved,
    Task,
    check_approvable,
    check_reviewing,
    keyframe_of,
    next_seed,
    to_regrow,
    to_remake,
)


async def remake_keyframe(coordinator: Coordinator, job_id: str, number: int, seed: int | None = None) -> int:
    """Make a keyframe again, with what comes of the same segments and behind them. Returns the seed.

    A picture that stands for it goes; those that stand for others stay.

    Args:
        coordinator: Whose job it is.
        job_id: Of a job that waits for its review, or will.
        number: Of the keyframe, from 1.
        seed: For all that is made again; None: one that it was not made with yet.

    Raises:
        NotFound: there is no such job or keyframe.
        InvalidInput: the job waits for no review, or the seed is none.
        NotReady: the keyframe is not made yet.
        CannotRun: the disk has no room for it.
    """
    check_seed(seed)
    job = coordinator.ledger.job(job_id)
    keyframe = keyframe_of(job, number)
    check_reviewing(job)
    tasks = to_remake(job, keyframe)
    maker = job.tasks[keyframe.made_by]
    if maker.status in ("waiting", "ready"):
        raise NotReady(f"keyframe {number} of {job_id} is not made yet: it is {maker.status}", param="number")
    coordinator.storage.check_space(stored_bytes(job.plan, (task.segment for task in tasks)))
    seed = next_seed(job, maker) if seed is None else seed
    coordinator.withdraw(tasks, "its keyframe is made again")
    replaced = job.pictures.get((keyframe.segment, keyframe.position))
    coordinator.ledger.record(
        KeyframesRemade(
            job_id=job_id,
            task_id=keyframe.segment,
            position=keyframe.position,
            takes=_next_takes(tasks),
            seed=seed,
        )
    )
    coordinator.dispatch()
    await _drop(coordinator, replaced)
    return seed


async def replace_keyframe(
    coordinator: Coordinator, job_id: str, number: int, media: MediaInfo | None
) -> tuple[str, ...]:
    """Let a checked picture stand for a keyframe; None: let what was rendered count again.

    Clips that grow out of it are rendered again. Returns what is changed of the picture.

    Raises:
        NotFound: there is no such job or keyframe.
        InvalidInput: the job waits for no review, the file is no picture, or the keyframe is part of a clip.
    """
    job = coordinator.ledger.job(job_id)
    keyframe = keyframe_of(job, number)
    check_reviewing(job)
    place = (keyframe.segment, keyframe.position)
    replaced = job.pictures.get(place)
    if media is None and replaced is None:
        raise InvalidInput(f"keyframe {number} of {job_id} was not replaced", param="number")
    if media is not None:
        if media.kind != "image":
            raise InvalidInput("a keyframe is replaced by a picture; the file is none", param="picture")
        if keyframe.clip_frames > 1:
            raise InvalidInput(
                f"keyframe {number} of {job_id} begins a clip of {keyframe.clip_frames} frames: "
                "it can be made again, not replaced",
                param="number",
            )
        await asyncio.to_thread(coordinator.storage.put_file, media.path, media.sha256)
        media = media.model_copy(update={"path": Path(media.sha256)})
        check_reviewing(job)  # it was approved meanwhile
    tasks = to_regrow(job, keyframe)
    coordinator.withdraw(tasks, "its keyframe is replaced")
    coordinator.ledger.record(
        KeyframeReplaced(
            job_id=job_id,
            task_id=keyframe.segment,
            position=keyframe.position,
            media=media,
            takes=_next_takes(tasks),
        )
    )
    coordinator.dispatch()
    await _drop(coordinator, replaced)
    return () if media is None else _changed_of(job, media)


def approve_keyframes(coordinator: Coordinator, job_id: str) -> None:
    """Let the windows of a job be rendered.

    Raises:
        NotFound: there is no such job.
        InvalidInput: it waits for no review.
        NotReady: not all of its keyframes are there.
    """
    check_approvable(coordinator.ledger.job(job_id))
    coordinator.ledger.record(ReviewApproved(job_id=job_id))
    coordinator.dispatch()


def _changed_of(job: Job, media: MediaInfo) -> tuple[str, ...]:
    """What is taken of a picture otherwise than it is, a clause each."""
    plan = job.plan
    said = framing(media.width, media.height, plan.width, plan.height, plan.fit).said
    return (*media.notes, *([f"the picture {said}"] if said else []))


def _next_takes(tasks: list[Task]) -> dict[str, int]:
    return {task.id: task.next_take for task in tasks}


async def _drop(coordinator: Coordinator, media: MediaInfo | None) -> None:
    """Remove a picture that no job has any more."""
    if media is not None:
        await coordinator.blobs.remove_dropped([media.sha256])
