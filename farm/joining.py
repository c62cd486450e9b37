"""Joining a job's segments into its video, in order, as they arrive.

The stitcher is driven from what the journal says: after a crash it starts over from the stored
segments, takes the decisions that were made as they were made, and ends in the same frames.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from farm.cluster import StitchOrder, StitchSession
from farm.errors import CannotRun
from farm.events import JobPublished, SeamAccepted, SeamMeasured, TaskReopened
from farm.plan import Segment
from farm.retry import Rerender, after_seam
from farm.state import Job, Seam, Task

if TYPE_CHECKING:
    from farm.coordinator import Coordinator

log = logging.getLogger(__name__)

#: A stitcher that dies is started over this often before the job stops.
MAX_STITCHERS = 3


class StitchFailed(Exception):
    """The stitcher could not go on: a damaged segment, a full disk, a dead process."""


async def join_job(coordinator: Coordinator, job: Job) -> None:
    """Run until the job is published or has ended otherwise."""
    for number in range(1, MAX_STITCHERS + 1):
        try:
            await _join(coordinator, job)
            return
        except (StitchFailed, CannotRun) as error:
            said = "job %s: stitcher %d of %d failed: %s"
            log.warning(said, job.id, number, MAX_STITCHERS, error, extra={"job_id": job.id})
            if number == MAX_STITCHERS and job.status == "running":
                coordinator.stop(job, f"the segments could not be joined: {error}")


async def _join(coordinator: Coordinator, job: Job) -> None:
    plan = job.plan
    started = time.monotonic()
    waited_s = 0.0
    session = await coordinator.cluster.open_stitcher(
        StitchOrder(
            folder=coordinator.storage.job_folder(job.id),
            fps=plan.fps,
            width=plan.width,
            height=plan.height,
            num_frames=plan.num_frames,
        )
    )
    try:
        shot = -1
        for segment in plan.final_segments:
            task = job.tasks[segment.id]
            before = time.monotonic()
            if not await _finished(coordinator, job, task):
                return
            waited_s += time.monotonic() - before
            if segment.shot != shot and segment.head == 0:
                await session.start(_path(coordinator, task, task.take), _kept(segment))
            elif not await _join_seam(coordinator, job, task, session):
                return
            shot = segment.shot
        published = await session.finish()
        if job.status == "running":
            coordinator.ledger.record(
                JobPublished(
                    job_id=job.id,
                    num_frames=published.num_frames,
                    frames_sha256=published.frames_sha256,
                    size_bytes=published.size_bytes,
                    stitch_s=time.monotonic() - started - waited_s,
                )
            )
    finally:
        await session.close()


async def _join_seam(coordinator: Coordinator, job: Job, task: Task, session: StitchSession) -> bool:
    """Join one segment to the one before, rendering it again where its seam fails. False: job ended."""
    segment = task.segment
    seam = job.seams.get(task.id, Seam())
    proposed: int | None = None
    while seam.accepted_take is None:
        if not await _finished(coordinator, job, task):
            return False
        if task.take not in seam.measured:
            proposed = task.take
            report = await session.propose(_path(coordinator, task, proposed), _kept(segment), segment.head)
            coordinator.ledger.record(
                SeamMeasured(
                    job_id=job.id,
                    task_id=task.id,
                    take=proposed,
                    report=report,
                    passed=not report["failed_gates"],
                )
            )
            seam = job.seams[task.id]
        decision = after_seam(seam, may_rerender=task.id not in job.dependents)
        if isinstance(decision, Rerender):
            coordinator.ledger.record(
                TaskReopened(job_id=job.id, task_id=task.id, take=decision.take, reason=decision.reason)
            )
            coordinator.dispatch()
        else:
            coordinator.ledger.record(SeamAccepted(job_id=job.id, task_id=task.id, take=decision.take))
    if proposed != seam.accepted_take:
        path = _path(coordinator, task, seam.accepted_take)
        await session.propose(path, _kept(segment), segment.head)
    await session.accept()
    return True


def _kept(segment: Segment) -> int:
    return segment.end - segment.start


def _path(coordinator: Coordinator, task: Task, take: int) -> Path:
    return coordinator.storage.path(task.artifacts[take].sha256)


async def _finished(coordinator: Coordinator, job: Job, task: Task) -> bool:
    """Wait until a task is done. False: the job ended first."""

    def waiting() -> bool:
        return task.status != "done" and job.status == "running"

    if waiting():
        with coordinator.ledger.watch() as queue:
            while waiting():
                await queue.get()
    return job.status == "running"
