"""What must hold of a farm after every event, whatever happens. Raises AssertionError with the event."""

from __future__ import annotations

import copy

from farm.state.events import AttemptFailed, AttemptSucceeded, Event, TaskAssigned, WorkerJoined, WorkerLeft
from farm.state.index import index_of
from farm.state.state import State

#: A look at everything, beside what the event touched.
FULL_EVERY = 10_000


class Audit:
    """To be called after every event; ``end`` when nothing is left to do."""

    def __init__(self, full_every: int = FULL_EVERY) -> None:
        self._full_every = full_every
        self._num_events = 0
        #: What runs, by attempt: its worker. Kept beside the state, to be compared with it.
        self._running: dict[str, str] = {}
        self._here: set[str] = set()
        #: By job, of each segment: how many takes are done, a million in a few megabytes.
        self._done: dict[str, bytearray] = {}

    def __call__(self, state: State, event: Event) -> None:
        self.note(state, event)
        self._num_events += 1
        if self._num_events % self._full_every == 0:
            self.full(state)

    def note(self, state: State, event: Event) -> None:
        """What the event touched."""
        match event:
            case WorkerJoined(worker=worker):
                assert worker.id not in self._here, event
                self._here.add(worker.id)
            case WorkerLeft(worker_id=worker_id):
                self._here.discard(worker_id)
            case TaskAssigned():
                self._given(state, event)
            case AttemptSucceeded():
                assert self._running.pop(event.attempt_id), f"nobody owned it: {event}"
                job = state.jobs[event.job_id]
                task = job.tasks[event.task_id]
                done = self._done.setdefault(job.id, bytearray(len(job.tasks)))
                done[task.order] += 1
                assert done[task.order] == len(task.artifacts), f"done twice: {event}"
            case AttemptFailed():
                assert self._running.pop(event.attempt_id), f"nobody owned it: {event}"

    def _given(self, state: State, event: TaskAssigned) -> None:
        assert event.worker_id in self._here, f"to nobody: {event}"
        assert event.attempt_id not in self._running, f"twice: {event}"
        job = state.jobs[event.job_id]
        task = job.tasks[event.task_id]
        worker = state.workers[event.worker_id]
        assert list(worker.attempts) == [event.attempt_id], f"beside another: {event}"
        assert event.need_bytes <= worker.worker.vram_bytes, f"over its memory: {event}"
        assert len(task.running_attempts) <= 2, f"a third copy: {event}"
        assert all(job.tasks[d].status == "done" for d in task.segment.depends_on), f"too early: {event}"
        assert job.status == "running", f"of an ended job: {event}"
        self._running[event.attempt_id] = event.worker_id

    def full(self, state: State) -> None:
        """Everything, counted anew."""
        running = {}
        for job in state.jobs.values():
            tasks = list(job.tasks.values())
            assert job.ready == [t.order for t in tasks if t.status == "ready"], job.id
            assert sorted(n for own in job.ready_of.values() for n in own) == job.ready, job.id
            assert job.ready_failed == {n for n in job.ready if job.tasks[job.order[n]].failures}, job.id
            assert job.num_done == sum(t.status == "done" for t in tasks), job.id
            own = [attempt for task in tasks for attempt in task.running_attempts]
            assert job.num_running == len(own), job.id
            running |= {attempt.id: attempt.worker_id for attempt in own}
        assert running == self._running, "what runs is what was given and has not ended"
        for worker_id, worker in state.workers.items():
            assert all(running.get(attempt) == worker_id for attempt in worker.attempts), worker_id
        check_index(state)

    def end(self, state: State) -> None:
        """Nothing is left: of every job that was not given up, each segment is done, once."""
        self.full(state)
        assert not self._running, f"still running: {list(self._running)[:3]}"
        for job in state.jobs.values():
            assert job.status in ("succeeded", "failed"), f"{job.id} is {job.status}"
            if job.status == "succeeded":
                done = self._done[job.id]
                lost = [task_id for task_id, count in zip(job.order, done, strict=True) if not count]
                assert not lost, f"{job.id} lost {lost[:3]}"


def check_index(state: State) -> None:
    """The index that events have kept is the one that is made of the state."""
    kept = index_of(state)
    anew = copy.copy(state)
    anew.index = None
    fresh = index_of(anew)
    assert kept.fleet.ids == fresh.fleet.ids
    for name in ("idle", "busy", "has_told"):
        assert (getattr(kept.fleet, name) == getattr(fresh.fleet, name)).all(), name
    assert (kept.fleet.free_at(1e9) == fresh.fleet.free_at(1e9)).all()
    for key, known in fresh.fleet.classes.items():
        assert (kept.fleet.classes[key].run_s == known.run_s).all(), known.model
    for level, people in fresh.turns.levels.items():
        listed = {person: [(n, job) for n, _, job in jobs] for person, jobs in people.items()}
        assert listed == {p: [(n, job) for n, _, job in own] for p, own in kept.turns.levels[level].items()}
    assert set(kept.turns.levels) == set(fresh.turns.levels)
    assert +kept.turns.running == +fresh.turns.running
