"""A job that waits until its keyframes were looked at: what is made again, and what that changes.

Pure but for ``remake`` and ``goes_on``, which are how their events are applied.
"""

from __future__ import annotations

from collections.abc import Mapping

from farm.errors import InvalidInput, NotFound, NotReady
from farm.planning import Keyframe
from farm.state.events import KeyframesReady, ReviewApproved, ReviewEvent
from farm.state.state import REVIEW, Job, Task


def keyframe_of(job: Job, number: int) -> Keyframe:
    """
    Raises:
        NotFound: the job has no keyframe of that number.
    """
    if not 1 <= number <= len(job.keyframes):
        has = f"keyframes 1 to {len(job.keyframes)}" if job.keyframes else "no keyframes"
        raise NotFound(f"job {job.id} has {has}, and no {number}", param="number")
    return job.keyframes[number - 1]


def to_remake(job: Job, keyframe: Keyframe) -> list[Task]:
    """The tasks that give this keyframe another picture, in plan order: what decides it, and what is made
    from that, up to the windows. Of a chain that is all that comes behind."""
    return _with_dependents(job, [keyframe.made_by])


def to_regrow(job: Job, keyframe: Keyframe) -> list[Task]:
    """The tasks before the windows that are made from this keyframe's picture, in plan order."""
    here = (keyframe.segment, keyframe.position)
    readers = [
        s.id
        for s in job.plan.segments
        if s.level != "final"
        and any(run.segment == here[0] and run.first <= here[1] < run.end for run in (*s.sources, *s.known))
    ]
    return _with_dependents(job, readers)


def made_again(job: Job, made_by: str) -> tuple[int, ...]:
    """Numbers of the keyframes that are made again with a segment; those that were replaced stay."""
    again = {task.id for task in _with_dependents(job, [made_by])}
    return tuple(
        k.number for k in job.keyframes if k.segment in again and (k.segment, k.position) not in job.pictures
    )


def next_seed(job: Job, task: Task) -> int:
    """A seed that this task was never rendered with."""
    return max((job.plan.seed, *task.seeds.values())) + 1


def check_reviewing(job: Job) -> None:
    """
    Raises:
        InvalidInput: nothing of its keyframes may be changed, or never more; says what would do.
    """
    if not job.plan.review:
        raise InvalidInput(
            f"job {job.id} does not wait for a review; submit it with review to look at its keyframes first"
        )
    if job.approved:
        raise InvalidInput(
            f"the keyframes of job {job.id} are approved; `farm rerender {job.id} --frames FIRST:END` "
            "renders windows again"
        )
    if job.status != "running":
        raise InvalidInput(f"job {job.id} is {job.status}; `farm retry {job.id}` continues it")


def check_approvable(job: Job) -> None:
    """
    Raises:
        InvalidInput: as ``check_reviewing`` says.
        NotReady: some keyframes are not there, or are being made again.
    """
    check_reviewing(job)
    if not job.awaits_review:
        left = len(job.tasks) - len(job.outline.finals) - job.num_done
        raise NotReady(
            f"{left} segments of the keyframes of job {job.id} are still to be rendered; look at them first"
        )


def review_refusal(job: Job, event: ReviewEvent) -> str | None:
    """Why this may not happen to the job now, or None when it may."""
    if job.status != "running" or not job.held:
        return f"job {job.id} waits for no review: {event.type} does not follow"
    if isinstance(event, KeyframesReady | ReviewApproved):
        return None if job.awaits_review else f"keyframes of {job.id} are not there yet"
    for task_id in (*event.takes, event.task_id):
        task = job.tasks.get(task_id)
        if task is None:
            return f"no task {task_id} in job {job.id}"
        if task.segment.level == "final" or (task.running_attempts and task_id in event.takes):
            return f"task {task_id} is {task.status}: {event.type} does not follow"
    return None


def remake(job: Job, takes: Mapping[str, int], seed: int | None = None) -> None:
    """These tasks are rendered, done or not, as these takes; ``seed``: of their own, None: as they had."""
    again = [job.tasks[task_id] for task_id in takes]
    job.review_told = job.review_told and not again
    for task in again:
        if task.status == "done":
            job.num_done -= 1
        elif task.status == "ready":
            job.unqueue(task)
        own = task.seed if seed is None else seed
        task.status = "waiting"
        task.take = takes[task.id]
        task.failures.clear()
        if own is not None:
            task.seeds = {**task.seeds, task.take: own}
    for task in again:
        task.waits_for = job.undone(task.segment.depends_on)
        job.queue(task)
        for dependent_id in job.dependents.get(task.id, ()):
            job.wait_again(job.tasks[dependent_id], task.id)


def goes_on(job: Job, event: KeyframesReady | ReviewApproved) -> None:
    """Its user was told of the keyframes, or has approved them: its windows may be rendered."""
    if isinstance(event, KeyframesReady):
        job.review_told = True
        return
    job.approved = True
    for task in job.tasks.values():
        if REVIEW in task.waits_for:
            task.waits_for -= {REVIEW}
            job.queue(task)


def _with_dependents(job: Job, waiting: list[str]) -> list[Task]:
    again: set[str] = set()
    waiting = list(waiting)
    while waiting:
        task_id = waiting.pop()
        if task_id not in again and job.tasks[task_id].segment.level != "final":
            again.add(task_id)
            waiting += job.dependents.get(task_id, ())
    return [job.tasks[task_id] for task_id in job.order if task_id in again]
