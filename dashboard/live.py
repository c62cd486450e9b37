"""A job's events as they happen, for a browser's EventSource or any client of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from dashboard.schemas import shown_event
from farm.ledger import Ledger
from farm.report import progress
from farm.state import Job

PROGRESS_INTERVAL_S = 0.5
HEARTBEAT_S = 10.0


async def job_events(ledger: Ledger, job: Job, *, after: int) -> AsyncIterator[bytes]:
    """The job's events past sequence number ``after`` until it has ended.

    An event of the journal carries its sequence number as ``id`` and its time as ``at``. Between them stand
    ``progress`` events without an id; the last one is ``end``, so that its absence shows a lost connection.
    """
    loop = asyncio.get_running_loop()
    events = ledger.follow(job.id, after=after)
    coming = asyncio.ensure_future(anext(events))
    said_at = progress_at = loop.time()
    shown: dict[str, Any] = {}
    try:
        while True:
            await asyncio.wait({coming}, timeout=PROGRESS_INTERVAL_S)
            now = loop.time()
            if coming.done():
                try:
                    seq, at, event = coming.result()
                except StopAsyncIteration:
                    break
                coming = asyncio.ensure_future(anext(events))
                said_at = now
                yield _message(event.type, {"at": at, **shown_event(event)}, seq)
            if now - progress_at >= PROGRESS_INTERVAL_S and (snapshot := _progress(job)) != shown:
                said_at, progress_at, shown = now, now, snapshot
                yield _message("progress", snapshot)
            if now - said_at >= HEARTBEAT_S:
                said_at = now
                yield b": still here\n\n"
        yield _message("end", {"type": "end", "status": job.status})
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await coming


def _message(name: str, data: dict[str, Any], seq: int | None = None) -> bytes:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _progress(job: Job) -> dict[str, Any]:
    return {
        "type": "progress",
        "progress": progress(job),
        "running": [
            {
                "task_id": task.id,
                "attempt_id": attempt.id,
                "worker_id": attempt.worker_id,
                "phase": attempt.phase,
                "done_fraction": round(attempt.done_fraction, 4),
            }
            for task in job.tasks.values()
            for attempt in task.running_attempts
        ],
    }
