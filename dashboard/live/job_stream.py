"""What happens to one job, as server-sent events: what was, what comes, and how far it is in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from dashboard.http import shown_event
from dashboard.live.event_stream import HEARTBEAT, StoredEvent, event_message, message, stored_events
from dashboard.live.feed import HEARTBEAT_S, REPLAY_EVENTS
from farm.reporting import progress, waits
from farm.running import told_rows
from farm.state import Job, JobSubmitted, Ledger, Recorded, State

PROGRESS_INTERVAL_S = 0.5
#: Kept for one that reads slowly; older ones are in the journal.
WAITING_EVENTS = 1000


async def job_events(ledger: Ledger, job: Job, folder: Path, *, after: int) -> AsyncIterator[bytes]:
    """The job's events past sequence number ``after`` until it has ended; old ones its folder may tell.

    An event of the journal carries its sequence number as ``id`` and its time as ``at``. Between them stand
    ``progress`` events without an id; the last one is ``end``, so that its absence shows a lost connection.
    """
    loop = asyncio.get_running_loop()
    known = max(after, job.first_seq - 1)
    with ledger.watch(newest=WAITING_EVENTS) as happened:
        until = ledger.last_seq
        async for data in _past(ledger, job, folder, known, until):
            yield data
        known = until
        said_at = progress_at = loop.time()
        shown: dict[str, Any] = {}
        while job.status == "running" or not happened.empty():
            heard: Recorded | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_INTERVAL_S):
                    heard = await happened.get()
            if heard and heard[0] == known + 1:
                known = heard[0]
                if getattr(heard[2], "job_id", None) == job.id:
                    said_at = loop.time()
                    yield event_message(*heard)
            if heard and known < heard[0]:  # some were not kept
                async for data in _past(ledger, job, folder, known, heard[0]):
                    said_at = loop.time()
                    yield data
                known = heard[0]
            now = loop.time()
            due = now - progress_at >= PROGRESS_INTERVAL_S and job.status == "running"
            if due and (snapshot := _progress(ledger.state, job)) != shown:
                said_at, progress_at, shown = now, now, snapshot
                yield message("progress", _json(snapshot))
            if now - said_at >= HEARTBEAT_S:
                said_at = now
                yield HEARTBEAT
    yield message("end", _json({"type": "end", "status": job.status}))


async def _past(ledger: Ledger, job: Job, folder: Path, after: int, until: int) -> AsyncIterator[bytes]:
    """The job's events with ``after < seq <= until``, from its folder and from the journal behind that."""
    while after < until:
        moved = ledger.journal.moved_to(job.id)
        if max(after, job.first_seq - 1) < moved:
            told = _told(folder, after, moved)
            while some := await asyncio.to_thread(lambda rows: list(islice(rows, REPLAY_EVENTS)), told):
                yield b"".join(_submission(event, job) or event.message() for event in some)
            after = moved
            continue
        reached, data = await asyncio.to_thread(_stored, ledger.journal.path, job, after, until)
        if ledger.journal.moved_to(job.id) > after:  # while it was read
            continue
        after = reached
        if data:
            yield data


def _told(folder: Path, after: int, until: int) -> Iterator[StoredEvent]:
    """What a job's folder tells of these events."""
    for row in told_rows(folder):
        if after < row.seq <= until:
            event = json.loads(row.body)
            yield StoredEvent(row.seq, row.at, event["job_id"], event["type"], row.body.encode())


def _stored(journal: Path, job: Job, after: int, until: int) -> tuple[int, bytes]:
    """The job's next stored events: how far they reach, and their bytes."""
    found = stored_events(journal, after=after, until=until, job_id=job.id, limit=REPLAY_EVENTS)
    data = b"".join(_submission(event, job) or event.message() for event in found)
    return found[-1].seq if len(found) == REPLAY_EVENTS else until, data


def _submission(event: StoredEvent, job: Job) -> bytes | None:
    """Who follows one job is told its plan, too."""
    if event.type != "job_submitted":
        return None
    whole = JobSubmitted(
        job_id=job.id,
        request=job.request,
        plan=job.plan,
        submitted_by=job.submitted_by,
        submitted_by_id=job.submitted_by_id,
        remixed_from=job.remixed_from,
    )
    return message(event.type, _json({"at": event.at, **shown_event(whole)}), event.seq)


def _progress(state: State, job: Job) -> dict[str, Any]:
    return {
        "type": "progress",
        "progress": progress(job),
        **waits(state, job),
        "running": [
            {
                "task_id": task.id,
                "attempt_id": attempt.id,
                "worker_id": attempt.worker_id,
                "phase": attempt.phase,
                "done_fraction": round(attempt.done_fraction, 4),
            }
            for task in sorted((job.tasks[task_id] for task_id in job.running_tasks), key=lambda t: t.order)
            for attempt in task.running_attempts
        ],
    }


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()
