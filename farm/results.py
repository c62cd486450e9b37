"""What workers hand in: stored first, counted then, with the log of the attempt beside the job's video."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from farm.cluster import Finished
from farm.errors import CannotRun
from farm.events import Artifact, AttemptSucceeded
from farm.state import attempt_ids

if TYPE_CHECKING:
    from farm.coordinator import Coordinator

log = logging.getLogger(__name__)


async def keep_result(coordinator: Coordinator, result: Finished) -> None:
    """Store a result, then let it count: a crash in between only repeats the attempt."""
    async with AsyncExitStack() as held:
        try:
            sha256 = await held.enter_async_context(coordinator.blobs.stored(result.content))
            handover = None
            if result.handover is not None:
                handover = await held.enter_async_context(coordinator.blobs.stored(result.handover))
        except CannotRun as error:
            coordinator.give_up(result.attempt_id, error.message)
            return
        await keep_log(coordinator, result.attempt_id, result.log)
        found = coordinator.owned(result.attempt_id)
        if found is None:
            return
        job, task, attempt = found
        coordinator.ledger.record(
            AttemptSucceeded(
                job_id=job.id,
                task_id=task.id,
                attempt_id=attempt.id,
                artifact=Artifact(
                    sha256=sha256,
                    size_bytes=len(result.content),
                    num_frames=result.num_frames,
                    frames_sha256=result.frames_sha256,
                    handover_sha256=handover,
                ),
                wall_s=result.wall_s,
                load_s=result.load_s,
                peak_bytes=result.peak_bytes,
            )
        )
        coordinator.succeeded(task, attempt)


async def keep_log(coordinator: Coordinator, attempt_id: str, text: str) -> None:
    """Keep what a worker noted during an attempt. One that cannot be written is missed, no more."""
    ids = attempt_ids(attempt_id)
    if not text or ids["job_id"] not in coordinator.ledger.state.jobs:
        return
    number = int(attempt_id.rsplit("/", 1)[1])
    path = coordinator.storage.attempt_log_path(ids["job_id"], ids["task_id"], number)
    try:
        await asyncio.to_thread(coordinator.storage.write_text, path, text)
    except CannotRun as error:
        log.warning("the log of %s is not kept: %s", attempt_id, error.message, extra=ids)
    if ids["job_id"] not in coordinator.ledger.state.jobs:  # deleted meanwhile
        await coordinator.blobs.remove_job(ids["job_id"], ())
