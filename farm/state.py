"""The farm's state and how events change it.

``refusal`` says why an event cannot happen (the fence against late and duplicate results);
``apply`` makes it happen. Replaying a journal through ``apply`` gives the same state again.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from farm.capabilities import Worker
from farm.engine_spec import Rung
from farm.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    FailureKind,
    JobCancelled,
    JobFailed,
    JobPublished,
    JobRetried,
    JobSubmitted,
    ResultRefused,
    SeamAccepted,
    SeamMeasured,
    TaskAssigned,
    TaskReopened,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
)
from farm.job import JobRequest
from farm.plan import Plan, Segment
from farm.profiles import Profiles
from farm.transitions import JOB_TRANSITIONS, TASK_TRANSITIONS, JobStatus, TaskStatus


@dataclass
class Attempt:
    """One try at a task on one worker, fenced by its id."""

    id: str
    worker_id: str
    rung: Rung
    need_bytes: int
    predicted_s: float
    why: str
    take: int
    started_at: float
    #: "running", "succeeded", or how it failed.
    outcome: str = "running"
    message: str = ""
    wall_s: float | None = None
    load_s: float | None = None
    peak_bytes: int | None = None
    # Watched, not journaled: lost with the coordinator, and worth nothing without the attempt.
    phase: str = "load"
    done_fraction: float = 0.0
    heard_at: float = 0.0

    @property
    def running(self) -> bool:
        return self.outcome == "running"


@dataclass(frozen=True)
class Failure:
    worker_id: str
    kind: FailureKind
    message: str


@dataclass
class Task:
    """One segment's way through the farm."""

    segment: Segment
    order: int
    waits_for: set[str]
    status: TaskStatus = "waiting"
    take: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    #: Finished takes, by number.
    artifacts: dict[int, Artifact] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.segment.id

    @property
    def running_attempts(self) -> list[Attempt]:
        return [a for a in self.attempts if a.running]

    @property
    def artifact(self) -> Artifact | None:
        return self.artifacts.get(self.take)


@dataclass
class Seam:
    """The join before a segment: what every take of it measured, and the one that was kept."""

    measured: dict[int, SeamMeasured] = field(default_factory=dict)
    accepted_take: int | None = None


@dataclass
class Job:
    id: str
    request: JobRequest
    plan: Plan
    submitted_at: float
    tasks: dict[str, Task]
    order: list[str]
    dependents: dict[str, list[str]]
    status: JobStatus = "running"
    reason: str = ""
    #: Numbers of the ready tasks, in plan order.
    ready: list[int] = field(default_factory=list)
    num_done: int = 0
    num_running: int = 0
    num_refused: int = 0
    seams: dict[str, Seam] = field(default_factory=dict)
    published: JobPublished | None = None
    finished_at: float | None = None

    def kept_take(self, task: Task) -> int:
        """The take that is joined: the one its seam was accepted with, or the newest."""
        seam = self.seams.get(task.id)
        return task.take if seam is None or seam.accepted_take is None else seam.accepted_take


@dataclass
class WorkerState:
    worker: Worker
    draining: bool = False
    #: attempt id -> (job id, task id)
    attempts: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: The model its last task used: still loaded.
    warm_model: str | None = None


@dataclass
class State:
    jobs: dict[str, Job] = field(default_factory=dict)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    profiles: Profiles = field(default_factory=Profiles)


def refusal(state: State, event: Event) -> str | None:
    """Why this event may not happen now, or None when it may."""
    match event:
        case ResultRefused():
            return None
        case WorkerJoined(worker=worker):
            return f"worker {worker.id} is here" if worker.id in state.workers else None
        case WorkerDraining(worker_id=worker_id) | WorkerLeft(worker_id=worker_id):
            return None if worker_id in state.workers else f"no worker {worker_id}"
        case JobSubmitted(job_id=job_id):
            return f"job {job_id} exists" if job_id in state.jobs else None
    job = state.jobs.get(event.job_id)
    if job is None:
        return f"no job {event.job_id}"
    match event:
        case JobPublished() | JobFailed() | JobCancelled() | JobRetried():
            legal = (job.status, event.type) in JOB_TRANSITIONS
            return None if legal else f"job {job.id} is {job.status}: {event.type} does not follow"
    task = job.tasks.get(event.task_id)
    if task is None:
        return f"no task {event.task_id} in job {job.id}"
    match event:
        case TaskAssigned() | TaskReopened():
            legal = (task.status, event.type) in TASK_TRANSITIONS
            return None if legal else f"task {task.id} is {task.status}: {event.type} does not follow"
        case AttemptSucceeded() | AttemptFailed():
            attempt = next((a for a in reversed(task.attempts) if a.id == event.attempt_id), None)
            if attempt is None:
                return f"attempt {event.attempt_id} was never given task {task.id}"
            if not attempt.running:
                return f"attempt {event.attempt_id} no longer owns task {task.id}: it is {attempt.outcome}"
            # The second copy of a task that is done can only be taken back.
            if event.type == "attempt_succeeded" and task.status != "running":
                return f"task {task.id} is {task.status}: {event.type} does not follow"
    return None


def apply(state: State, event: Event, now: float) -> None:
    """Make an event happen. Call ``refusal`` first: an event that may not happen corrupts the state."""
    match event:
        case WorkerJoined():
            state.workers[event.worker.id] = WorkerState(event.worker)
        case WorkerDraining():
            state.workers[event.worker_id].draining = True
        case WorkerLeft():
            del state.workers[event.worker_id]
        case JobSubmitted():
            state.jobs[event.job_id] = _new_job(event, now)
        case JobPublished() | JobFailed() | JobCancelled() | JobRetried():
            _apply_to_job(state, event, now)
        case _:
            job = state.jobs[event.job_id]
            _apply_to_task(state, job, job.tasks[event.task_id], event, now)


def _new_job(event: JobSubmitted, now: float) -> Job:
    segments = event.plan.segments
    tasks = {s.id: Task(s, i, set(s.depends_on)) for i, s in enumerate(segments)}
    dependents: dict[str, list[str]] = {}
    job = Job(event.job_id, event.request, event.plan, now, tasks, [s.id for s in segments], dependents)
    for task in tasks.values():
        for dependency in task.segment.depends_on:
            dependents.setdefault(dependency, []).append(task.id)
        _make_ready_unless_waiting(job, task)
    return job


def _make_ready_unless_waiting(job: Job, task: Task) -> None:
    if task.waits_for:
        task.status = "waiting"
    else:
        task.status = "ready"
        insort(job.ready, task.order)


def _wait_again(job: Job, task: Task, dependency_id: str) -> None:
    """What a task not begun depends on is rendered again. One that is done, or runs, has read it."""
    if task.status == "ready":
        job.ready.remove(task.order)
        task.status = "waiting"
    if task.status == "waiting":
        task.waits_for.add(dependency_id)


def _apply_to_job(
    state: State, event: JobPublished | JobFailed | JobCancelled | JobRetried, now: float
) -> None:
    job = state.jobs[event.job_id]
    job.status = JOB_TRANSITIONS[job.status, event.type]
    job.finished_at = None if job.status == "running" else now
    match event:
        case JobPublished():
            job.published = event
        case JobFailed():
            job.reason = event.reason
        case JobRetried():
            job.reason = ""
            for task in job.tasks.values():
                task.failures.clear()


def _apply_to_task(state: State, job: Job, task: Task, event: Event, now: float) -> None:
    match event:
        case TaskAssigned():
            _assign(state, job, task, event, now)
        case AttemptSucceeded():
            attempt = _end_attempt(state, job, task, event.attempt_id, "succeeded")
            attempt.wall_s, attempt.load_s = event.wall_s, event.load_s
            attempt.peak_bytes = event.peak_bytes
            task.status = "done"
            task.artifacts[task.take] = event.artifact
            job.num_done += 1
            worker = state.workers.get(attempt.worker_id)
            if worker is not None:
                kind = worker.worker.kind
                render_s = event.wall_s - event.load_s
                state.profiles.learn_success(
                    job.plan, task.segment, attempt, kind, render_s=render_s, load_s=event.load_s
                )
            for dependent_id in job.dependents.get(task.id, ()):
                dependent = job.tasks[dependent_id]
                dependent.waits_for.discard(task.id)
                if dependent.status == "waiting":
                    _make_ready_unless_waiting(job, dependent)
        case AttemptFailed():
            attempt = _end_attempt(state, job, task, event.attempt_id, event.kind)
            attempt.message = event.message
            if event.kind not in ("cancelled", "coordinator_restart"):
                task.failures.append(Failure(attempt.worker_id, event.kind, event.message))
            if event.kind == "oom":
                worker = state.workers.get(attempt.worker_id)
                if worker is not None:
                    held = worker.worker.vram_bytes
                    state.profiles.learn_oom(job.plan, task.segment, attempt.rung, worker.worker.kind, held)
            if task.status == "running" and not task.running_attempts:
                _make_ready_unless_waiting(job, task)
        case ResultRefused():
            job.num_refused += 1
        case SeamMeasured():
            job.seams.setdefault(task.id, Seam()).measured[event.take] = event
        case SeamAccepted():
            job.seams.setdefault(task.id, Seam()).accepted_take = event.take
        case TaskReopened():
            task.take = event.take
            task.failures.clear()
            job.num_done -= 1
            task.waits_for = {d for d in task.segment.depends_on if job.tasks[d].status != "done"}
            _make_ready_unless_waiting(job, task)
            for dependent_id in job.dependents.get(task.id, ()):
                _wait_again(job, job.tasks[dependent_id], task.id)


def _assign(state: State, job: Job, task: Task, event: TaskAssigned, now: float) -> None:
    if task.status == "ready":
        job.ready.remove(task.order)
    task.status = "running"
    task.attempts.append(
        Attempt(
            id=event.attempt_id,
            worker_id=event.worker_id,
            rung=event.rung,
            need_bytes=event.need_bytes,
            predicted_s=event.predicted_s,
            why=event.why,
            take=task.take,
            started_at=now,
            heard_at=now,
        )
    )
    job.num_running += 1
    worker = state.workers.get(event.worker_id)
    if worker is not None:
        worker.attempts[event.attempt_id] = (job.id, task.id)
        worker.warm_model = job.plan.model


def _end_attempt(state: State, job: Job, task: Task, attempt_id: str, outcome: str) -> Attempt:
    attempt = next(a for a in reversed(task.attempts) if a.id == attempt_id)
    attempt.outcome = outcome
    job.num_running -= 1
    worker = state.workers.get(attempt.worker_id)
    if worker is not None:
        worker.attempts.pop(attempt_id, None)
    return attempt
