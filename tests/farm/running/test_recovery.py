"""A coordinator that is killed after any event leaves a journal another one ends the same job from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.state.events import AttemptSucceeded, TaskReopened
from farm.state.journal import Journal


def request(media: MediaInfo, model: str, num_frames: int) -> JobRequest:
    return JobRequest(inputs=(media,), model=model, num_frames=num_frames, width=64, height=64)


async def finished(farm: Any, job_id: str) -> Any:
    job = await farm.ended(job_id)
    assert job.status == "succeeded", job.reason
    return job


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "model", "num_frames", "least_events"),
    [
        pytest.param(("a/0", "b/0"), "procedural", 20, 18, marks=pytest.mark.long),
        (("a/0", "b/0"), "procedural-hard", 13, 12),
        pytest.param(("a/0",), "procedural-hard", 13, 11, marks=pytest.mark.long),
    ],
)
async def test_a_kill_after_any_event_ends_in_the_same_frames(
    run_farm: Any,
    photo: Any,
    kill_after_every_event: Any,
    workers: tuple[str, ...],
    model: str,
    num_frames: int,
    least_events: int,
) -> None:
    farm_of = partial(run_farm, *workers)
    assert await kill_after_every_event(farm_of, request(photo(), model, num_frames)) >= least_events


async def test_killed_again_and_again_it_still_gets_there(
    run_farm: Any, photo: Any, fatal_journal: Any, tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite"
    async with run_farm("a/0", journal=Journal(tmp_path / "whole.sqlite")) as farm:
        whole = await finished(farm, farm.coordinator.submit(request(photo(), "procedural", 20)))
    async with run_farm(journal=Journal(path)) as farm:
        job_id = farm.coordinator.submit(request(photo(), "procedural", 20))
    for _ in range(30):
        # One takes back two attempts, and gives both again before the first has its result.
        journal = fatal_journal(path, 7)
        async with run_farm("a/0", journal=journal) as farm:
            job = farm.ledger.job(job_id)
            await farm.until(lambda: journal.killed.is_set() or job.status != "running")  # noqa: B023
            if job.status == "succeeded":
                break
    assert job.published is not None
    assert job.published.frames_sha256 == whole.published.frames_sha256


async def test_a_lost_segment_file_is_rendered_again_after_a_restart(run_farm: Any, photo: Any) -> None:
    async with run_farm("a/0") as farm:
        job_id = farm.coordinator.submit(request(photo(), "procedural", 20))
        await farm.until(lambda: len(farm.events(AttemptSucceeded)) >= 2)
    lost = farm.ledger.job(job_id).tasks["s0-0"].artifacts[0]
    farm.storage.path(lost.sha256).unlink()
    async with run_farm("a/0") as farm:
        job = await finished(farm, job_id)
        assert [e.reason for e in farm.events(TaskReopened)] == ["its file is gone from the storage"]
        assert job.tasks["s0-0"].artifacts[0] == lost, "rendered again, it is the same file"
        assert len(farm.video(job)) == 20


async def test_a_finished_job_is_not_begun_again(run_farm: Any, photo: Any) -> None:
    async with run_farm("a/0") as farm:
        job = await finished(farm, farm.coordinator.submit(request(photo(), "procedural", 8)))
    async with run_farm("a/0") as again:
        await again.until(lambda: again.ledger.state.workers)
        assert again.ledger.job(job.id).published == job.published
        assert len(again.events(AttemptSucceeded)) == 1
