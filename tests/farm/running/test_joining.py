"""Joining a video: one joiner at a time, whose time is its own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from farm.planning.render_task import RenderTask
from farm.running.cluster import StitchOrder, StitchSession
from farm.state.events import JobPublished, TaskReopened
from nodes.engines.engine import Report
from nodes.work.local_cluster import LocalCluster


class Counted:
    """A stitch session that takes a while to close, and tells how many are open."""

    open_now = 0
    most_open = 0

    def __init__(self, session: StitchSession) -> None:
        self._session = session
        Counted.open_now += 1
        Counted.most_open = max(Counted.most_open, Counted.open_now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def close(self) -> None:
        await asyncio.sleep(0.1)
        await self._session.close()
        Counted.open_now -= 1


class SlowToClose(LocalCluster):
    async def open_stitcher(self, order: StitchOrder) -> Any:
        return Counted(await super().open_stitcher(order))


async def test_a_job_has_one_joiner_however_often_it_begins_anew(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    Counted.open_now = Counted.most_open = 0
    async with run_farm("a/0", cluster=SlowToClose) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=48, width=64, height=64))
        job = farm.ledger.job(job_id)
        await farm.until(lambda: job.num_done > 1 and Counted.open_now)
        for _ in range(3):
            farm.coordinator.rerender(job_id, 0, 1)
            await farm.until(lambda: job.tasks["s0-0"].status == "done")
        farm.coordinator.rerender(job_id, 0, 1)
        farm.coordinator.cancel(job_id)
        farm.coordinator.retry(job_id)
        await asyncio.sleep(0)
        farm.coordinator.cancel(job_id)
        farm.coordinator.retry(job_id)
        assert (await farm.ended(job_id)).status == "succeeded"
        await farm.until(lambda: Counted.open_now == 0)
        assert Counted.most_open == 1, "two would write the same files"


async def test_waiting_for_a_segment_that_is_rendered_again_is_not_joining(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    def slow(worker: str, task: RenderTask, report: Report) -> None:
        if task.take:
            time.sleep(1.0)

    async with run_farm("a/0", engine=trouble(slow), cluster=FirstSeamFails) as farm:
        await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=13)))
        assert len(farm.events(TaskReopened)) == 1
        (published,) = farm.events(JobPublished)
        assert published.stitch_s < 1.0


class _FailsOnce:
    def __init__(self, session: StitchSession) -> None:
        self._session = session
        self._failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def propose(self, segment: Path, num_frames: int, overlap: int) -> dict[str, Any]:
        report = await self._session.propose(segment, num_frames, overlap)
        gates = [] if self._failed else ["mae"]
        self._failed = True
        return report | {"failed_gates": gates}


class FirstSeamFails(LocalCluster):
    async def open_stitcher(self, order: StitchOrder) -> Any:
        return _FailsOnce(await super().open_stitcher(order))


async def test_a_job_that_has_ended_has_no_joiner(run_farm: Any, photo: Any, job_request: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        await farm.until(lambda: not farm.coordinator.joiners.open)
