"""A copy of a farm at work is whole, consistent, and a farm of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun, InvalidInput
from farm.keeping.backup import backup, restore
from farm.keeping.folders import settle_folders
from farm.running.storage import Storage
from farm.state.ledger import past
from farm.state.state import blob_hashes


def is_whole(state: Path) -> None:
    """Every video and result that the journal names is there, byte by byte, and nothing newer than it."""
    storage = Storage(state)
    assert settle_folders(state, None) is None
    with past(state) as ledger:
        for job in ledger.state.jobs.values():
            assert all(storage.is_whole(sha256) for sha256 in blob_hashes(job))
            if job.published is not None:
                assert storage.has_content(storage.video_path(job.id), job.published.sha256)


async def test_a_copy_of_a_running_farm_goes_on_as_a_farm_of_its_own(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    async with run_farm("a/0") as farm:
        done = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        running = farm.coordinator.submit(job_request(photo(1), num_frames=48))
        await farm.until(lambda: farm.ledger.job(running).num_done)
        told: list[tuple[int, ...]] = []
        made = await asyncio.to_thread(
            backup, tmp_path / "state", tmp_path / "copy", lambda *how_far: told.append(how_far)
        )
        whole = (await farm.ended(running)).published
        assert made.jobs == 2
        assert made.missing == ()
        assert told[-1][0] == told[-1][2]
        assert told[-1][1] == told[-1][3]
    (tmp_path / "state").rename(tmp_path / "lost")
    restore(tmp_path / "copy", tmp_path / "state")
    is_whole(tmp_path / "state")
    async with run_farm("a/0") as farm:
        assert farm.ledger.job(done.id).published == done.published
        again = await farm.ended(running)
        assert again.published.frames_sha256 == whole.frames_sha256


async def test_what_is_deleted_and_rendered_while_it_is_copied_leaves_a_consistent_copy(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    async with run_farm("a/0") as farm:
        jobs = [
            await farm.ended(farm.coordinator.submit(job_request(photo(n), num_frames=8))) for n in range(3)
        ]
        loop, changes = asyncio.get_running_loop(), []

        async def change() -> None:
            farm.coordinator.delete(jobs[1].id)
            farm.coordinator.rerender(jobs[2].id, 0, 8)
            await farm.ended(jobs[2].id)
            await farm.until(lambda: not farm.coordinator._tasks)

        def progress(files: int, *_: int) -> None:
            if files == 1 and not changes:
                changes.append(asyncio.run_coroutine_threadsafe(change(), loop))
                changes[0].result(60)

        made = await asyncio.to_thread(backup, tmp_path / "state", tmp_path / "copy", progress)
        assert (made.jobs, made.missing) == (2, ())
    restore(tmp_path / "copy", tmp_path / "again")
    is_whole(tmp_path / "again")
    with past(tmp_path / "again") as ledger:
        assert set(ledger.state.jobs) == {jobs[0].id, jobs[2].id}
        hashes, folders = Storage(tmp_path / "again").contents()
        assert set(hashes) == set(ledger.state.blob_uses)
        assert set(folders) == set(ledger.state.jobs)


async def test_what_the_farm_has_lost_is_said_and_is_no_reason_for_no_copy(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        lost = job.tasks["s0-0"].artifacts[0].sha256
        farm.storage.path(lost).write_bytes(b"damaged")
        made = backup(tmp_path / "state", tmp_path / "copy")
        assert made.missing == (f"blobs/{lost[:2]}/{lost}",)


async def test_half_a_backup_a_damaged_one_and_a_full_folder_are_refused(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
    state, copy = tmp_path / "state", tmp_path / "copy"
    with pytest.raises(InvalidInput, match="there is no farm in"):
        backup(tmp_path / "nowhere", copy)
    with pytest.raises(InvalidInput, match="is not empty; name a new folder"):
        backup(state, state)
    with pytest.raises(InvalidInput, match="is no whole backup"):
        restore(state, tmp_path / "new")
    backup(state, copy)
    assert copy.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in copy.rglob("*.sqlite")} == {0}
    with pytest.raises(InvalidInput, match="is not empty; name a new folder"):
        restore(copy, state)
    video = copy / "jobs" / job.id / "video.mp4"
    content = bytearray(video.read_bytes())
    content[100] ^= 1
    video.write_bytes(content)
    with pytest.raises(CannotRun, match=rf"jobs/{job.id}/video.mp4 of the backup .* is damaged or missing"):
        restore(copy, tmp_path / "new")
    assert not (tmp_path / "new" / "journal.sqlite").exists(), "half a copy is no farm"
