"""The journal stays as large as what the farm still has, and tells the same state as if nothing had gone."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun
from farm.keeping import compaction
from farm.keeping.backup import backup, restore
from farm.keeping.compaction import PART, compact, droppable, is_due, movable
from farm.keeping.compactor import frames
from farm.keeping.folders import adopt
from farm.reporting.report import workers_seen
from farm.running.job_records import RECORD_NAME, job_story, record_head
from farm.running.storage import Storage
from farm.state.events import (
    Event,
    JobDeleted,
    JobFailed,
    JobPublished,
    JobReopened,
    SeamAccepted,
    WorkerLeft,
)
from farm.state.journal import Journal
from farm.state.ledger import Ledger, replayed
from tests.farm.state.test_old_journals import JOURNALS

KEPT, GONE, LONG = "job-00000000000a", "job-00000000000b", "job-00000000000c"


@pytest.fixture(autouse=True)
def nothing_is_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "RECENT_EVENTS", 0)


async def made_here(
    root: Path, journal: Path, until: int, kept_from: int
) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """What a child would send."""
    for frame in frames(root, journal, until, kept_from):
        yield frame


def rendered(make: Any, job: str, *tasks: str, attempt: int = 1) -> Iterator[Event]:
    for task in tasks:
        yield make.assigned(task, "a/0", job=job, attempt=attempt)
        yield make.succeeded(task, job=job, attempt=attempt)


def published(job: str) -> Event:
    return JobPublished(job_id=job, num_frames=13, frames_sha256="0" * 64, size_bytes=1, stitch_s=1.0)


def story(make: Any) -> Iterator[Event]:
    """One job is published, one deleted, one runs on; workers come and go."""
    for number in range(3):
        yield make.joined(make.worker("gone/0", number + 1))[0]
        yield WorkerLeft(worker_id="gone/0", reason="died")
    yield make.joined(make.worker("a/0", 8))[0]
    yield make.submitted(GONE, num_frames=8)
    yield from rendered(make, GONE, "s0-0")
    yield published(GONE)
    yield JobDeleted(job_id=GONE)
    yield make.submitted(KEPT, num_frames=13)
    yield from rendered(make, KEPT, "s0-0", "s0-1")
    yield make.measured("s0-1", 0, job=KEPT)
    yield SeamAccepted(job_id=KEPT, task_id="s0-1", take=0)
    yield published(KEPT)
    yield make.submitted(LONG, num_frames=18)
    yield from rendered(make, LONG, "s0-0")
    yield make.assigned("s0-1", "a/0", job=LONG)


@contextmanager
def farm(state: Path) -> Iterator[tuple[Ledger, Storage]]:
    storage = Storage(state)
    with replayed(state) as ledger:
        ticks = iter(range(ledger.last_seq, 10**6))
        ledger.clock = lambda: float(next(ticks))
        yield ledger, storage


def recorded(ledger: Ledger, *events: Event) -> None:
    for event in events:
        ledger.record(event)


def check_replays(ledger: Ledger) -> None:
    with closing(Journal(ledger.journal.path, read_only=True)) as journal:
        again = Ledger(journal)
        again.replay()
    assert again.state == ledger.state
    assert again.last_seq == ledger.last_seq
    assert list(again.state.jobs) == list(ledger.state.jobs)


def rows(ledger: Ledger) -> list[tuple[int, str]]:
    return [(seq, event.type) for seq, _, event in ledger.journal.events()]


# What is decided.


@pytest.mark.parametrize(
    ("num_events", "num_tasks", "due"),
    [(19_999, 0, False), (20_000, 0, True), (20_000, 30_000, False), (30_000, 30_000, True)],
)
def test_a_snapshot_is_due_after_many_events_and_on_a_large_farm_after_more(
    num_events: int, num_tasks: int, due: bool
) -> None:
    assert is_due(num_events, num_tasks) is due


def test_stories_that_are_over_or_very_long_may_move(make: Any, tmp_path: Path) -> None:
    with farm(tmp_path) as (ledger, _):
        recorded(ledger, *story(make))
        state = ledger.state
        ended = state.jobs[KEPT].last_seq
        assert movable(state, {}, ended - 1) == []
        assert movable(state, {}, ended) == [KEPT]
        long = compaction.LONG_STORY_EVENTS + 3 * compaction.LONG_STORY_EVENTS_PER_TASK
        assert movable(state, {LONG: long}, ended) == [KEPT]
        assert movable(state, {LONG: long + 1}, ended) == [KEPT, LONG]


def test_what_is_still_read_stays(make: Any, tmp_path: Path) -> None:
    with farm(tmp_path) as (ledger, _):
        recorded(ledger, *story(make))
        state = ledger.state
        kept, running = state.jobs[KEPT], state.jobs[LONG]
        newest = {GONE: 12, KEPT: kept.last_seq, LONG: running.last_seq}
        for row, moved, goes in [
            ((1, None), set(), True),  # a worker that nobody speaks of came
            ((7, None), set(), False),  # one that rendered came
            ((8, GONE), set(), True),  # of a job that is gone
            ((12, GONE), set(), False),  # its deletion
            ((kept.first_seq, KEPT), {KEPT}, False),  # its plan
            ((kept.first_seq + 1, KEPT), {KEPT}, True),
            ((kept.last_seq, KEPT), {KEPT}, False),
            ((kept.first_seq + 1, KEPT), set(), False),  # its folder does not tell it
            ((kept.first_seq - 1, KEPT), set(), True),  # of an earlier job of this id
            ((running.first_seq + 1, LONG), {KEPT}, False),
        ]:
            assert list(droppable([row], state, moved, {7}, newest)) == [row[0]] * goes, row


# What is done.


async def test_a_compacted_journal_tells_the_same_state_and_goes_on(make: Any, tmp_path: Path) -> None:
    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage, made_here)
        check_replays(ledger)
        assert [kind for _, kind in rows(ledger)] == [
            *("worker_joined", "job_deleted", "job_submitted", "job_published"),
            *("job_submitted", "task_assigned", "attempt_succeeded", "task_assigned"),
        ]
        recorded(ledger, make.succeeded("s0-1", job=LONG), JobReopened(job_id=KEPT, takes={"s0-0": 1}))
        recorded(ledger, *rendered(make, KEPT, "s0-0", attempt=2), published(KEPT))
        check_replays(ledger)
        await compact(ledger, storage, made_here)
        check_replays(ledger)
        recorded(ledger, JobDeleted(job_id=KEPT), JobFailed(job_id=LONG, reason="no"))
        await compact(ledger, storage, made_here)
        check_replays(ledger)
        assert [kind for _, kind in rows(ledger)] == [
            *("worker_joined", "job_deleted", "job_submitted", "job_deleted", "job_failed")
        ]
    with farm(tmp_path) as (ledger, _):
        recorded(ledger, make.submitted(GONE, num_frames=8))
        assert ledger.job(GONE).attempts_before == 1, "late results of the deleted one are told apart"


async def test_what_happens_while_a_snapshot_is_made_is_not_lost(make: Any, tmp_path: Path) -> None:
    async def slowly(*asked: Any) -> AsyncGenerator[tuple[bytes, bytes], None]:
        names = iter("bcdefgh")
        async for frame in made_here(*asked):
            recorded(ledger, make.joined(make.worker(f"{next(names)}/0"))[0])
            yield frame

    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage, slowly)
        assert len(ledger.state.workers) > 4
        check_replays(ledger)


async def test_killed_at_any_write_it_replays_to_the_same_and_is_done_the_next_time(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    whole, write = Journal._all_or_nothing, 0
    while True:
        state, left = tmp_path / str(write), iter(range(write))

        @contextmanager
        def fatal(journal: Journal, *, durable: bool = False, left: Any = left) -> Iterator[None]:
            if next(left, None) is None:
                raise Killed
            with whole(journal, durable=durable):
                yield

        with farm(state) as (ledger, storage):
            recorded(ledger, *story(make))
            monkeypatch.setattr(Journal, "_all_or_nothing", fatal)
            try:
                await compact(ledger, storage, made_here)
            except Killed:
                over = False
            else:
                over = True
            monkeypatch.setattr(Journal, "_all_or_nothing", whole)
            check_replays(ledger)
            last = ledger.state
        with farm(state) as (ledger, storage):
            assert ledger.state == last
            await compact(ledger, storage, made_here)
            check_replays(ledger)
            assert len(rows(ledger)) == 8
            left_over = ledger.journal._db.execute("SELECT COUNT(DISTINCT seq) FROM snapshots").fetchone()
            assert left_over == (1,)
        if over:
            break
        write += 1
    assert write > 6, "every write of it was one at which it ended"


async def test_who_must_hear_every_event_keeps_them(make: Any, tmp_path: Path) -> None:
    async def reader(seq: int) -> int:
        return min(seq, 3)

    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        ledger.readers.append(reader)
        await compact(ledger, storage, made_here)
        assert [seq for seq, _ in rows(ledger)] == list(range(4, ledger.last_seq + 1))
        assert ledger.journal.kept_from == 3
        check_replays(ledger)


async def test_the_newest_events_stay(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "RECENT_EVENTS", 5)
    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage, made_here)
        assert ledger.journal.kept_from == ledger.last_seq - 5


async def test_a_jobs_story_is_told_whole_by_its_folder(make: Any, tmp_path: Path) -> None:
    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        path, folder = ledger.journal.path, storage.job_path(KEPT)
        first = ledger.job(KEPT).first_seq
        before, seen = job_story(path, folder, KEPT, first), workers_seen(ledger.journal)
        await compact(ledger, storage, made_here)
        assert job_story(path, folder, KEPT, first) == before
        assert len(list(ledger.journal.events(job_id=KEPT))) == 2
        assert workers_seen(ledger.journal) == {"a/0": seen["a/0"]}
        recorded(ledger, JobReopened(job_id=KEPT, takes={}), published(KEPT))
        await compact(ledger, storage, made_here)
        after = job_story(path, folder, KEPT, first)
        assert after[: len(before)] == before
        assert len(after) == len(before) + 2
        head = record_head(folder)
        assert head is not None
        assert head.last_seq == ledger.job(KEPT).last_seq


async def test_a_job_that_is_deleted_meanwhile_leaves_no_folder(make: Any, tmp_path: Path) -> None:
    async def late(*asked: Any) -> AsyncGenerator[tuple[bytes, bytes], None]:
        async for frame in made_here(*asked):
            if KEPT in ledger.state.jobs:
                recorded(ledger, JobDeleted(job_id=KEPT))
            yield frame

    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage, late)
        assert not storage.job_path(KEPT).exists()
        check_replays(ledger)


async def test_a_snapshot_that_was_not_sent_whole_changes_nothing(make: Any, tmp_path: Path) -> None:
    async def half(*asked: Any) -> AsyncGenerator[tuple[bytes, bytes], None]:
        yield PART, b"half"

    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        before = rows(ledger)
        with pytest.raises(CannotRun, match="not sent whole"):
            await compact(ledger, storage, half)
        assert rows(ledger) == before
        check_replays(ledger)


async def test_a_farm_that_has_come_and_gone_leaves_next_to_nothing(make: Any, tmp_path: Path) -> None:
    sizes = []
    with farm(tmp_path) as (ledger, storage):
        for number in range(4):
            for _ in range(150):
                recorded(ledger, make.joined(make.worker("b/0"))[0], WorkerLeft(worker_id="b/0", reason="x"))
            job_id = f"job-{number:012x}"
            recorded(ledger, make.submitted(job_id, num_frames=503), JobFailed(job_id=job_id, reason="no"))
            recorded(ledger, JobDeleted(job_id=job_id))
            await compact(ledger, storage, made_here)
            ledger.journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            sizes.append(ledger.journal.path.stat().st_size)
        assert [kind for _, kind in rows(ledger)] == ["job_deleted"] * 4
        check_replays(ledger)
    assert sizes[-1] == sizes[0] < 60_000


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
async def test_a_journal_of_an_older_farm_is_compacted_too(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "journal.sqlite")
    with farm(tmp_path) as (ledger, storage):
        await compact(ledger, storage, made_here)
        check_replays(ledger)


@pytest.mark.slow
async def test_a_child_makes_it_and_says_why_it_cannot(make: Any, tmp_path: Path) -> None:
    with farm(tmp_path) as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage)
        check_replays(ledger)
        assert len(rows(ledger)) == 8
        recorded(ledger, make.joined(make.worker("b/0"))[0])
        ledger.journal._db.execute("UPDATE events SET body = '{}' WHERE seq = ?", (ledger.last_seq,))
        with pytest.raises(CannotRun, match=rf"snapshot failed \(event {ledger.last_seq} of the journal"):
            await compact(ledger, storage)


# With what else reads journals.


async def test_a_backup_of_a_compacted_farm_is_whole(make: Any, tmp_path: Path) -> None:
    with farm(tmp_path / "state") as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage, made_here)
        recorded(ledger, JobReopened(job_id=KEPT, takes={}))
        told = job_story(ledger.journal.path, storage.job_path(KEPT), KEPT)
        backup(tmp_path / "state", tmp_path / "copy")
        restore(tmp_path / "copy", tmp_path / "again")
        with farm(tmp_path / "again") as (again, its_storage):
            assert again.state == ledger.state
            assert job_story(again.journal.path, its_storage.job_path(KEPT), KEPT) == told


async def test_a_compacted_journal_that_was_put_back_is_told_what_has_happened_since(
    make: Any, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with farm(state) as (ledger, storage):
        recorded(ledger, *story(make))
        await compact(ledger, storage, made_here)
    shutil.copy(state / "journal.sqlite", tmp_path / "older.sqlite")
    with farm(state) as (ledger, storage):
        recorded(ledger, JobReopened(job_id=KEPT, takes={}), published(KEPT))
        await compact(ledger, storage, made_here)
        newest = ledger.job(KEPT)
    shutil.copy(tmp_path / "older.sqlite", state / "journal.sqlite")
    with closing(Journal(state / "journal.sqlite")) as journal:
        assert adopt(storage, journal).jobs == [KEPT]
    with farm(state) as (ledger, storage):
        again = ledger.job(KEPT)
        assert (again.status, again.finished_at) == ("succeeded", newest.finished_at)
        assert len(job_story(state / "journal.sqlite", storage.job_path(KEPT), KEPT, again.first_seq)) == 10
    (state / "journal.sqlite").unlink()
    with closing(Journal(state / "journal.sqlite")) as journal:
        assert KEPT in adopt(storage, journal).jobs, "its folder tells all of it"
    assert (storage.job_path(KEPT) / RECORD_NAME).exists()
