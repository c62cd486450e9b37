"""The farm's state: jobs, tasks, attempts, seams and workers. Only ``farm.state.changes`` writes it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from sys import intern

from farm.capabilities import DeviceKind, Rung, Worker
from farm.planning import Keyframe, Outline, Plan, Segment, keyframes, outline
from farm.request import JobRequest, MediaInfo
from farm.state.events import Artifact, FailureKind, JobPublished, JobSubmitted, SeamMeasured
from farm.state.profiles import Pace, Profiles, pace
from farm.state.transitions import JobStatus, TaskStatus
from farm.state.workers import NodeState, WorkerState

#: For all that wait for nothing: an empty set takes as much memory as a segment's other lists together.
NOTHING: frozenset[str] = frozenset()
NO_SEEDS: Mapping[int, int] = {}
#: What windows wait for beside segments, until their job's keyframes were looked at.
REVIEW = "review"
#: Of a task's attempts that ended without a result, so many of the newest are known whole.
KEPT_ATTEMPTS = 8


def attempt_ids(attempt_id: str) -> dict[str, str]:
    """Job, task and attempt of an attempt's id, as log records carry them."""
    job_id, task_id, _ = attempt_id.split("/")
    return {"job_id": job_id, "task_id": task_id, "attempt_id": attempt_id}


@dataclass(slots=True)
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
    ended_at: float | None = None
    #: Of the worker, when it was given the task.
    price_per_hour: float | None = None
    # Watched, not journaled: lost with the coordinator, and worth nothing without the attempt. Times are of
    # the ledger's monotonic clock: nothing is waited for by a clock that people set.
    phase: str = field(default="load", compare=False)
    done_fraction: float = field(default=0.0, compare=False)
    given_at: float = field(default=0.0, compare=False)
    #: When its first step began.
    denoising_since: float | None = field(default=None, compare=False)
    heard_at: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:  # of a million, few differ
        self.worker_id, self.why = intern(self.worker_id), intern(self.why)

    @property
    def running(self) -> bool:
        return self.outcome == "running"

    @property
    def handing_over(self) -> bool:
        """Its frames are rendered: they are packed and sent, while its worker may render others."""
        return self.running and self.phase == "transfer"


@dataclass(slots=True)
class EarlierAttempts:
    """What is still known of a task's older attempts that ended without a result."""

    #: How many, by worker and how they ended.
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Seconds from their beginnings to their ends, together.
    held_s: float = 0.0

    @property
    def count(self) -> int:
        return self.outcomes.total()


@dataclass(frozen=True, slots=True)
class Failure:
    worker_id: str
    kind: FailureKind
    message: str


@dataclass(slots=True)
class Task:
    """One segment's way through the farm."""

    segment: Segment
    order: int
    waits_for: frozenset[str]
    status: TaskStatus = "waiting"
    take: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    #: Those that ``attempts`` tells no more of, where there were many.
    earlier: EarlierAttempts | None = None
    failures: list[Failure] = field(default_factory=list)
    #: Of takes that were rendered with another seed than the job's; shared where there are none.
    seeds: Mapping[int, int] = field(default_factory=lambda: NO_SEEDS)
    #: Finished takes, by number.
    artifacts: dict[int, Artifact] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.segment.id

    def attempt(self, attempt_id: str) -> Attempt | None:
        """The attempt of that id; the newest are looked at first."""
        for attempt in reversed(self.attempts):
            if attempt.id == attempt_id:
                return attempt
        return None

    @property
    def num_attempts(self) -> int:
        """Those that are only counted included."""
        return len(self.attempts) + (self.earlier.count if self.earlier else 0)

    def begin(self, attempt: Attempt) -> None:
        """One attempt more; of old ones that ended without a result only the count stays."""
        self.attempts.append(attempt)
        if len(self.attempts) <= KEPT_ATTEMPTS:
            return
        vain = [a for a in self.attempts if a.outcome not in ("running", "succeeded")]
        for old in vain[:-KEPT_ATTEMPTS]:
            self.earlier = self.earlier or EarlierAttempts()
            self.earlier.outcomes[old.worker_id, old.outcome] += 1
            self.earlier.held_s += max(0.0, (old.ended_at or old.started_at) - old.started_at)
            self.attempts.remove(old)

    @property
    def running_attempts(self) -> list[Attempt]:
        return [a for a in self.attempts if a.running]

    @property
    def artifact(self) -> Artifact | None:
        return self.artifacts.get(self.take)

    @property
    def seed(self) -> int | None:
        """Of the present take; None: the job's."""
        return self.seeds.get(self.take)

    @property
    def next_take(self) -> int:
        """A take that was never rendered."""
        return max(self.take, *self.artifacts, 0) + 1


@dataclass
class Seam:
    """The join before a segment: what every take of it measured, and the one that was kept."""

    measured: dict[int, SeamMeasured] = field(default_factory=dict)
    accepted_take: int | None = None
    #: The segment before was rendered again on demand; this one stays as it is, whatever the seam measures.
    keeps_segment: bool = False

    @property
    def passed(self) -> bool:
        """Whether the take that was kept, or else the newest measured one, passed its gates."""
        kept = max(self.measured) if self.accepted_take is None else self.accepted_take
        return self.measured[kept].passed


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
    #: Numbers of the ready tasks, in plan order; the same by their kind (of its outline), and those of them
    #: that were tried and failed.
    ready: list[int] = field(default_factory=list)
    ready_of: dict[int, list[int]] = field(default_factory=dict)
    ready_failed: set[int] = field(default_factory=set)
    num_done: int = 0
    num_running: int = 0
    num_refused: int = 0
    #: Tasks with an attempt that runs; one that another copy has just finished is among them.
    running_tasks: set[str] = field(default_factory=set)
    #: Seams that were measured, and those of them whose kept or newest take failed its gates.
    measured_seams: set[str] = field(default_factory=set)
    failed_seams: set[str] = field(default_factory=set)
    #: Of the attempts that ended; None once one was made on a worker without a price.
    cost: float | None = 0.0
    seams: dict[str, Seam] = field(default_factory=dict)
    published: JobPublished | None = None
    finished_at: float | None = None
    submitted_by: str = ""
    submitted_by_id: str = ""
    remixed_from: str | None = None
    #: Sequence numbers of its first and its newest event (see ``Ledger``).
    first_seq: int = 0
    last_seq: int = 0
    #: Attempts at a segment that a deleted job of this id had at most: theirs are told apart from this one's.
    attempts_before: int = 0

    #: Its keyframes were looked at; says nothing where nobody asked for that.
    approved: bool = False
    #: Its user was told that they are there, and none was made again since.
    review_told: bool = False
    #: Pictures that stand for keyframes, by segment and position.
    pictures: dict[tuple[str, int], MediaInfo] = field(default_factory=dict)

    #: When its video was last predicted to be done: (worked out at, done at). See ``farm.reporting``.
    forecast: tuple[float, float | None] | None = field(default=None, compare=False)
    _paces: dict[tuple[int, DeviceKind], Pace] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def outline(self) -> Outline:
        return outline(self.plan)

    def pace(self, task: Task, kind: DeviceKind) -> Pace:
        """What the time of a task on one kind of worker is worked out from."""
        key = (self.outline.kinds[task.order], kind)
        if key not in self._paces:
            self._paces[key] = pace(self.plan, task.segment, kind)
        return self._paces[key]

    @cached_property
    def keyframes(self) -> tuple[Keyframe, ...]:
        return keyframes(self.plan)

    @property
    def person(self) -> str:
        """Who asked for it; those of whom nothing is known are one."""
        return self.submitted_by_id or self.submitted_by

    @property
    def held(self) -> bool:
        """None of its windows may be rendered yet."""
        return self.plan.review and not self.approved

    @property
    def awaits_review(self) -> bool:
        """Nothing is left to do before somebody has looked at its keyframes."""
        num_before = len(self.tasks) - len(self.outline.finals) if self.held else 0
        return self.held and self.status == "running" and self.num_done == num_before

    def seam_changed(self, task_id: str) -> None:
        """Keep count of a seam that was measured, accepted or forgotten."""
        seam = self.seams.get(task_id)
        self.measured_seams.discard(task_id)
        self.failed_seams.discard(task_id)
        if seam is not None and seam.measured:
            self.measured_seams.add(task_id)
            if not seam.passed:
                self.failed_seams.add(task_id)

    def attempt_id(self, task: Task) -> str:
        """Of the task's next attempt."""
        return f"{self.id}/{task.id}/{self.attempts_before + task.num_attempts + 1}"

    def queue(self, task: Task) -> None:
        """Let a task be scheduled, now or when what it waits for is done."""
        if task.waits_for:
            task.status = "waiting"
        else:
            task.status = "ready"
            insort(self.ready, task.order)
            insort(self.ready_of.setdefault(self.outline.kinds[task.order], []), task.order)
            if task.failures:
                self.ready_failed.add(task.order)

    def unqueue(self, task: Task) -> None:
        """Take a ready task back from the queue."""
        self.dequeue(task)
        task.status = "waiting"

    def dequeue(self, task: Task) -> None:
        """A ready task is none any more."""
        for ready in (self.ready, self.ready_of[self.outline.kinds[task.order]]):
            del ready[bisect_left(ready, task.order)]
        self.ready_failed.discard(task.order)

    def wait_again(self, task: Task, dependency_id: str) -> None:
        """What a task not begun depends on is rendered again. One that is done, or runs, has read it."""
        if task.status == "ready":
            self.unqueue(task)
        if task.status == "waiting":
            task.waits_for |= {dependency_id}

    def undone(self, task_ids: Iterable[str]) -> frozenset[str]:
        """Those of these tasks that are not done."""
        return frozenset(task_id for task_id in task_ids if self.tasks[task_id].status != "done") or NOTHING

    def kept_take(self, task: Task) -> int:
        """The take that is joined: the one its seam was accepted with, or the newest."""
        seam = self.seams.get(task.id)
        return task.take if seam is None or seam.accepted_take is None else seam.accepted_take


@dataclass
class State:
    jobs: dict[str, Job] = field(default_factory=dict)
    #: By name, the machines that were let in; not the coordinator's own.
    nodes: dict[str, NodeState] = field(default_factory=dict)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    #: Workers whose process has ended after a drain; they come back when they are enabled.
    drained: dict[str, Worker] = field(default_factory=dict)
    #: Enabled workers whose process is not up yet.
    starting: dict[str, Worker] = field(default_factory=dict)
    #: Attempts at a segment of each deleted job, at most.
    deleted: dict[str, int] = field(default_factory=dict)
    #: How many inputs and results are this content of the storage, by SHA-256.
    blob_uses: Counter[str] = field(default_factory=Counter)
    #: Content that a job had and none has any more: what may be removed from the storage.
    dropped_blobs: set[str] = field(default_factory=set)
    #: Names of those that restrict use and were accepted.
    accepted_licences: set[str] = field(default_factory=set)
    profiles: Profiles = field(default_factory=Profiles)
    #: What makes the schedule fast; made when it is first asked for (``farm.state.index``).
    index: object = field(default=None, compare=False, repr=False)

    @property
    def models(self) -> list[str]:
        """The models of its jobs, by name or folder."""
        return sorted({job.plan.model for job in self.jobs.values()})

    def find(self, attempt_id: str) -> Found | None:
        """An attempt and what it is of; None where its job is deleted."""
        ids = attempt_ids(attempt_id)
        job = self.jobs.get(ids["job_id"])
        task = job.tasks.get(ids["task_id"]) if job else None
        if job is None or task is None:
            return None
        attempt = task.attempt(attempt_id)
        return (job, task, attempt) if attempt else None

    def running_on(self, worker: WorkerState) -> Iterator[Found]:
        """What a worker does."""
        for attempt_id, (job_id, task_id) in worker.attempts.items():
            job = self.jobs[job_id]
            attempt = job.tasks[task_id].attempt(attempt_id)
            assert attempt is not None, "a worker's attempts are its tasks'"
            yield job, job.tasks[task_id], attempt


Found = tuple[Job, Task, Attempt]


def new_job(event: JobSubmitted, at: float) -> Job:
    """As it is submitted: what waits for nothing is ready."""
    segments = event.plan.segments
    tasks = {s.id: Task(s, i, frozenset(s.depends_on) or NOTHING) for i, s in enumerate(segments)}
    for task in tasks.values() if event.plan.review else ():
        task.waits_for |= {REVIEW} if task.segment.level == "final" else NOTHING
    job = Job(
        id=event.job_id,
        request=event.request,
        plan=event.plan,
        submitted_at=at,
        tasks=tasks,
        order=[s.id for s in segments],
        dependents={},
        submitted_by=event.submitted_by,
        submitted_by_id=event.submitted_by_id,
        remixed_from=event.remixed_from,
    )
    for task in tasks.values():
        for dependency in task.segment.depends_on:
            job.dependents.setdefault(dependency, []).append(task.id)
        job.queue(task)
    return job


def input_hashes(job: Job) -> set[str]:
    """SHA-256 of a job's inputs."""
    return {media.sha256 for media in job.request.files}


def blob_hashes(job: Job) -> Iterator[str]:
    """SHA-256 of everything a job has in the storage; once for each time it has it."""
    yield from input_hashes(job)
    yield from (media.sha256 for media in job.pictures.values())
    for task in job.tasks.values():
        for artifact in task.artifacts.values():
            yield from artifact.hashes
