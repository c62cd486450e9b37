"""What workers hand in: stored first, counted then, with the log of the attempt beside the job's video."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Protocol

from farm.errors import CannotRun
from farm.running.blobs import Blobs
from farm.running.cluster import Finished
from farm.running.storage import Storage
from farm.state import Artifact, Attempt, AttemptSucceeded, Found, Ledger, Task, attempt_ids

log = logging.getLogger(__name__)


class Attempts(Protocol):
    """Whose attempts the results are of: asked whether one may still count, told what became of it."""

    def owned(self, attempt_id: str) -> Found | None:
        """The fence: an attempt that may still change its task, or None."""

    def succeeded(self, task: Task, attempt: Attempt) -> None:
        """The attempt's result counts."""

    def give_up(self, attempt_id: str, reason: str) -> None:
        """The attempt's result cannot be stored."""

    def lose(self, attempt_id: str, reason: str) -> None:
        """The attempt's result has not come whole."""


class Results:
    """Keeps what workers hand in."""

    def __init__(self, ledger: Ledger, storage: Storage, blobs: Blobs, attempts: Attempts) -> None:
        self._ledger = ledger
        self._storage = storage
        self._blobs = blobs
        self._attempts = attempts

    async def keep(self, result: Finished) -> None:
        """Store a result, then let it count: a crash in between only repeats the attempt."""
        async with AsyncExitStack() as held:
            try:
                sha256 = await held.enter_async_context(self._blobs.stored(result.content))
                handover = None
                if result.handover is not None:
                    handover = await held.enter_async_context(self._blobs.stored(result.handover))
            except CannotRun as error:
                self._attempts.give_up(result.attempt_id, error.message)
                return
            if (sha256, handover) != (result.content_sha256, result.handover_sha256):
                self._attempts.lose(result.attempt_id, "its result was damaged on the way here")
                return
            await self.keep_log(result.attempt_id, result.log)
            found = self._attempts.owned(result.attempt_id)
            if found is None:
                return
            job, task, attempt = found
            replaced = task.artifacts.get(task.take)  # one that was damaged
            succeeded = AttemptSucceeded(
                job_id=job.id,
                task_id=task.id,
                attempt_id=attempt.id,
                artifact=Artifact(
                    sha256=sha256,
                    size_bytes=len(result.content),
                    num_frames=result.num_frames,
                    frames_sha256=result.frames_sha256,
                    handover_sha256=handover,
                    fill=result.fill,
                ),
                wall_s=result.wall_s,
                load_s=result.load_s,
                peak_bytes=result.peak_bytes,
                phases_s=dict(result.phases_s),
            )
            with self._ledger.together():  # with what its worker is given next
                self._ledger.record(succeeded)
                self._attempts.succeeded(task, attempt)
        if replaced is not None:
            await self._blobs.remove_dropped(replaced.hashes)

    async def keep_log(self, attempt_id: str, text: str) -> None:
        """Keep what a worker noted during an attempt. One that cannot be written is missed, no more."""
        ids = attempt_ids(attempt_id)
        if not text or ids["job_id"] not in self._ledger.state.jobs:
            return
        number = int(attempt_id.rsplit("/", 1)[1])
        path = self._storage.attempt_log_path(ids["job_id"], ids["task_id"], number)
        try:
            await asyncio.to_thread(self._storage.write_text, path, text)
        except CannotRun as error:
            log.warning("the log of %s is not kept: %s", attempt_id, error.message, extra=ids)
        if ids["job_id"] not in self._ledger.state.jobs:  # deleted meanwhile
            await self._blobs.remove_job(ids["job_id"], ())
