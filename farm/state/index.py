"""What the schedule would look for in the whole farm, kept ready: workers in columns, jobs in turn.

It follows from the state alone: it is made of a state when it is first asked for, and every event changes it
where the event changed the state. A journal is replayed without it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import takewhile

from farm.state.events import (
    AttemptFailed,
    AttemptSucceeded,
    Event,
    JobDeleted,
    TaskAssigned,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
)
from farm.state.fleet import Fleet, TaskClass
from farm.state.state import Job, State
from farm.state.turns import Turns
from farm.state.workers import Telemetry, as_others_leave


class Index:
    """Of one state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.fleet = Fleet(state)
        self._classes: dict[str, dict[int, TaskClass]] = {}
        self.turns = Turns(state, self.class_of)
        for job in state.jobs.values():
            self._know(job)

    def class_of(self, job: Job, kind: int) -> TaskClass:
        """The class of a job's tasks of this kind (of its outline)."""
        known = self._classes.setdefault(job.id, {})
        if kind not in known:
            known[kind] = self.fleet.class_of(job.plan, job.outline.samples[kind])
        return known[kind]

    def note(self, event: Event) -> None:
        """An event happened; the state has it already."""
        if isinstance(event, TaskAssigned):
            if event.worker_id in self._state.workers:
                self.fleet.read(event.worker_id)
                self.fleet.warmed(event.worker_id)
        elif isinstance(event, AttemptSucceeded | AttemptFailed):
            self._ended(event)
        else:
            self._note_rare(event)
        job_id = getattr(event, "job_id", None)
        if job_id is not None:
            job = self._state.jobs.get(job_id)
            if job is not None:
                if job.id not in self._classes:
                    self._know(job)
                self.turns.changed(job)
            if job is None or job.status != "running":
                self._let_go(job_id)

    def _note_rare(self, event: Event) -> None:
        match event:
            case WorkerJoined(worker=worker):
                self.fleet.join(worker.id)
            case WorkerLeft(worker_id=worker_id):
                self.fleet.leave(worker_id)
            case WorkerDraining(worker_id=worker_id) | WorkerEnabled(worker_id=worker_id):
                if worker_id in self._state.workers:
                    self.fleet.read(worker_id)
                    self.fleet.speed_changed(worker_id)
            case JobDeleted(job_id=job_id):
                self.turns.gone(job_id)

    def _ended(self, event: AttemptSucceeded | AttemptFailed) -> None:
        job = self._state.jobs[event.job_id]
        task = job.tasks[event.task_id]
        attempt = task.attempt(event.attempt_id)
        assert attempt is not None, "it has just ended"
        if attempt.worker_id in self._state.workers:
            self.fleet.read(attempt.worker_id)
            if isinstance(event, AttemptSucceeded):
                model = job.pace(task, self._state.workers[attempt.worker_id].worker.kind).model
                self.fleet.measured(attempt.worker_id, model, loaded=event.load_s > 0)
        if isinstance(event, AttemptFailed) and event.kind == "oom":
            self.fleet.needs_changed(job.plan.rendered_as(task.segment).loaded_as)

    def _know(self, job: Job) -> None:
        """Of what runs the classes are there, too: a second copy may be made of it."""
        if job.status == "running":
            for task_id in job.running_tasks:
                self.class_of(job, job.outline.kinds[job.tasks[task_id].order])

    def _let_go(self, job_id: str) -> None:
        if self._classes.pop(job_id, None):
            self.fleet.keep_classes({id(c) for known in self._classes.values() for c in known.values()})


def index_of(state: State) -> Index:
    """The index of a state, made now where nobody has asked before."""
    if not isinstance(state.index, Index):
        state.index = Index(state)
    return state.index


def happened(state: State, event: Event) -> None:
    """Keep the index, where there is one, as the state is now."""
    if isinstance(state.index, Index):
        state.index.note(event)


def told_models(state: State, worker_id: str, models: Mapping[str, int]) -> None:
    """A worker has told what models are on its machine's disk, by name, with their bytes: all workers of that
    machine have them."""
    if worker_id not in state.workers:
        return
    fleet = index_of(state).fleet
    node = f"{state.workers[worker_id].worker.node}/"
    for other_id in takewhile(lambda each: each.startswith(node), fleet.ids[bisect_left(fleet.ids, node) :]):
        if state.workers[other_id].models != models:
            state.workers[other_id].models = models
            fleet.speed_changed(other_id)


def heard(state: State, attempt_id: str, phase: str, done_fraction: float | None, monotonic_s: float) -> None:
    """An attempt has told how far it is; ``done_fraction``: of its steps, None before and after them."""
    found = state.find(attempt_id)
    if found is None:
        return
    attempt = found[2]
    handed_over = attempt.handing_over
    attempt.phase, attempt.heard_at = phase, monotonic_s
    if done_fraction is not None:
        attempt.denoising_since = attempt.denoising_since or monotonic_s
        attempt.done_fraction = done_fraction
    worker = state.workers.get(attempt.worker_id)
    if isinstance(state.index, Index) and worker is not None and attempt_id in worker.attempts:
        if attempt.handing_over and not handed_over:
            state.index.fleet.read(attempt.worker_id)  # it may be given the next
        elif not attempt.handing_over:
            state.index.fleet.hear(attempt)


def noticed(state: State, telemetry: Telemetry, at: float) -> bool:
    """A device was looked at, ``at`` in seconds since the epoch. Whether something else fits there now."""
    worker = state.workers.get(telemetry.worker_id)
    if worker is None:
        return False
    worker.telemetry, worker.telemetry_at = telemetry, at
    usable = as_others_leave(worker.worker, telemetry)
    if usable == worker.usable:
        return False
    worker.limited = None if usable == worker.worker else usable
    if isinstance(state.index, Index):
        state.index.fleet.speed_changed(telemetry.worker_id)
    return True
