"""The state in parts that can be written down, and a state made of them again. Pure.

One part tells the farm beside its jobs, one each job, further ones its tasks. A task to which nothing has
happened is in none, and neither is a plan: it stays in the event that submitted the job. What follows from
the rest (counts, who is ready, how often content is used) is worked out. Fields at their defaults are left
out, so that a later farm may add some.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from farm.capabilities import Worker
from farm.errors import CannotRun
from farm.request import MediaInfo
from farm.state.events import Artifact, JobPublished, JobSubmitted
from farm.state.profiles import Profiles, ShapeKey
from farm.state.state import (
    NO_SEEDS,
    Attempt,
    EarlierAttempts,
    Failure,
    Job,
    Seam,
    State,
    Task,
    blob_hashes,
    new_job,
)
from farm.state.transitions import JobStatus, TaskStatus
from farm.state.workers import NodeState, WorkerState
from farm.values import Value

#: Tasks of one part: some tens of kilobytes once they are compressed.
TASKS_A_PART = 200
_LEVEL = 3
#: Watched, and worth nothing to whoever reads it again.
_WATCHED_OF_ATTEMPTS = {"phase", "done_fraction", "given_at", "denoising_since", "heard_at"}
_WATCHED = {
    "tasks": {"__all__": {"attempts": {"__all__": _WATCHED_OF_ATTEMPTS}}},
    "workers": {"__all__": {"telemetry", "telemetry_at", "limited", "models"}},
}

_ByModel = tuple[tuple[tuple[str, str], float], ...]


class FarmPart(Value):
    """Everything but the jobs."""

    part: Literal["farm"]
    nodes: tuple[tuple[str, NodeState], ...] = ()
    workers: tuple[WorkerState, ...] = ()
    drained: tuple[Worker, ...] = ()
    starting: tuple[Worker, ...] = ()
    deleted: tuple[tuple[str, int], ...] = ()
    dropped_blobs: tuple[str, ...] = ()
    accepted_licences: tuple[str, ...] = ()
    seconds_per_unit: _ByModel = ()
    load_s: _ByModel = ()
    seconds_per_unit_of_device: _ByModel = ()
    load_s_of_device: _ByModel = ()
    join_s: float | None = None
    too_small_bytes: tuple[tuple[ShapeKey, int], ...] = ()


class JobPart(Value):
    """A job; its tasks follow."""

    part: Literal["job"]
    id: str
    first_seq: int
    last_seq: int
    submitted_at: float
    attempts_before: int = 0
    priority: int
    status: JobStatus = "running"
    reason: str = ""
    #: Those of which something was ready at some time.
    ready_kinds: tuple[int, ...] = ()
    num_refused: int = 0
    cost: float | None = 0.0
    seams: tuple[tuple[str, Seam], ...] = ()
    published: JobPublished | None = None
    finished_at: float | None = None
    approved: bool = False
    review_told: bool = False
    pictures: tuple[tuple[str, int, MediaInfo], ...] = ()


class TaskPart(Value):
    """A task to which something has happened."""

    order: int
    status: TaskStatus = "waiting"
    waits_for: tuple[str, ...] = ()
    take: int = 0
    attempts: tuple[Attempt, ...] = ()
    #: How many, by worker and how they ended; seconds they took.
    earlier: tuple[tuple[tuple[str, str, int], ...], float] | None = None
    failures: tuple[Failure, ...] = ()
    seeds: tuple[tuple[int, int], ...] = ()
    artifacts: tuple[tuple[int, Artifact], ...] = ()


class TasksPart(Value):
    """Of the job before."""

    part: Literal["tasks"]
    tasks: tuple[TaskPart, ...]


Part = FarmPart | JobPart | TasksPart
_adapter: TypeAdapter[Part] = TypeAdapter(Annotated[Part, Field(discriminator="part")])


def encoded(part: Part) -> bytes:
    """As it is written down."""
    return zlib.compress(_adapter.dump_json(part, exclude_defaults=True, exclude=_named(part)), _LEVEL)


def decoded(body: bytes) -> Part:
    """
    Raises:
        ValueError, zlib.error: it is none.
    """
    return _adapter.validate_json(zlib.decompress(body))


def parts_of(state: State) -> Iterator[Part]:
    """Everything a replay would have to know."""
    profiles = state.profiles
    yield FarmPart.model_construct(
        part="farm",
        nodes=tuple(state.nodes.items()),
        workers=tuple(state.workers.values()),
        drained=tuple(state.drained.values()),
        starting=tuple(state.starting.values()),
        deleted=tuple(state.deleted.items()),
        dropped_blobs=tuple(sorted(state.dropped_blobs)),
        accepted_licences=tuple(sorted(state.accepted_licences)),
        seconds_per_unit=tuple(profiles.seconds_per_unit.items()),
        load_s=tuple(profiles.load_s.items()),
        seconds_per_unit_of_device=tuple(profiles.seconds_per_unit_of_device.items()),
        load_s_of_device=tuple(profiles.load_s_of_device.items()),
        join_s=profiles.join_s,
        too_small_bytes=tuple(profiles.too_small_bytes.items()),
    )
    for job in state.jobs.values():
        yield from parts_of_job(job)


def parts_of_job(job: Job) -> Iterator[Part]:
    yield JobPart.model_construct(
        part="job",
        id=job.id,
        first_seq=job.first_seq,
        last_seq=job.last_seq,
        submitted_at=job.submitted_at,
        attempts_before=job.attempts_before,
        priority=job.request.priority,
        status=job.status,
        reason=job.reason,
        ready_kinds=tuple(job.ready_of),
        num_refused=job.num_refused,
        cost=job.cost,
        seams=tuple(job.seams.items()),
        published=job.published,
        finished_at=job.finished_at,
        approved=job.approved,
        review_told=job.review_told,
        pictures=tuple((*place, media) for place, media in job.pictures.items()),
    )
    untouched = new_job(_submission(job), job.submitted_at).tasks
    happened = (task for task in job.tasks.values() if task != untouched[task.id])
    while some := tuple(map(_task_part, islice(happened, TASKS_A_PART))):
        yield TasksPart.model_construct(part="tasks", tasks=some)


def restore(state: State, parts: Iterable[Part], submitted: Callable[[JobPart], JobSubmitted]) -> None:
    """Make a new state what these parts tell.

    Args:
        state: Is changed.
        parts: As ``parts_of`` gave them.
        submitted: The event that submitted a job.

    Raises:
        ValueError, LookupError: they do not belong together.
    """
    job: Job | None = None
    for part in parts:
        match part:
            case FarmPart():
                _restore_farm(state, part)
            case JobPart():
                if job is not None:
                    _know(state, job)
                job = _restored_job(part, submitted(part))
            case TasksPart() if job is not None:
                tasks = list(job.tasks.values())
                for each in part.tasks:
                    _restore_task(tasks[each.order], each)
            case TasksPart():
                raise ValueError("tasks of no job")
    if job is not None:
        _know(state, job)


def written_parts(state: State) -> Iterator[bytes]:
    """Everything a replay would have to know, as it is written down; each part was read again and compared.

    Raises:
        CannotRun: some of it does not come back as it was.
    """
    farm = encoded(next(parts_of(state)))
    if not gives_farm(farm, state):
        raise CannotRun("a snapshot of the farm would not give the same farm")
    yield farm
    for job in state.jobs.values():
        parts = list(map(encoded, parts_of_job(job)))
        if not gives_job(parts, job):
            raise CannotRun(f"a snapshot of job {job.id} would not give the same job")
        yield from parts


def gives_job(parts: Iterable[bytes], job: Job) -> bool:
    """Whether these parts, read again, are this job."""
    again = State()
    restore(again, map(decoded, parts), lambda _: _submission(job))
    return again.jobs == {job.id: job}


def gives_farm(part: bytes, state: State) -> bool:
    """Whether this part, read again, is everything of the state but its jobs."""
    again = State()
    restore(again, [decoded(part)], _no_job)
    again.jobs, again.blob_uses = state.jobs, state.blob_uses
    return again == state


def _no_job(part: JobPart) -> JobSubmitted:
    raise LookupError(f"job {part.id} is none of the farm's own part")


def _named(part: Part) -> Any:
    return {name: inner for name, inner in _WATCHED.items() if name in type(part).model_fields}


def _submission(job: Job) -> JobSubmitted:
    return JobSubmitted.model_construct(
        job_id=job.id,
        request=job.request,
        plan=job.plan,
        submitted_by=job.submitted_by,
        submitted_by_id=job.submitted_by_id,
        remixed_from=job.remixed_from,
    )


def _task_part(task: Task) -> TaskPart:
    earlier = task.earlier
    return TaskPart.model_construct(
        order=task.order,
        status=task.status,
        waits_for=tuple(sorted(task.waits_for)),
        take=task.take,
        attempts=tuple(task.attempts),
        earlier=None
        if earlier is None
        else (tuple((*how, count) for how, count in earlier.outcomes.items()), earlier.held_s),
        failures=tuple(task.failures),
        seeds=tuple(task.seeds.items()),
        artifacts=tuple(task.artifacts.items()),
    )


def _restore_farm(state: State, part: FarmPart) -> None:
    state.nodes = dict(part.nodes)
    state.workers = {worker.worker.id: worker for worker in part.workers}
    state.drained = {worker.id: worker for worker in part.drained}
    state.starting = {worker.id: worker for worker in part.starting}
    state.deleted = dict(part.deleted)
    state.dropped_blobs = set(part.dropped_blobs)
    state.accepted_licences = set(part.accepted_licences)
    state.profiles = Profiles(
        seconds_per_unit=dict(part.seconds_per_unit),
        load_s=dict(part.load_s),
        seconds_per_unit_of_device=dict(part.seconds_per_unit_of_device),
        load_s_of_device=dict(part.load_s_of_device),
        join_s=part.join_s,
        too_small_bytes=dict(part.too_small_bytes),
    )


def _restored_job(part: JobPart, submitted: JobSubmitted) -> Job:
    if submitted.job_id != part.id:
        raise ValueError(f"job {part.id} was submitted as {submitted.job_id}")
    job = new_job(submitted, part.submitted_at)
    if job.request.priority != part.priority:
        job.request = job.request.model_copy(update={"priority": part.priority})
    job.first_seq, job.last_seq = part.first_seq, part.last_seq
    job.attempts_before, job.num_refused = part.attempts_before, part.num_refused
    job.status, job.reason, job.cost = part.status, part.reason, part.cost
    job.published, job.finished_at = part.published, part.finished_at
    job.approved, job.review_told = part.approved, part.review_told
    job.seams = dict(part.seams)
    job.pictures = {(task_id, position): media for task_id, position, media in part.pictures}
    job.ready_of = {kind: [] for kind in part.ready_kinds}
    return job


def _restore_task(task: Task, part: TaskPart) -> None:
    task.status, task.take = part.status, part.take
    task.waits_for = frozenset(part.waits_for)
    task.attempts, task.failures = list(part.attempts), list(part.failures)
    task.seeds, task.artifacts = dict(part.seeds) or NO_SEEDS, dict(part.artifacts)
    for attempt in task.attempts:
        attempt.given_at = attempt.heard_at = attempt.started_at
    if part.earlier is not None:
        rows, held_s = part.earlier
        task.earlier = EarlierAttempts(Counter({(w, outcome): count for w, outcome, count in rows}), held_s)


def _know(state: State, job: Job) -> None:
    """Take in a job whose tasks are all there: what follows from them is worked out."""
    kinds = job.outline.kinds
    job.ready.clear()
    job.ready_failed.clear()
    for task in job.tasks.values():
        job.num_done += task.status == "done"
        running = len(task.running_attempts) if task.attempts else 0
        job.num_running += running
        if running:
            job.running_tasks.add(task.id)
        if task.status == "ready":
            job.ready.append(task.order)
            job.ready_of.setdefault(kinds[task.order], []).append(task.order)
            if task.failures:
                job.ready_failed.add(task.order)
    for task_id in job.seams:
        job.seam_changed(task_id)
    state.blob_uses.update(blob_hashes(job))
    state.jobs[job.id] = job
