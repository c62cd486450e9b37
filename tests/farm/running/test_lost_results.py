"""A result that the storage has lost is rendered again while the farm runs, and ends in the same frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.errors import NotReady
from farm.running.cluster import StitchOrder
from farm.state.events import AttemptFailed, AttemptSucceeded, JobReopened, TaskReopened
from nodes.work.local_cluster import LocalCluster


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


LOSE = pytest.mark.parametrize("lose", [flip, remove])


def path_of(farm: Any, job: Any, task_id: str) -> Path:
    path: Path = farm.storage.path(job.tasks[task_id].artifacts[0].sha256)
    return path


async def made(farm: Any, job_id: str) -> Any:
    job = await farm.ended(job_id)
    assert job.status == "succeeded", job.reason
    return job


class LateStitcher(LocalCluster):
    """Opens no stitcher before it is told."""

    lose: Callable[[], None]

    async def open_stitcher(self, order: StitchOrder) -> Any:
        await self.ready()  # type: ignore[attr-defined]
        return await super().open_stitcher(order)


@LOSE
@pytest.mark.parametrize("task_id", ["s0-0", "s0-1"])
async def test_a_segment_that_is_lost_before_it_is_joined_is_rendered_again(
    run_farm: Any, photo: Any, job_request: Any, lose: Callable[[Path], None], task_id: str
) -> None:
    async with run_farm("a/0", cluster=LateStitcher) as farm:
        request = job_request(photo(), num_frames=20)

        async def at_once() -> None:
            return

        farm.cluster.ready = at_once
        whole = await made(farm, farm.coordinator.submit(request))
        farm.coordinator.delete(whole.id)
        await farm.until(lambda: not farm.coordinator._tasks)

        async def ready() -> None:
            await farm.until(lambda: job.num_done == len(job.tasks))
            lose(path_of(farm, job, task_id))

        farm.cluster.ready = ready
        job_id = farm.coordinator.submit(request)
        job = farm.ledger.job(job_id)
        assert (await made(farm, job_id)).published.frames_sha256 == whole.published.frames_sha256
        assert [e.task_id for e in farm.events(TaskReopened)] == [task_id]
        assert farm.events(AttemptFailed) == [], "nobody is to blame"
        assert farm.storage.is_whole(path_of(farm, job, task_id).name)


@LOSE
async def test_a_lost_input_of_a_segment_is_made_again_and_nobody_is_blamed(
    run_farm: Any, photo: Any, job_request: Any, lose: Callable[[Path], None]
) -> None:
    async with run_farm("a/0") as farm:
        start, lost = farm.cluster.start, []

        def start_later(order: Any) -> None:
            if "handover" in order.inputs and not lost:
                lost.append(order.inputs["handover"].path)
                lose(lost[0])
            start(order)

        farm.cluster.start = start_later
        job = await made(farm, farm.coordinator.submit(job_request(photo(), num_frames=20, mode="chain")))
        assert lost
        assert [e.task_id for e in farm.events(TaskReopened) if "file" in e.reason] == ["s0-0"]
        assert [(e.task_id, e.kind) for e in farm.events(AttemptFailed)] == [("s0-1", "cancelled")]
        assert all(not task.failures for task in job.tasks.values())


async def test_a_lost_input_of_the_job_itself_stops_it_and_comes_back_with_the_next(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm() as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        stored = farm.storage.path(photo().sha256)
        content = stored.read_bytes()
        stored.unlink()
        stored.write_bytes(content[:-1])
    async with run_farm("a/0") as farm:
        job = await farm.ended(job_id)
        assert job.status == "failed"
        assert job.reason.endswith("is missing from the storage, or damaged; submit it again")
        await made(farm, farm.coordinator.submit(job_request(photo(), num_frames=8)))


@LOSE
async def test_a_segment_that_is_found_lost_when_it_is_fetched_is_rendered_again(
    run_farm: Any, photo: Any, job_request: Any, lose: Callable[[Path], None]
) -> None:
    async with run_farm("a/0") as farm:
        job = await made(farm, farm.coordinator.submit(job_request(photo(), num_frames=13)))
        task, before = job.tasks["s0-1"], job.published
        assert await farm.coordinator.reopening.segment_path(job, task, 0) == path_of(farm, job, "s0-1")
        lose(path_of(farm, job, "s0-1"))
        with pytest.raises(NotReady, match="was lost from the storage; it is rendered again"):
            await farm.coordinator.reopening.segment_path(job, task, 0)
        await made(farm, job.id)
        assert job.published == before.model_copy(update={"stitch_s": job.published.stitch_s})
        path = await farm.coordinator.reopening.segment_path(job, task, 0)
        assert farm.storage.is_whole(path.name)
        assert len(farm.events(AttemptSucceeded)) == 3


@LOSE
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_lost_video_is_joined_again_from_its_segments(
    run_farm: Any, photo: Any, job_request: Any, lose: Callable[[Path], None], restarted: bool
) -> None:
    async with run_farm("a/0") as farm:
        job = await made(farm, farm.coordinator.submit(job_request(photo(), num_frames=13)))
        before, path = job.published, farm.storage.video_path(job.id)
        content = path.read_bytes()
        if not restarted:
            lose(path)
            with pytest.raises(NotReady, match="was lost from the storage; it is joined again"):
                await farm.coordinator.reopening.video_path(job)
            await made(farm, job.id)
    if restarted:
        lose(path)
        async with run_farm("a/0") as farm:
            job = farm.ledger.job(job.id)
            if lose is flip:  # its size says nothing
                with pytest.raises(NotReady):
                    await farm.coordinator.reopening.video_path(job)
            await made(farm, job.id)
    assert (job.published.sha256, path.read_bytes()) == (before.sha256, content)


async def test_retry_renders_what_was_deleted_meanwhile(run_farm: Any, photo: Any, job_request: Any) -> None:
    async with run_farm("a/0") as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=20))
        job = farm.ledger.job(job_id)
        await farm.until(lambda: job.num_done >= 2)
        farm.coordinator.cancel(job_id)
        done = [task for task in job.tasks.values() if task.status == "done"]
        for task in done:
            path_of(farm, job, task.id).unlink()
        farm.coordinator.retry(job_id)
        assert {e.task_id for e in farm.events(TaskReopened)} == {task.id for task in done}
        await made(farm, job_id)


async def test_a_segment_that_is_lost_again_and_again_stops_its_job_with_the_reason(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        put = farm.storage.put

        def put_damaged(content: Any) -> str:
            sha256: str = put(content)
            flip(farm.storage.path(sha256))
            return sha256

        farm.storage.put = put_damaged
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        assert job.status == "failed"
        assert job.reason.startswith("segment s0-0 was lost from the storage 4 times; check the disk")
        farm.storage.put = put
        farm.coordinator.retry(job.id)
        assert not farm.events(JobReopened)
