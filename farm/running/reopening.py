"""Jobs that go on after they had ended, and results that are made again because the storage has lost them.

A result is lost when its file is missing or holds other bytes than were stored. It is rendered again by
itself, as the same take, so that a deterministic model gives the same frames; a lost video is joined again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from farm.errors import InvalidInput, NotReady
from farm.running.storage import Storage, stored_bytes
from farm.scheduling import why_not_retried
from farm.state import Job, JobReopened, JobRetried, Ledger, Task, TaskReopened, lost_results, to_rerender

log = logging.getLogger(__name__)

#: A segment that this coordinator has lost more often stops its job: the disk is not to be trusted.
MAX_LOSSES = 3


class Jobs(Protocol):
    """Whose jobs they are."""

    def begin(self, job: Job) -> None:
        """Join a running job and hand out its segments."""

    def dispatch(self) -> None:
        """Hand out the segments that are ready."""

    def withdraw(self, tasks: Iterable[Task], reason: str) -> None:
        """Take back what runs of these tasks."""

    def stop(self, job: Job, reason: str) -> None:
        """End a job with the reason; what is done is kept."""


class Reopening:
    """Lets jobs run again, and loses no job over a lost file."""

    def __init__(self, ledger: Ledger, storage: Storage, jobs: Jobs) -> None:
        self._ledger = ledger
        self._storage = storage
        self._jobs = jobs
        self._losses: Counter[tuple[str, str]] = Counter()
        #: Files whose content was found to be right, as they were then.
        self._checked: dict[Path, tuple[int, ...]] = {}

    def retry(self, job_id: str) -> None:
        """As ``Coordinator.retry`` says."""
        job = self._ledger.job(job_id)
        refused = why_not_retried(self._ledger.state, job)
        if refused:
            raise InvalidInput(f"job {job_id} {refused}")
        self._ledger.record(JobRetried(job_id=job_id))
        self._begin(job)

    def rerender(self, job_id: str, start: int, end: int) -> list[str]:
        """As ``Coordinator.rerender`` says."""
        job = self._ledger.job(job_id)
        tasks = to_rerender(job, start, end)
        self._storage.check_space(stored_bytes(job.plan, (task.segment for task in tasks)))
        takes = {task.id: task.next_take for task in tasks if task.status == "done"}
        self._jobs.withdraw(tasks, "what it starts from is rendered again")
        self._ledger.record(JobReopened(job_id=job_id, takes=takes))
        self._begin(job)
        return [task.id for task in tasks]

    def join_lost_videos(self) -> None:
        """Join the videos again that are published and not there."""
        for job in list(self._ledger.state.jobs.values()):
            if job.status == "succeeded" and job.published and not self._storage.shows(job.published):
                self._reopen(job, "its video is gone from the storage")

    def lost(self, job: Job, task: Task, take: int, why: str) -> None:
        """A result was found to be lost. A job that runs or has succeeded makes it again, if it is kept."""
        if task.status != "done" or take != job.kept_take(task):
            return
        ids = {"job_id": job.id, "task_id": task.id}
        log.warning("take %d of %s of %s is lost: %s", take, task.id, job.id, why, extra=ids)
        self._losses[job.id, task.id] += 1
        if self._losses[job.id, task.id] > MAX_LOSSES:
            if job.status == "running":
                times = f"{MAX_LOSSES + 1} times; check the disk"
                self._jobs.stop(job, f"segment {task.id} was lost from the storage {times} ({why})")
        elif job.status == "succeeded":
            self._reopen(job, f"segment {task.id} is lost: {why}", (task, take))
        elif job.status == "running":
            self._render_again(job, task, take, why)
            self._jobs.dispatch()

    async def lost_inputs(self, job: Job, task: Task) -> list[Task]:
        """Of the results that a task is rendered from, those that are lost. Reads them all.

        A lost input of the job itself stops it: nobody can make that again.
        """
        shot = job.plan.shots[task.segment.shot]
        beside = (job.plan.mask, *job.plan.references)
        for media in (shot.media, shot.last_media, *beside, *job.pictures.values()):
            if media is not None and not await asyncio.to_thread(self._storage.is_whole, media.sha256):
                if job.status == "running":
                    reason = f"its input {media.sha256[:12]} is missing from the storage, or damaged"
                    self._jobs.stop(job, f"{reason}; submit it again")
                return []
        lost = []
        for dependency in (job.tasks[task_id] for task_id in task.segment.depends_on):
            artifact = dependency.artifact
            for sha256 in artifact.hashes if artifact else ():
                if not await asyncio.to_thread(self._storage.is_whole, sha256):
                    lost.append(dependency)
                    break
        return lost

    async def segment_path(self, job: Job, task: Task, take: int) -> Path:
        """Where a take lies, its content checked.

        Raises:
            NotReady: it is lost.
        """
        sha256 = task.artifacts[take].sha256
        path = self._storage.path(sha256)
        if not await self._is_right(path, sha256):
            self.lost(job, task, take, "its file is missing or damaged")
            raise NotReady(
                f"segment {task.id} of {job.id} was lost from the storage; "
                + (
                    "it is rendered again" if job.status == "running" else f"`farm retry {job.id}` renders it"
                ),
                param="segment_id",
            )
        return path

    async def video_path(self, job: Job) -> Path:
        """Where the published video lies, its content checked.

        Raises:
            NotReady: there is none yet, or it is lost.
        """
        if job.published is None:
            raise NotReady(f"job {job.id} has no video yet: it is {job.status}", param="name")
        path, published = self._storage.video_path(job.id), job.published
        there = await asyncio.to_thread(self._storage.shows, published)
        if there and (published.sha256 is None or await self._is_right(path, published.sha256)):
            return path
        if job.published is published:
            if job.status == "succeeded":
                self._reopen(job, "its video is missing or damaged")
            joined = "it is joined again" if job.status == "running" else f"`farm retry {job.id}` makes it"
            raise NotReady(f"the video of {job.id} was lost from the storage; {joined}", param="name")
        return path  # another one was published meanwhile

    async def _is_right(self, path: Path, sha256: str) -> bool:
        """Whether a file has this content. One that is as it was at the last look is not read again."""
        try:
            about = os.stat(path)
        except OSError:
            return False
        seen = (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        if self._checked.get(path) == seen:
            return True
        if not await asyncio.to_thread(self._storage.has_content, path, sha256):
            return False
        self._checked[path] = seen
        return True

    def _reopen(self, job: Job, reason: str, *lost: tuple[Task, int]) -> None:
        log.warning("job %s runs again: %s", job.id, reason, extra={"job_id": job.id})
        self._ledger.record(JobReopened(job_id=job.id, takes={}, reason=reason))
        for task, take in lost:
            self._render_again(job, task, take, reason)
        self._begin(job)

    def _begin(self, job: Job) -> None:
        """Let a job run that had ended; what it lost meanwhile is rendered again."""
        for task, take in lost_results(job, self._storage.holds):
            self._render_again(job, task, take, "its file is gone from the storage")
        self._jobs.begin(job)

    def _render_again(self, job: Job, task: Task, take: int, reason: str) -> None:
        # Whoever reads it now would read what is lost.
        self._jobs.withdraw((job.tasks[d] for d in job.dependents.get(task.id, ())), "its input is lost")
        self._ledger.record(TaskReopened(job_id=job.id, task_id=task.id, take=take, reason=reason))
