"""A journal replayed gives the state it was written from, whatever happened."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from farm.scheduling.schedule import schedule
from farm.state.changes import refusal
from farm.state.events import (
    Event,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobPrioritized,
    JobPublished,
    JobReopened,
    JobRetried,
    ResultRefused,
    SeamAccepted,
    TaskAssigned,
    TaskReopened,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
    event_adapter,
)
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from farm.state.state import Job, State, blob_hashes


def job_events(job_id: str) -> list[Event]:
    return [
        JobPublished(job_id=job_id, num_frames=18, frames_sha256="0" * 64, size_bytes=1, stitch_s=0.0),
        JobFailed(job_id=job_id, reason="three failures"),
        JobCancelled(job_id=job_id),
        JobRetried(job_id=job_id),
        JobPrioritized(job_id=job_id, priority=80),
    ]


def random_event(make: Any, rng: random.Random, state: State, number: int) -> Event:
    """Some event, legal or not."""
    job: Job = rng.choice(list(state.jobs.values()))
    task = rng.choice(list(job.tasks.values()))
    worker = f"w{rng.randint(0, 3)}/0"
    running = [a for a in task.attempts if a.running]
    attempt = {"attempt": int(running[0].id.rsplit("/", 1)[1]) if running else 1, "job": job.id}
    kind = rng.choice(("error", "lost", "oom", "stalled", "cancelled"))
    events: list[Event] = [
        WorkerJoined(worker=make.worker(worker, rng.choice((4, 8)))),
        WorkerLeft(worker_id=worker, reason="died"),
        WorkerDraining(worker_id=worker, leaving=rng.random() < 0.5),
        WorkerEnabled(worker_id=worker),
        JobDeleted(job_id=job.id if len(state.jobs) > 1 else "nojob"),
        JobReopened(job_id=job.id, takes={t.id: t.next_take for t in job.tasks.values() if t.artifact}),
        make.submitted(f"job{number}", spec=make.spec(random_access=rng.random() < 0.5), num_frames=20),
        make.succeeded(task.id, **attempt, wall_s=rng.uniform(1, 20)),
        make.succeeded(task.id, **attempt, wall_s=rng.uniform(1, 20)),
        make.failed(task.id, kind, **attempt),
        make.measured(task.id, task.take, *rng.choice(((), ("mae",))), job=job.id),
        TaskReopened(job_id=job.id, task_id=task.id, take=task.take + 1, reason="seam"),
        SeamAccepted(job_id=job.id, task_id=task.id, take=task.take),
        ResultRefused(job_id=job.id, task_id=task.id, attempt_id="x", reason="late"),
        *job_events(job.id),
    ]
    assigned = [
        TaskAssigned(
            **a._asdict(),
            attempt_id=f"{a.job_id}/{a.task_id}/{len(state.jobs[a.job_id].tasks[a.task_id].attempts) + 1}",
        )
        for a in schedule(state, 0.0)
    ]
    return rng.choice(assigned if assigned and rng.random() < 0.5 else events)


@pytest.mark.parametrize("num_journals", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_replaying_a_journal_gives_an_equal_state_whatever_happened(
    make: Any, tmp_path: Path, num_journals: int
) -> None:
    types: set[str] = set()
    for seed in range(num_journals):
        rng = random.Random(seed)
        path = tmp_path / f"{seed}.sqlite"
        clock = iter(range(100_000))
        ledger = Ledger(Journal(path), clock=lambda clock=clock: float(next(clock)))  # type: ignore[misc]
        ledger.record(make.joined(make.worker("w0/0"))[0])
        ledger.record(make.submitted("job", num_frames=20))
        for number in range(150):
            event = random_event(make, rng, ledger.state, number)
            if refusal(ledger.state, event) is None:
                ledger.record(event)
                types.add(event.type)
        check_consistent(ledger.state)
        again = Ledger(Journal(path))
        again.replay()
        assert again.state == ledger.state
        again.journal.close()
        ledger.journal.close()
    assert num_journals < 20 or len(types) == 19, "every kind of event was among them"


def check_consistent(state: State) -> None:
    """The counters and indices say what the tasks say."""
    for job in state.jobs.values():
        tasks = list(job.tasks.values())
        assert job.ready == [t.order for t in tasks if t.status == "ready"]
        assert job.num_done == sum(t.status == "done" for t in tasks)
        assert job.num_running == sum(len(t.running_attempts) for t in tasks)
        assert all(t.artifact is not None for t in tasks if t.status == "done")
        assert all(bool(t.waits_for) == (t.status == "waiting") for t in tasks if t.status != "done")
    used = Counter(sha256 for job in state.jobs.values() for sha256 in blob_hashes(job))
    assert state.blob_uses == used
    assert set(state.blob_uses) == set(used), "what is used no more is not listed"
    listed = [*state.workers, *state.drained, *state.starting]
    assert len(listed) == len(set(listed)), "a worker is in one list"
    for worker in state.workers.values():
        for attempt_id, (job_id, task_id) in worker.attempts.items():
            running = state.jobs[job_id].tasks[task_id].running_attempts
            assert attempt_id in [a.id for a in running]


def test_every_event_survives_the_journals_form(make: Any) -> None:
    events: list[Event] = [
        *make.joined(make.worker("a/0")),
        make.submitted(inputs=(make.video(30),), spec=make.spec()),
        make.assigned("s0-0", "a/0"),
        make.succeeded("s0-0"),
        make.failed("s0-0", "oom"),
        make.measured("s0-1", 0, "mae"),
        TaskReopened(job_id="job", task_id="s0-0", take=1, reason="seam gates failed: mae"),
        JobReopened(job_id="job", takes={"s0-0": 2}),
        JobDeleted(job_id="job"),
        WorkerDraining(worker_id="a/0", leaving=True),
        WorkerEnabled(worker_id="a/0"),
        *job_events("job"),
    ]
    for event in events:
        assert event_adapter.validate_json(event_adapter.dump_json(event)) == event
