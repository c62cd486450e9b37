"""A farm under a virtual clock: the real ledger, state and schedule; cards, failures and people are drawn."""

from __future__ import annotations

import gc
import random
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from types import MappingProxyType

from benchmarks.simulated.audit import Audit
from farm.capabilities.engine_spec import Rung
from farm.capabilities.worker import Worker, fitting_rungs
from farm.planning.plan import Plan, Segment
from farm.planning.predict import longest_path
from farm.scheduling.retry import StopJob, after_failure
from farm.scheduling.schedule import MAX_ASSIGNMENTS, Assignment, schedule
from farm.state.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    FailureKind,
    JobFailed,
    JobPublished,
    JobSubmitted,
    TaskAssigned,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
)
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from farm.state.state import Job

#: Seconds of a window of eight frames on the fastest card.
WINDOW_S = 10.0
#: A worker that was lost is a fresh process after this long, and has its model loaded so much later.
AWAY_S, LOAD_S = 10.0, 5.0
#: A drained one is enabled after this long.
DRAINED_S = 30.0
#: Where nothing else happens, the schedule is asked this often while somebody idles: for second copies.
TICK_S = 1.0
#: Decisions between two words of how far it is.
TELL_EVERY = 50_000


@dataclass(frozen=True)
class Weather:
    """What goes wrong, as shares of all attempts."""

    lost: float = 0.0
    error: float = 0.0
    #: Takes four times as long.
    straggles: float = 0.0
    #: Its worker is drained meanwhile, and enabled again later.
    drains: float = 0.0
    #: Times are drawn this far around what they are on the mean.
    noise: float = 0.05


@dataclass
class Told:
    """What a simulation has come to."""

    decisions: int = 0
    copies: int = 0
    calls_s: array[float] = field(default_factory=lambda: array("d"))
    #: CPU seconds of the schedule and of recording.
    schedule_s: float = 0.0
    record_s: float = 0.0
    #: Of ``record_s`` no part: submitting.
    submit_s: float = 0.0
    #: The longest that the garbage collector stopped everything.
    gc_s: float = 0.0
    kills: int = 0

    def note_gc(self, phase: str, info: dict[str, int]) -> None:
        """For ``gc.callbacks``."""
        if phase == "start":
            self._gc_began = time.process_time()
        else:
            self.gc_s = max(self.gc_s, time.process_time() - self._gc_began)


class Simulation:
    """``audit`` is called after every event, with it."""

    def __init__(
        self,
        folder: Path,
        workers: dict[Worker, float],
        jobs: Sequence[tuple[float, JobSubmitted]],
        *,
        seed: int = 0,
        weather: Weather = Weather(),
        audit: Audit | None = None,
        kills: frozenset[int] = frozenset(),
        joins: Mapping[str, float] = MappingProxyType({}),
        leaves: Mapping[str, float] = MappingProxyType({}),
        at_most: int | None = None,
    ) -> None:
        """``joins``: those that come later, and when; ``leaves``: who goes for good."""
        self.now = 0.0
        self.path = folder / "journal.sqlite"
        self.ledger = self._open()
        self.told = Told()
        self._slower = {worker.id: slower for worker, slower in workers.items()}
        self.workers = {worker.id: worker for worker in workers}
        self._seed = seed
        self._weather, self._audit, self._kills, self._at_most = weather, audit, kills, at_most
        self._num_events = self._tie = 0
        self._kill_due = False
        #: (when, tie, what happens then)
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._ticking = False
        #: Of attempts that succeeded: how long they took together, and when the last one ended.
        self.worked_s = self.done_at = 0.0
        self._unit_s = WINDOW_S / jobs[0][1].plan.timed_units(jobs[0][1].plan.segments[0], "cuda")
        self._artifact = Artifact(sha256="0" * 64, size_bytes=1, num_frames=8, frames_sha256="0" * 64)
        self._gone: set[str] = set()
        for worker in workers:
            if worker.id not in joins:
                self.record(WorkerJoined(worker=worker))
        for worker_id, at in joins.items():
            self._at(at, lambda worker_id=worker_id: self._come(worker_id))
        for worker_id, at in leaves.items():
            self._at(at, lambda worker_id=worker_id: self._go(worker_id))
        for at, event in jobs:
            self._at(at, lambda event=event: self._submit(event))

    def measure_workers(self, example: JobSubmitted) -> None:
        """Have every worker rendered one window before, so that its speed is known: a farm in use."""
        made = example.model_copy(update={"job_id": "before"})
        self.record(made)
        job = self.ledger.state.jobs["before"]
        for worker_id, task in zip(self.workers, list(job.tasks.values()), strict=False):
            rung = self.held(job.plan, task.segment, worker_id)
            assert rung is not None, "the example fits every card"
            took = self.seconds(job.plan, task.segment, worker_id, rung)
            attempt = {"job_id": job.id, "task_id": task.id, "attempt_id": job.attempt_id(task)}
            given = {"worker_id": worker_id, "rung": rung, "need_bytes": 0, "predicted_s": took, "why": ""}
            self.record(TaskAssigned(**attempt, **given))
            self._succeed(attempt, took, 0.0)
        self.record(JobFailed(job_id="before", reason="was made to measure"))

    def run(self, tell: Callable[[], None] | None = None) -> None:
        """Until nothing is left to do, or so many decisions were made.

        ``tell`` is called every ``TELL_EVERY`` decisions.
        """
        told_at = 0
        gc.callbacks.append(self.told.note_gc)
        while self._coming and (self._at_most is None or self.told.decisions < self._at_most):
            self.now, _, happens = heappop(self._coming)
            self._turn(happens)
            if self._kill_due:
                self._kill()
                self._turn(lambda: None)
            if tell is not None and self.told.decisions - told_at >= TELL_EVERY:
                told_at = self.told.decisions
                tell()
        gc.callbacks.remove(self.told.note_gc)

    def _turn(self, happens: Callable[[], None]) -> None:
        """What the coordinator does for one message, written in one go as there."""
        with ExitStack() as written:
            written.enter_context(self.ledger.together())
            happens()
            self._dispatch()
            started = time.process_time()
        self.told.record_s += time.process_time() - started

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return all(job.status != "running" for job in self.ledger.state.jobs.values())

    def record(self, event: Event) -> None:
        started = time.process_time()
        self.ledger.record(event)
        self.told.record_s += time.process_time() - started
        self._num_events += 1
        if self._audit is not None:
            self._audit(self.ledger.state, event)
        self._kill_due |= self._num_events in self._kills

    # What happens.

    def _submit(self, event: JobSubmitted) -> None:
        before = self.told.record_s
        self.record(event)
        self.told.submit_s += self.told.record_s - before
        self.told.record_s = before

    def _dispatch(self) -> None:
        while not self._kill_due:
            started = time.process_time()
            assignments = schedule(self.ledger.state, self.now)
            took = time.process_time() - started
            self.told.calls_s.append(took)
            self.told.schedule_s += took
            for assignment in assignments:
                if not self._kill_due:  # else what was decided dies with the coordinator
                    self._start(assignment)
            if len(assignments) < MAX_ASSIGNMENTS:
                break
        if not self._ticking and self._coming:
            self._ticking = True
            self._at(self.now + TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False

    def _start(self, a: Assignment) -> None:
        state = self.ledger.state
        job = state.jobs[a.job_id]
        task = job.tasks[a.task_id]
        self.told.decisions += 1
        self.told.copies += task.status == "running"
        warm = state.workers[a.worker_id].warm_model == job.plan.rendered_as(task.segment).loaded_as
        load_s = 0.0 if warm else LOAD_S
        attempt = {"job_id": job.id, "task_id": task.id, "attempt_id": job.attempt_id(task)}
        self.record(
            TaskAssigned(
                **attempt,
                worker_id=a.worker_id,
                rung=a.rung,
                need_bytes=a.need_bytes,
                predicted_s=a.predicted_s,
                why=a.why,
            )
        )
        draw, weather = random.Random(f"{self._seed}/{attempt['attempt_id']}"), self._weather
        took = load_s + self.seconds(job.plan, task.segment, a.worker_id, a.rung) * (
            4.0 if draw.random() < weather.straggles else 1 + weather.noise * (2 * draw.random() - 1)
        )
        fate = draw.random()
        if fate < weather.lost:
            self._at(self.now + took / 2, lambda: self._lose(a.worker_id, attempt["attempt_id"]))
        elif fate < weather.lost + weather.error:
            self._at(self.now + took / 2, lambda: self._fail(attempt["attempt_id"], "error"))
        else:
            self._at(self.now + took, lambda: self._end(attempt, took, load_s))
        if draw.random() < weather.drains:
            self._at(self.now + took / 2, lambda: self._drain(a.worker_id))

    def _end(self, attempt: dict[str, str], took: float, load_s: float) -> None:
        found = self.ledger.state.find(attempt["attempt_id"])
        if found is None or not found[2].running:
            return  # taken back
        job, task, _ = found
        self.worked_s += took
        self.done_at = self.now
        self._succeed(attempt, took, load_s)
        self._let_go(found[2].worker_id)
        for other in task.running_attempts:
            self._fail(other.id, "cancelled")
        if job.num_done == len(job.tasks) and job.status == "running":
            done = {"num_frames": job.plan.num_frames, "frames_sha256": "0" * 64, "size_bytes": 1}
            self.record(JobPublished(job_id=job.id, **done, stitch_s=1.0))

    def _succeed(self, attempt: dict[str, str], took: float, load_s: float) -> None:
        self.record(
            AttemptSucceeded(**attempt, artifact=self._artifact, wall_s=took, load_s=load_s, peak_bytes=None)
        )

    def _fail(self, attempt_id: str, kind: FailureKind) -> None:
        found = self.ledger.state.find(attempt_id)
        if found is None or not found[2].running:
            return
        job, task, _ = found
        self.record(
            AttemptFailed(job_id=job.id, task_id=task.id, attempt_id=attempt_id, kind=kind, message="drawn")
        )
        self._let_go(found[2].worker_id)
        if kind != "cancelled" and isinstance(after_failure(self.ledger.state, job, task), StopJob):
            self._stop(job)

    def _stop(self, job: Job) -> None:
        self.record(JobFailed(job_id=job.id, reason="drawn"))
        for task_id in list(job.running_tasks):
            for attempt in job.tasks[task_id].running_attempts:
                self._fail(attempt.id, "cancelled")

    def _lose(self, worker_id: str, attempt_id: str) -> None:
        found = self.ledger.state.find(attempt_id)
        if found is not None and found[2].running:
            self._leave(worker_id)
            self._at(self.now + AWAY_S, lambda: self._come(worker_id))

    def _leave(self, worker_id: str) -> None:
        worker = self.ledger.state.workers.get(worker_id)
        if worker is not None:
            lost = list(worker.attempts)
            self.record(WorkerLeft(worker_id=worker_id, reason="drawn"))
            for attempt_id in lost:
                self._fail(attempt_id, "lost")

    def _go(self, worker_id: str) -> None:
        self._gone.add(worker_id)
        self._leave(worker_id)

    def _come(self, worker_id: str) -> None:
        if worker_id not in self.ledger.state.workers and worker_id not in self._gone:
            self.record(WorkerJoined(worker=self.workers[worker_id]))
            self._let_go(worker_id)

    def _drain(self, worker_id: str) -> None:
        worker = self.ledger.state.workers.get(worker_id)
        if worker is not None and not worker.draining:
            self.record(WorkerDraining(worker_id=worker_id))
            self._let_go(worker_id)
            self._at(self.now + DRAINED_S, lambda: self._enable(worker_id))

    def _let_go(self, worker_id: str) -> None:
        """A drained worker ends its process once it has nothing to do."""
        worker = self.ledger.state.workers.get(worker_id)
        if worker is not None and worker.draining and not worker.attempts:
            self.record(WorkerLeft(worker_id=worker_id, reason="is drained"))

    def _enable(self, worker_id: str) -> None:
        state = self.ledger.state
        if worker_id in state.drained or worker_id in state.workers:
            self.record(WorkerEnabled(worker_id=worker_id))
            self._at(self.now + AWAY_S, lambda: self._come(worker_id))
        elif worker_id not in self._gone:  # lost meanwhile: it comes back as one that is to be drained
            self._at(self.now + AWAY_S, lambda: self._enable(worker_id))

    def _kill(self) -> None:
        """The coordinator dies between two events; the next one has the journal, and workers come back."""
        before = self.ledger
        before.journal.close()
        self.ledger = self._open()
        self.ledger.replay()
        assert self.ledger.state == before.state, "a replay gives another state"
        decided = schedule(before.state, self.now)
        assert schedule(self.ledger.state, self.now) == decided, "a replay decides otherwise"
        self._kill_due = False
        self.told.kills += 1
        here = list(self.ledger.state.workers)
        with self.ledger.watch() as recorded:
            self.ledger.recover(lambda artifact: True)
            while self._audit is not None and not recorded.empty():
                self._audit.note(self.ledger.state, recorded.get_nowait()[2])
        for worker_id in here:
            self._at(self.now, lambda worker_id=worker_id: self._come(worker_id))

    def _open(self) -> Ledger:
        return Ledger(Journal(self.path), clock=lambda: self.now, monotonic=lambda: self.now)

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        self._tie += 1
        heappush(self._coming, (when, self._tie, happens))

    # What is true, and the farm does not know.

    def held(self, made: Plan, segment: Segment, worker_id: str) -> Rung | None:
        """The fastest rung that fits there."""
        fitting = fitting_rungs(made.footprint(segment, "cuda").needs, self.workers[worker_id])
        return fitting[0] if fitting else None

    def seconds(self, made: Plan, segment: Segment, worker_id: str, rung: Rung) -> float:
        slowdown = made.footprint(segment, "cuda").slowdown[rung]
        return self._slower[worker_id] * self._unit_s * made.timed_units(segment, "cuda") * slowdown

    def bound_s(self, jobs: Sequence[tuple[float, JobSubmitted]]) -> float:
        """No schedule is done sooner: all work over all speed, or the longest chain on the fastest."""
        total = chain = 0.0
        rates: dict[str, float] = dict.fromkeys(self.workers, 0.0)
        for at, event in jobs:
            made = event.plan
            slowest = {
                worker.vram_bytes: min(
                    (made.on["cuda"].slowdown[r] for r in fitting_rungs(made.on["cuda"].needs, worker)),
                    default=float("inf"),
                )
                for worker in self.workers.values()
            }
            for worker_id, worker in self.workers.items():
                rates[worker_id] = max(
                    rates[worker_id],
                    1 / (self._slower[worker_id] * self._unit_s * slowest[worker.vram_bytes]),
                )
            total += sum(made.timed_units(s, "cuda") for s in made.segments)
            chain = max(
                chain,
                at + longest_path(made, lambda s: self._unit_s * made.timed_units(s, "cuda")),  # noqa: B023
            )
        return max(total / sum(rates.values()), chain)
