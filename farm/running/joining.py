"""Joining a job's segments into its video, in order, as they arrive.

The stitcher is driven from what the journal says: after a crash it starts over from the stored
segments, takes the decisions that were made as they were made, and ends in the same frames.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from farm.errors import CannotRun
from farm.planning import Segment
from farm.running.cluster import Blob, Cluster, Damaged, StitchOrder, StitchSession
from farm.running.job_records import record_head, write_record
from farm.running.orders import segment_blob
from farm.running.reopening import Reopening
from farm.running.storage import Storage
from farm.scheduling import Rerender, after_fill, after_seam
from farm.state import (
    Artifact,
    Job,
    JobPublished,
    KeyframesReady,
    Ledger,
    Seam,
    SeamAccepted,
    SeamMeasured,
    Task,
    TaskReopened,
)
from farm.threads import to_its_end

log = logging.getLogger(__name__)

R = TypeVar("R")

#: A stitcher that dies is started over this often before the job stops.
MAX_STITCHERS = 3


class StitchFailed(Exception):
    """The stitcher could not go on: a damaged segment, a full disk, a dead process."""


class Joiners:
    """Joins every running job, each by one joiner at a time: they write the same files."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        storage: Storage,
        reopening: Reopening,
        *,
        dispatch: Callable[[], None],
        stop_job: Callable[[Job, str], None],
    ) -> None:
        """``dispatch`` hands out a segment that is wanted again; ``stop_job`` ends a job for a reason."""
        self._cluster = cluster
        self._ledger = ledger
        self._storage = storage
        self._reopening = reopening
        self._dispatch = dispatch
        self._stop_job = stop_job
        #: By job: joiners that have not let go of its files yet; only the last is not to end.
        self.open: dict[str, list[asyncio.Task[None]]] = {}

    def begin(self, job: Job) -> None:
        """Join a job, from its first segment on, once whoever joins it has let go."""
        before = self.stop(job.id)
        joiner = asyncio.ensure_future(self._join_after(before, job))
        self.open[job.id] = [*before, joiner]
        joiner.add_done_callback(partial(self._closed, job.id))

    def stop(self, job_id: str) -> list[asyncio.Task[None]]:
        """Let the joiner of a job end. Returns those that have yet to let go of its files."""
        joiners = self.open.get(job_id, [])
        if joiners and not joiners[-1].cancelling():
            joiners[-1].cancel()
        return list(joiners)

    async def complete_records(self) -> None:
        """Write down beside its video what became of each ended job, where that is not written yet."""
        for job in list(self._ledger.state.jobs.values()):
            folder = self._storage.job_path(job.id)
            head = record_head(folder)
            if job.status != "running" and folder.exists() and (head is None or head.last_seq < job.last_seq):
                await _keep_record(self._storage, self._ledger, job)

    async def close(self) -> None:
        """Let all of them end."""
        ending = [joiner for job_id in list(self.open) for joiner in self.stop(job_id)]
        await asyncio.gather(*ending, return_exceptions=True)

    async def _join_after(self, before: list[asyncio.Task[None]], job: Job) -> None:
        if before:
            await asyncio.wait(before)
        await self._join_job(job)

    async def _join_job(self, job: Job) -> None:
        """Run until the job is published or has ended otherwise."""
        for number in range(1, MAX_STITCHERS + 1):
            try:
                await _Joining(
                    self._cluster, self._ledger, self._storage, self._reopening, self._dispatch, job
                ).run()
                return
            except _Ended:
                return
            except Exception as error:  # whatever it was: nobody else ends a job whose joiner is gone
                said = "job %s: stitcher %d of %d failed: %s"
                log.warning(said, job.id, number, MAX_STITCHERS, error, extra={"job_id": job.id})
                if number == MAX_STITCHERS and job.status == "running":
                    self._stop_job(job, f"the segments could not be joined: {error}")

    def _closed(self, job_id: str, joiner: asyncio.Task[None]) -> None:
        self.open[job_id].remove(joiner)
        if not self.open[job_id]:
            del self.open[job_id]


class _Ended(Exception):
    """The job ended before its video was whole."""


class _Joining:
    """One stitcher's way through a job."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        storage: Storage,
        reopening: Reopening,
        dispatch: Callable[[], None],
        job: Job,
    ) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._storage = storage
        self._reopening = reopening
        self._dispatch = dispatch
        self._job = job
        self._waited_s = 0.0

    async def run(self) -> None:
        plan = self._job.plan
        sound = plan.sound
        await _keep_record(self._storage, self._ledger, self._job)
        await self._reviewed()  # a stitcher is a process
        session = await self._cluster.open_stitcher(
            StitchOrder(
                folder=self._storage.job_folder(self._job.id),
                fps=plan.fps,
                width=plan.width,
                height=plan.height,
                num_frames=plan.num_frames,
                delivery=plan.delivery,
                sound=None
                if sound is None
                else Blob(sha256=sound.sha256, path=self._storage.path(sound.sha256)),
                sound_copied=sound is not None and sound.copied,
                sound_zero_s=None if sound is None else sound.zero_s,
            )
        )
        started = time.monotonic()
        try:
            shot = -1
            for segment in plan.final_segments:
                task = self._job.tasks[segment.id]
                await self._finished(task)
                if segment.shot != shot and segment.head == 0:
                    await self._filled(task)
                    await self._read(task, task.take, partial(session.start, num_frames=_kept(segment)))
                else:
                    await self._join_seam(task, session)
                shot = segment.shot
            published = await session.finish()
            if self._job.status == "running":
                self._ledger.record(
                    JobPublished(
                        job_id=self._job.id,
                        num_frames=published.num_frames,
                        frames_sha256=published.frames_sha256,
                        size_bytes=published.size_bytes,
                        stitch_s=time.monotonic() - started - self._waited_s,
                        sha256=published.sha256,
                    )
                )
                await _keep_record(self._storage, self._ledger, self._job)
        finally:
            await session.close()

    async def _filled(self, task: Task) -> None:
        """Render a window again that gets badly from one given frame to the other, where no seam tells."""
        may_rerender = task.id not in self._job.dependents
        while again := after_fill(task, may_rerender=may_rerender):
            self._reopen(task, again)
            await self._finished(task)

    def _reopen(self, task: Task, again: Rerender) -> None:
        self._ledger.record(
            TaskReopened(job_id=self._job.id, task_id=task.id, take=again.take, reason=again.reason)
        )
        self._dispatch()

    async def _join_seam(self, task: Task, session: StitchSession) -> None:
        """Join a segment to the one before, rendering it again where its seam fails."""
        job, ledger, segment = self._job, self._ledger, task.segment
        seam = job.seams.get(task.id, Seam())
        proposed: int | None = None

        async def propose(take: int) -> dict[str, Any]:
            return await self._read(
                task, take, partial(session.propose, num_frames=_kept(segment), overlap=segment.head)
            )

        while seam.accepted_take is None:
            await self._finished(task)
            if task.take not in seam.measured:
                proposed = task.take
                report = _with_fill(await propose(proposed), task.artifacts[proposed])
                ledger.record(
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
                self._reopen(task, decision)
            else:
                ledger.record(SeamAccepted(job_id=job.id, task_id=task.id, take=decision.take))
        if proposed != seam.accepted_take:
            await propose(seam.accepted_take)
        await session.accept()

    async def _read(self, task: Task, take: int, read: Callable[[Blob], Awaitable[R]]) -> R:
        """Let the stitcher read a take; one that is lost is rendered again first."""
        while True:
            try:
                return await read(segment_blob(self._storage, task.artifacts[take]))
            except Damaged as error:
                self._reopening.lost(self._job, task, take, str(error))
                if task.status == "done" and self._job.status == "running":
                    raise StitchFailed(str(error)) from error
                await self._finished(task)

    async def _finished(self, task: Task) -> None:
        """Wait until a task is done.

        Raises:
            _Ended: the job ended first.
        """
        before = time.monotonic()
        await self._until(lambda: task.status == "done")
        self._waited_s += time.monotonic() - before

    async def _reviewed(self) -> None:
        """Until its user has approved its keyframes; says each time that they are there."""
        job = self._job
        while job.held:
            await self._until(lambda: not job.held or (job.awaits_review and not job.review_told))
            if job.held:
                self._ledger.record(KeyframesReady(job_id=job.id))

    async def _until(self, fact: Callable[[], bool]) -> None:
        """Wait for something that an event makes true. Raises as ``_finished`` does."""
        with self._ledger.watch() as queue:
            while not fact() and self._job.status == "running":
                await queue.get()
        if self._job.status != "running":
            raise _Ended


async def _keep_record(storage: Storage, ledger: Ledger, job: Job) -> None:
    """Write the job's story into its folder; the job does not fail over it."""
    try:
        await to_its_end(write_record, storage, ledger.journal.path, job.id, job.first_seq)
    except CannotRun as error:
        log.warning("%s is not told in its folder: %s", job.id, error.message, extra={"job_id": job.id})


def _with_fill(report: dict[str, Any], artifact: Artifact) -> dict[str, Any]:
    """A seam's report, with what was measured of the window behind it, if that lies between given frames."""
    fill = artifact.fill
    if fill is None:
        return report
    failed = [*report["failed_gates"], *fill.failed_gates]
    return report | {"fill": fill.model_dump(mode="json"), "failed_gates": failed, "passed": not failed}


def _kept(segment: Segment) -> int:
    return segment.end - segment.start
