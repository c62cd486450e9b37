"""A job outlives its journal: its folder tells what it takes to list it again."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun
from farm.keeping.folders import adopt, newer_folders, settle_folders
from farm.running.job_records import RECORD_NAME, record_head
from farm.state.events import AttemptSucceeded
from farm.state.journal import Journal


async def a_job(farm: Any, request: Any) -> Any:
    job = await farm.ended(farm.coordinator.submit(request))
    assert job.status == "succeeded", job.reason
    await farm.until(lambda: not farm.coordinator.joiners.open)
    return job


def state_of(tmp_path: Path) -> Path:
    return tmp_path / "state"


def copied(farm: Any, path: Path) -> None:
    with closing(sqlite3.connect(path)) as copy, closing(sqlite3.connect(farm.ledger.journal.path)) as live:
        live.backup(copy)


async def test_a_published_job_is_listed_again_over_a_lost_journal(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    async with run_farm("a/0") as farm:
        job = await a_job(farm, job_request(photo(), num_frames=13))
        path = farm.ledger.journal.path
        head = record_head(farm.storage.job_path(job.id))
        assert head is not None
        assert head.last_seq == job.last_seq
    for lost in path.parent.glob(f"{path.name}*"):
        lost.unlink()
    with pytest.raises(CannotRun, match=rf"is older than .*{job.id}; --adopt lists .*, --ignore goes on"):
        settle_folders(state_of(tmp_path), None)
    assert settle_folders(state_of(tmp_path), "ignore") is None
    adopted = settle_folders(state_of(tmp_path), "adopt")
    assert adopted is not None
    assert (adopted.jobs, adopted.refused) == ([job.id], {})
    assert settle_folders(state_of(tmp_path), None) is None, "it is told now"
    async with run_farm("a/0") as farm:
        again = farm.ledger.job(job.id)
        assert (again.published, again.submitted_at) == (job.published, job.submitted_at)
        assert len(farm.video(again)) == 13
        farm.coordinator.rerender(job.id, 0, 1)
        await farm.ended(job.id)
        assert again.status == "succeeded", again.reason


async def test_an_older_journal_is_told_what_has_happened_since(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    older = tmp_path / "older.sqlite"
    async with run_farm("a/0") as farm:
        first = await a_job(farm, job_request(photo(), num_frames=8))
        job_id = farm.coordinator.submit(job_request(photo(1), num_frames=13))
        copied(farm, older)  # the second job has only begun there
        await farm.ended(job_id)
        await farm.until(lambda: not farm.coordinator.joiners.open)
    with closing(Journal(older)) as journal:
        assert newer_folders(farm.storage, journal) == [job_id] != [first.id]
        assert adopt(farm.storage, journal).jobs == [job_id]
    async with run_farm("a/0", journal=Journal(older)) as farm:
        assert farm.ledger.job(job_id).status == "succeeded"
        assert len(farm.events(AttemptSucceeded)) == 3


async def test_a_journal_that_went_on_in_another_way_keeps_its_own_story(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    older = tmp_path / "older.sqlite"
    async with run_farm("a/0") as farm:
        job = await a_job(farm, job_request(photo(), num_frames=8))
        copied(farm, older)
        farm.coordinator.rerender(job.id, 0, 8)
        await farm.ended(job.id)
        await farm.until(lambda: not farm.coordinator.joiners.open)
    with closing(Journal(older)) as journal, closing(sqlite3.connect(older)) as database:
        database.execute("UPDATE events SET at = at + 1 WHERE job_id IS NOT NULL")
        database.commit()
        adopted = adopt(farm.storage, journal)
    assert adopted.jobs == []
    assert adopted.refused == {job.id: "the journal tells another story of it"}
    assert farm.storage.video_path(job.id).exists()


@pytest.mark.parametrize("damage", ["no record", "half a line", "another job"])
async def test_a_folder_that_tells_nothing_sound_stays_and_says_why(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path, damage: str
) -> None:
    async with run_farm("a/0") as farm:
        job = await a_job(farm, job_request(photo(), num_frames=8))
    folder, record = farm.storage.job_path(job.id), farm.storage.job_path(job.id) / RECORD_NAME
    match damage:
        case "no record":
            record.unlink()
        case "half a line":
            record.write_text(record.read_text()[:-40])
        case "another job":
            record.write_text(record.read_text().replace(job.id, "job-0123456789ab"))
    with closing(Journal(tmp_path / "none.sqlite")) as journal:
        adopted = adopt(farm.storage, journal)
        assert adopted.jobs == []
        assert list(adopted.refused) == [job.id]
        assert journal.newest_of_jobs() == {}
    assert (folder / "video.mp4").exists()


async def test_a_start_writes_down_what_a_kill_has_left_untold(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        job = await a_job(farm, job_request(photo(), num_frames=8))
    (farm.storage.job_path(job.id) / RECORD_NAME).unlink()
    async with run_farm() as farm:
        await farm.until(lambda: record_head(farm.storage.job_path(job.id)))
        assert newer_folders(farm.storage, farm.ledger.journal) == []


async def test_no_folder_is_newer_than_its_own_journal_whenever_it_is_killed(
    run_farm: Any, photo: Any, job_request: Any, fatal_journal: Any, tmp_path: Path
) -> None:
    for num_events in (2, 5, 8, 11):
        path = tmp_path / f"killed-after-{num_events}.sqlite"
        journal = fatal_journal(path, num_events)
        async with run_farm("a/0", journal=journal) as farm:
            job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
            await farm.until_ended_or_killed(job_id, journal)
            await asyncio.sleep(0)
        with closing(Journal(path)) as reopened:
            assert job_id not in newer_folders(farm.storage, reopened)
