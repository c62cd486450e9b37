"""A deleted job leaves nothing behind but what other jobs use, and the journal's word of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farm.errors import InvalidInput, NotFound
from farm.planning.render_task import RenderTask
from farm.running import blobs
from farm.running.blobs import Blobs
from farm.running.storage import Storage
from farm.state.events import (
    AttemptFailed,
    AttemptSucceeded,
    JobCancelled,
    JobDeleted,
    JobSubmitted,
    ResultRefused,
)
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from farm.state.state import blob_hashes
from nodes.engines.engine import Report


async def emptied(farm: Any, *job_ids: str) -> None:
    """Wait until the storage holds what these jobs use, and nothing else."""
    used = {sha256 for job_id in job_ids for sha256 in blob_hashes(farm.ledger.job(job_id))}

    def only_that() -> bool:
        hashes, folders = farm.storage.contents()
        trash = list((farm.storage.root / "trash").iterdir())
        return (set(hashes), set(folders), trash) == (used, set(job_ids), [])

    await farm.until(only_that)


async def test_a_deleted_job_leaves_the_farm_and_the_disk(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=13)))
        farm.coordinator.delete(job.id)
        with pytest.raises(NotFound):
            farm.ledger.job(job.id)
        await emptied(farm)
        assert farm.ledger.state.blob_uses == {}
        with pytest.raises(NotFound):
            farm.coordinator.delete(job.id)
    async with run_farm() as farm:
        assert farm.ledger.state.jobs == {}


async def test_what_another_job_uses_stays(run_farm: Any, photo: Any, job_request: Any) -> None:
    async with run_farm("a/0") as farm:
        submit = farm.coordinator.submit
        first = await farm.ended(submit(job_request(photo(), num_frames=13)))
        same = await farm.ended(submit(job_request(photo(), num_frames=13)))
        other = await farm.ended(submit(job_request(photo(), num_frames=20, seed=1)))
        assert set(blob_hashes(first)) == set(blob_hashes(same))
        farm.coordinator.delete(first.id)
        await emptied(farm, same.id, other.id)
        assert len(farm.video(same)) == 13
        assert farm.coordinator.rerender(same.id, 0, 1) == ["s0-0"]
        assert (await farm.ended(same.id)).status == "succeeded"
        farm.coordinator.delete(same.id)
        await emptied(farm, other.id)
        assert set(blob_hashes(other)) >= {photo().sha256}


async def test_a_running_job_is_cancelled_before_it_is_deleted(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any, held: Any
) -> None:
    async with run_farm("a/0", engine=trouble(held)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(held.begun.is_set)
        with pytest.raises(InvalidInput, match=f"job {job_id} is running; cancel it first"):
            farm.coordinator.delete(job_id)
        farm.coordinator.cancel(job_id)
        farm.coordinator.delete(job_id)
        held.go_on.set()
        # What its worker still says of it is no word about any job.
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        assert job.status == "succeeded"
        assert farm.events(ResultRefused) == []
        await emptied(farm, job.id)


async def test_whoever_follows_a_job_hears_that_it_is_deleted_and_no_more(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm() as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        heard: list[str] = []

        async def listen() -> None:
            async for _, _, event in farm.ledger.follow(job_id):
                heard.append(event.type)
                await asyncio.sleep(0.02)  # slower than what happens

        listening = asyncio.ensure_future(listen())
        await farm.until(lambda: heard)
        farm.coordinator.cancel(job_id)
        farm.coordinator.delete(job_id)
        farm.coordinator.submit(job_request(photo(), num_frames=8), job_id=job_id)
        await asyncio.wait_for(listening, 10)
        assert heard == ["job_submitted", "job_cancelled", "job_deleted"]


async def test_a_job_of_the_same_id_has_a_story_of_its_own(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8), job_id="job-0123456789ab")
        first = (await farm.ended(job_id)).published
        farm.coordinator.delete(job_id)
        farm.coordinator.submit(job_request(photo(), num_frames=13), job_id=job_id)
        job = await farm.ended(job_id)
        assert (job.published.num_frames, first.num_frames) == (13, 8)
        told = [event.type async for _, _, event in farm.ledger.follow(job_id)]
        assert (told[0], told.count("job_submitted"), told[-1]) == ("job_submitted", 1, "job_published")
        await emptied(farm, job_id)
        assert len(farm.video(job)) == 13


async def test_a_late_result_of_a_deleted_job_is_none_of_the_job_that_has_its_id_now(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def wait(worker: str, task: RenderTask, report: Report) -> None:
        begun.release()
        while not go_on.is_set():
            time.sleep(0.002)  # deaf to its taking back

    async with run_farm("a/0", "b/0", engine=trouble(wait)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8), job_id="job-0123456789ab")
        await asyncio.to_thread(begun.acquire)
        (old,) = farm.ledger.job(job_id).tasks["s0-0"].attempts
        farm.coordinator.cancel(job_id)
        farm.coordinator.delete(job_id)
        farm.coordinator.submit(job_request(photo(1), num_frames=8), job_id=job_id)
        go_on.set()
        job = await farm.ended(job_id)
        assert [a.id for a in job.tasks["s0-0"].attempts] == [f"{job_id}/s0-0/2"] != [old.id]
        await emptied(farm, job_id)


async def test_a_kill_between_the_word_and_the_files_leaves_nothing_behind_either(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        gone = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=13)))
        kept = await farm.ended(farm.coordinator.submit(job_request(photo(1), num_frames=8)))
        farm.ledger.record(JobDeleted(job_id=gone.id))
        (farm.storage.root / "trash" / "half").mkdir()
    async with run_farm() as farm:
        await emptied(farm, kept.id)
        assert len(farm.video(kept)) == 8


async def test_a_kill_after_the_files_went_finds_the_word_of_it_too(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    """No file goes before its event can be read in the journal by somebody else."""
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        discard, said = farm.storage.discard, []

        def look_first(path: Path) -> None:
            with closing(sqlite3.connect(farm.ledger.journal.path)) as other:
                said.append(other.execute("SELECT type FROM events ORDER BY seq DESC").fetchone()[0])
            discard(path)

        farm.storage.discard = look_first
        farm.coordinator.delete(job.id)
        await emptied(farm)
        assert said == ["job_deleted"] * len(said) != []
    async with run_farm() as farm:
        assert farm.ledger.state.jobs == {}
        await farm.until(lambda: not farm.coordinator._tasks)
        assert farm.events(JobDeleted) == [JobDeleted(job_id=job.id)]


async def test_a_start_removes_nothing_that_the_journal_does_not_name(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    """Whether the journal is absent, or older than what lies beside it."""
    async with run_farm("a/0") as farm:
        first = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        older = tmp_path / "older.sqlite"
        with sqlite3.connect(older) as copy, sqlite3.connect(farm.ledger.journal.path) as live:
            live.backup(copy)
        second = await farm.ended(farm.coordinator.submit(job_request(photo(1), num_frames=8)))
        before = farm.storage.contents()
        assert len(before[1]) == 2
    for journal, known in (("none.sqlite", []), ("older.sqlite", [first.id])):
        async with run_farm("a/0", journal=Journal(tmp_path / journal)) as farm:
            await farm.until(lambda: not farm.coordinator._tasks)
            assert list(farm.ledger.state.jobs) == known
            assert set(farm.storage.contents()[0]) == set(before[0])
            # What such a farm renders and deletes itself is all that goes.
            job = await farm.ended(farm.coordinator.submit(job_request(photo(2), num_frames=8)))
            farm.coordinator.delete(job.id)
            await farm.until(lambda: not farm.coordinator._tasks)
            found = farm.storage.contents()
            assert [sorted(some) for some in found] == [sorted(some) for some in before]
            assert len(farm.video(second)) == 8


async def test_a_removal_leaves_what_another_job_came_to_use_meanwhile(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        gone = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        hashes = list(blob_hashes(gone))
        farm.ledger.record(JobDeleted(job_id=gone.id))
        same = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        await farm.coordinator.blobs.remove_job(gone.id, hashes)
        await emptied(farm, same.id)
        assert farm.ledger.state.dropped_blobs == set()


async def test_unknown_content_is_told_and_removed_on_request_alone(
    run_farm: Any, photo: Any, job_request: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        farm.storage.put(b"stored, and not recorded any more")
        farm.storage.job_folder("job-0123456789ab")
    async with run_farm() as farm:
        await farm.until(lambda: not farm.coordinator._tasks)
        assert "knows not of 1 stored files and 1 job folders; they stay" in caplog.text
        assert "job-0123456789ab" in farm.storage.contents()[1]
        await farm.coordinator.blobs.remove_unknown()
        await emptied(farm, job.id)


async def test_a_refused_result_takes_nothing_with_it_that_was_there_before(
    make: Any, tmp_path: Path
) -> None:
    storage, ledger = Storage(tmp_path), Ledger(Journal(tmp_path / "journal.sqlite"))
    blobs = Blobs(storage, ledger)
    unknown = storage.put(b"frames of a journal that is lost")
    async with blobs.stored(b"frames of a journal that is lost"), blobs.stored(b"new") as new:
        pass
    assert storage.contents()[0] == [unknown] != [new]
    assert not blobs._new


async def test_a_result_that_is_refused_is_not_kept(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    """Its attempt is withdrawn while its bytes are on their way to the disk."""
    async with run_farm("a/0") as farm:
        put = farm.storage.put
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def put_slowly(content: Any) -> str:
            sha256: str = put(content)
            loop.call_soon_threadsafe(lambda: (farm.coordinator.cancel(job_id), cancelled.set()))
            cancelled.wait(10)
            return sha256

        farm.storage.put = put_slowly
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(lambda: farm.events(ResultRefused))
        assert farm.events(AttemptSucceeded) == []
        assert [e.kind for e in farm.events(AttemptFailed)] == ["cancelled"]
        await emptied(farm, job_id)


async def test_content_found_in_the_storage_stays_there_until_its_result_is_recorded(
    make: Any, tmp_path: Path
) -> None:
    storage, ledger = Storage(tmp_path), Ledger(Journal(tmp_path / "journal.sqlite"))
    kept = Blobs(storage, ledger)
    async with kept.stored(b"frames") as sha256:
        await kept.remove_dropped([sha256])  # the last job that used it is deleted right now
        await kept.remove_unknown()
        assert storage.path(sha256).read_bytes() == b"frames"
        for event in (*make.joined(make.worker("a/0")), make.submitted(), make.assigned("s0-0", "a/0")):
            ledger.record(event)
        artifact = make.artifact().model_copy(update={"sha256": sha256, "handover_sha256": None})
        ledger.record(make.succeeded("s0-0", artifact=artifact))
    assert storage.path(sha256).exists()
    ledger.record(JobCancelled(job_id="job"))
    ledger.record(JobDeleted(job_id="job"))
    await kept.remove_dropped([sha256])
    assert not storage.path(sha256).exists()


async def test_what_is_gone_from_the_storage_is_remembered_no_longer_than_it_has_to_be(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "MANY_DROPPED", 2)
    storage, ledger = Storage(tmp_path), Ledger(Journal(tmp_path / "journal.sqlite"))
    kept, dropped = Blobs(storage, ledger), ledger.state.dropped_blobs
    here = [storage.put(content) for content in (b"one", b"two", b"used")]
    dropped.add(here[0])
    await kept.remove_dropped([])
    assert dropped == {here[0]}, "few are remembered: a kill may have left them"
    dropped.add(here[1])
    async with kept.stored(b"two"):
        await kept.remove_dropped([])
        assert dropped == set(here[:2]), "what is held may be there yet"
    await kept.remove_dropped([])
    assert dropped == set()
    assert [storage.path(sha256).exists() for sha256 in here] == [False, False, True]
    again = Ledger(ledger.journal)
    again.replay()
    assert again.state == ledger.state


async def test_the_loop_turns_while_very_many_files_go(make: Any, tmp_path: Path) -> None:
    storage, ledger = Storage(tmp_path), Ledger(Journal(tmp_path / "journal.sqlite"))
    for i in range(200):
        storage.put(str(i).encode())
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.ensure_future(turn())
    await Blobs(storage, ledger).remove_unknown()
    turning.cancel()
    assert storage.contents() == ([], [])
    assert turns >= 200 / 64


async def test_who_asked_and_what_it_is_made_from_is_kept(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm() as farm:
        first = farm.coordinator.submit(job_request(photo(), num_frames=8), submitted_by="ada")
        second = farm.coordinator.submit(job_request(photo(), num_frames=8), remixed_from=first)
    async with run_farm() as farm:
        jobs = [farm.ledger.job(job_id) for job_id in (first, second)]
        assert [(j.submitted_by, j.remixed_from) for j in jobs] == [("ada", None), ("", first)]
        assert len(farm.events(JobSubmitted)) == 2
