"""An event is checked, journaled, applied and told, in that order; a restart finds it all again."""

from __future__ import annotations

import asyncio
import gc
import itertools
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun, NotFound
from farm.scheduling.schedule import schedule
from farm.state.events import (
    AttemptFailed,
    JobCancelled,
    JobPublished,
    SeamAccepted,
    TaskReopened,
    WorkerLeft,
)
from farm.state.journal import Journal
from farm.state.ledger import LARGE_JOB, Ledger


def ledger_at(path: Path) -> Ledger:
    ticks = itertools.count(100)
    return Ledger(Journal(path / "journal.sqlite"), clock=lambda: float(next(ticks)))


def published(job: str = "job") -> JobPublished:
    return JobPublished(job_id=job, num_frames=8, frames_sha256="0" * 64, size_bytes=1, stitch_s=0.0)


def test_an_event_that_may_not_happen_is_a_fault_and_leaves_no_trace(make: Any, tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    with pytest.raises(RuntimeError, match="no worker a/0"):
        ledger.record(WorkerLeft(worker_id="a/0", reason="died"))
    assert list(ledger.journal.events()) == []


def test_events_are_timed_by_the_ledgers_clock(make: Any, tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    ledger.record(make.submitted(num_frames=8))
    assert ledger.job("job").submitted_at == 100.0
    assert [at for _, at, _ in ledger.journal.events()] == [100.0]


def test_an_unknown_job_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no job job-x; `farm jobs` lists them"):
        ledger_at(tmp_path).job("job-x")


def record_many(make: Any, ledger: Ledger) -> None:
    for number in range(100):
        ledger.record(make.submitted(f"job{number}", num_frames=8))


async def test_a_journal_that_cannot_be_written_changes_nothing_and_ends_the_run(
    make: Any, tmp_path: Path
) -> None:
    ledger = ledger_at(tmp_path)
    broken = asyncio.ensure_future(ledger.broken())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CannotRun):
            record_many(make, ledger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = ledger_at(tmp_path)
    again.replay()
    assert set(again.state.jobs) == set(ledger.state.jobs)
    with pytest.raises(CannotRun, match="cannot be written"):
        await broken


# Recorded together.


def written(path: Path) -> list[str]:
    """Types of the events that somebody else finds there."""
    with closing(sqlite3.connect(path / "journal.sqlite")) as database:
        return [kind for (kind,) in database.execute("SELECT type FROM events ORDER BY seq")]


def test_what_is_recorded_together_is_written_at_once_and_acted_on_only_then(
    make: Any, tmp_path: Path
) -> None:
    ledger, done = ledger_at(tmp_path), []
    ledger.record(make.submitted(num_frames=13))
    with ledger.together():
        ledger.record(make.joined(make.worker("a/0"))[0])
        with ledger.together():
            ledger.record(make.assigned("s0-0", "a/0"))
            ledger.once_written(lambda: done.append(len(written(tmp_path))))
        assert ledger.state.jobs["job"].tasks["s0-0"].status == "running"
        assert (written(tmp_path), done) == (["job_submitted"], [])
    assert done == [3]
    ledger.once_written(lambda: done.append("now"))
    assert done == [3, "now"]


def test_a_coordinator_killed_in_between_has_done_none_of_it(make: Any, tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    ledger.record(make.submitted(num_frames=8))
    ledger.journal.begin()
    ledger.record(make.joined(make.worker("a/0"))[0])
    ledger.journal.close()
    again = ledger_at(tmp_path)
    again.replay()
    assert (list(again.state.jobs), list(again.state.workers)) == (["job"], [])


def test_what_has_to_be_on_the_disk_is_and_all_before_it(make: Any, tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    with ledger.together():
        ledger.record(make.joined(make.worker("a/0"))[0])
        ledger.record(make.submitted(num_frames=8))
        ledger.record(make.assigned("s0-0", "a/0"))
        assert written(tmp_path) == ["worker_joined", "job_submitted"]


def join_many(make: Any, ledger: Ledger, then: Callable[[], None]) -> None:
    with ledger.together():
        for number in range(200):
            ledger.record(make.joined(make.worker(f"{number}/0"))[0])
        ledger.once_written(then)


async def test_a_disk_full_at_the_end_of_it_ends_the_run(make: Any, tmp_path: Path) -> None:
    ledger, done = ledger_at(tmp_path), []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CannotRun, match="cannot be written"):
            join_many(make, ledger, lambda: done.append(True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(CannotRun, match="cannot be written"):
        await ledger.broken()
    assert not done
    assert not written(tmp_path)


# Following a job.


async def follow(ledger: Ledger, job: str = "job", *, after: int = 0) -> list[str]:
    return [event.type async for _, _, event in ledger.follow(job, after=after)]


async def test_a_finished_jobs_story_is_told_to_its_end(make: Any, tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    for event in (make.submitted(num_frames=8), make.submitted("other"), JobCancelled(job_id="job")):
        ledger.record(event)
    assert await follow(ledger) == ["job_submitted", "job_cancelled"]
    assert await follow(ledger, after=1) == ["job_cancelled"]


async def test_a_follower_hears_what_was_and_what_comes_once_each_and_of_its_job_only(
    make: Any, tmp_path: Path
) -> None:
    ledger = ledger_at(tmp_path)
    ledger.record(make.joined(make.worker("a/0"))[0])
    ledger.record(make.submitted(num_frames=8))
    ledger.record(make.measured("s0-0", 0))
    ledger.record(make.submitted("other", num_frames=8))
    heard: list[int] = []

    async def listen() -> None:
        async for seq, _, _ in ledger.follow("job"):
            heard.append(seq)
            if len(heard) == 1:  # recorded while the past is still being read
                ledger.record(make.assigned("s0-0", "a/0"))

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(0)
    ledger.record(JobCancelled(job_id="other"))
    await asyncio.sleep(0)
    ledger.record(make.succeeded("s0-0"))
    ledger.record(published())
    await asyncio.wait_for(listening, 5)
    assert heard == [2, 3, 5, 7, 8]


async def test_following_an_unknown_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await follow(ledger_at(tmp_path))


async def test_a_watcher_that_went_away_is_told_nothing_more(make: Any, tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    with ledger.watch() as queue:
        ledger.record(make.submitted(num_frames=8))
    ledger.record(JobCancelled(job_id="job"))
    assert queue.qsize() == 1


# Starting again.


def restarted(tmp_path: Path, stored: bool = True) -> Ledger:
    ledger = ledger_at(tmp_path)
    ledger.replay()
    ledger.recover(lambda artifact: stored)
    return ledger


def test_a_restart_takes_back_what_was_in_flight_and_blames_nobody(make: Any, tmp_path: Path) -> None:
    before = ledger_at(tmp_path)
    for event in (
        *make.joined(make.worker("a/0"), make.worker("b/0")),
        make.submitted(num_frames=13),
        make.assigned("s0-0", "a/0"),
        make.assigned("s0-1", "b/0"),
        make.succeeded("s0-0"),
    ):
        before.record(event)
    after = restarted(tmp_path)
    job = after.job("job")
    assert after.state.workers == {}
    assert [t.status for t in job.tasks.values()] == ["done", "ready"]
    assert job.tasks["s0-1"].attempts[0].outcome == "coordinator_restart"
    assert job.tasks["s0-1"].failures == []
    added = [event for seq, _, event in after.journal.events() if seq > 6]
    assert [type(event) for event in added] == [WorkerLeft, WorkerLeft, AttemptFailed]


def test_a_second_restart_adds_nothing(make: Any, tmp_path: Path) -> None:
    before = ledger_at(tmp_path)
    for event in (*make.joined(make.worker("a/0")), make.submitted(), make.assigned("s0-0", "a/0")):
        before.record(event)
    first = restarted(tmp_path)
    second = restarted(tmp_path)
    assert second.state == first.state
    assert len(list(second.journal.events())) == len(list(first.journal.events()))


def test_a_finished_segment_whose_file_is_gone_is_rendered_again(make: Any, tmp_path: Path) -> None:
    before = ledger_at(tmp_path)
    events = (
        *make.joined(make.worker("a/0")),
        make.submitted(num_frames=8),
        make.assigned("s0-0", "a/0"),
        make.succeeded("s0-0"),
    )
    for event in events:
        before.record(event)
    task = restarted(tmp_path, stored=False).job("job").tasks["s0-0"]
    assert (task.status, task.take) == ("ready", 0)


def test_of_several_takes_the_one_that_was_kept_is_looked_for(make: Any, tmp_path: Path) -> None:
    before = ledger_at(tmp_path)
    kept, newest = make.artifact(1), make.artifact(2)
    for event in (
        *make.joined(make.worker("a/0")),
        make.submitted(num_frames=13),
        make.assigned("s0-1", "a/0"),
        make.succeeded("s0-1", artifact=kept),
        TaskReopened(job_id="job", task_id="s0-1", take=1, reason="seam"),
        make.assigned("s0-1", "a/0", attempt=2),
        make.succeeded("s0-1", attempt=2, artifact=newest),
        make.measured("s0-1", 0, "mae"),
        SeamAccepted(job_id="job", task_id="s0-1", take=0),
    ):
        before.record(event)
    after = ledger_at(tmp_path)
    after.replay()
    after.recover(lambda artifact: artifact == newest)
    task = after.job("job").tasks["s0-1"]
    assert (task.status, task.take) == ("ready", 0)


def test_a_chain_whose_files_are_gone_begins_again_in_order(make: Any, tmp_path: Path) -> None:
    before = ledger_at(tmp_path)
    for event in (
        *make.joined(make.worker("a/0")),
        make.submitted(spec=make.spec(), num_frames=18),
        make.assigned("s0-0", "a/0"),
        make.succeeded("s0-0"),
        make.assigned("s0-1", "a/0"),
        make.succeeded("s0-1"),
        make.assigned("s0-2", "a/0"),
    ):
        before.record(event)
    after = restarted(tmp_path, stored=False)
    assert [t.status for t in after.job("job").tasks.values()] == ["ready", "waiting", "waiting"]
    after.record(make.joined(make.worker("a/0"))[0])
    assert [a.task_id for a in schedule(after.state, 0.0)] == ["s0-0"]


def test_files_of_a_job_that_has_ended_are_not_looked_for(make: Any, tmp_path: Path) -> None:
    before = ledger_at(tmp_path)
    for event in (
        *make.joined(make.worker("a/0")),
        make.submitted(num_frames=8),
        make.assigned("s0-0", "a/0"),
        make.succeeded("s0-0"),
        published(),
    ):
        before.record(event)
    assert restarted(tmp_path, stored=False).job("job").tasks["s0-0"].status == "done"


def test_the_garbage_collector_does_not_look_through_large_jobs(make: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    ledger = Ledger(journal)
    ledger.record(make.submitted(num_frames=8 + 5 * LARGE_JOB))
    again = Ledger(journal)
    again.replay()
    looked_through = {id(each) for each in gc.get_objects()}
    for kept in (ledger, again):
        assert not looked_through & {id(task) for task in kept.state.jobs["job"].tasks.values()}
    journal.close()
