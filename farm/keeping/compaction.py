"""The journal stays as large as what the farm still has: a snapshot takes the place of old events.

A child process replays the journal, writes down the state it makes, reads that again and compares
(``compactor``), while the farm goes on. What it sends is written into the journal in small steps, between
which the loop goes on; one transaction makes the new snapshot count, and what it stands for is taken away
behind it. Killed at any moment, the journal replays to the same state: before that transaction by the old
snapshot, after it by the new one. Events that are still there and that it stands for are told, not replayed.

When it is time, and which events may go, is decided by the functions at the top.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from farm.errors import CannotRun
from farm.running import Storage
from farm.state import Ledger, State

log = logging.getLogger(__name__)

#: Events behind a snapshot before another is worth its while, at least; on a large farm as many as its tasks.
MIN_EVENTS = 20_000
#: The newest events stay, whatever they are of: who was away for a moment hears them.
RECENT_EVENTS = 10_000
#: A running job's story leaves the journal once it has so many events, and so many for each segment.
LONG_STORY_EVENTS, LONG_STORY_EVENTS_PER_TASK = 1_000, 8
CHECK_INTERVAL_S = 5.0
#: After one that failed.
PAUSE_S = 600.0
#: Rows that are taken away at once, and pages given back.
ROWS_A_STEP, PARTS_A_STEP, PAGES_A_STEP = 250, 4, 500
#: Frames: a part; numbers of events to take away; last, up to which event which job's folder tells its story.
PART, NUMBERS, STORIES = b"P", b"N", b"S"
#: Kind and length of a frame.
HEAD_BYTES = 5
_Result = TypeVar("_Result")


def is_due(num_events: int, num_tasks: int) -> bool:
    """Whether a journal with so many events behind its snapshot is to be compacted."""
    return num_events >= max(MIN_EVENTS, num_tasks)


def movable(state: State, num_rows: Mapping[str, int], kept_from: int) -> list[str]:
    """Ids of the jobs whose events up to ``kept_from`` may be left to their folders.

    Those that ended before, and running ones with a very long story.

    Args:
        state: As the snapshot tells it.
        num_rows: By job, how many events up to ``kept_from`` the journal holds of it.
        kept_from: The newest event that may go.
    """
    found = []
    for job in state.jobs.values():
        ended = job.status != "running" and job.last_seq <= kept_from
        long = LONG_STORY_EVENTS + LONG_STORY_EVENTS_PER_TASK * len(job.tasks)
        if ended or num_rows.get(job.id, 0) > long:
            found.append(job.id)
    return found


def droppable(
    rows: Iterable[tuple[int, str | None]],
    state: State,
    moved: set[str],
    joined: set[int],
    newest: Mapping[str, int],
) -> Iterator[int]:
    """Which events nobody reads in the journal any more.

    What stays is a job's first event, which has its plan, and its newest; the deletion of a job that is gone;
    all of a job whose story was not moved; and how each worker joined that the farm still speaks of.

    Args:
        rows: Number and job of the events that may go.
        state: As the snapshot tells it.
        moved: The jobs whose folders tell of these events.
        joined: Numbers of the events that tell what a worker is.
        newest: By job, the number of its newest event.
    """
    for seq, job_id in rows:
        if job_id is None:
            goes = seq not in joined
        elif (job := state.jobs.get(job_id)) is None or seq < job.first_seq:
            goes = seq != newest[job_id]
        else:
            goes = job_id in moved and seq not in (job.first_seq, newest[job_id])
        if goes:
            yield seq


def spoken_of(state: State) -> set[str]:
    """Ids of the workers that are here or could be, and of those that a job was given to."""
    found = {*state.workers, *state.drained, *state.starting}
    for job in state.jobs.values():
        for task in job.tasks.values():
            found.update(attempt.worker_id for attempt in task.attempts)
            if task.earlier:
                found.update(worker_id for worker_id, _ in task.earlier.outcomes)
    return found


async def keep_compact(ledger: Ledger, storage: Storage) -> None:
    """Compact the journal whenever that is due, until cancelled."""
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        num_tasks = sum(len(job.tasks) for job in ledger.state.jobs.values())
        if is_due(ledger.last_seq - ledger.journal.snapshot_seq, num_tasks):
            try:
                await compact(ledger, storage)
            except CannotRun as error:
                log.warning("the journal is not compacted: %s; it is tried again", error.message)
                await asyncio.sleep(PAUSE_S)


#: What a snapshot is made of: asked with the state folder, the journal, the newest event that counts and the
#: newest that may go.
Frames = Callable[[Path, Path, int, int], AsyncGenerator[tuple[bytes, bytes], None]]


async def frames_of_child(
    root: Path, journal: Path, until: int, kept_from: int
) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """What a child of this process makes; it ends with the generator.

    Raises:
        CannotRun: it failed; says why.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-W", "ignore", "-m", "farm.keeping.compactor"),
        *map(str, (root, journal, until, kept_from)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the coordinator
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await child.stdout.readexactly(HEAD_BYTES)
                yield head[:1], await child.stdout.readexactly(int.from_bytes(head[1:], "big"))
        said = (await child.stderr.read()).decode(errors="replace").strip()
        if await child.wait():
            cause = said.splitlines()[-1] if said else "it was killed"
            raise CannotRun(f"making a snapshot failed ({cause})")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def compact(ledger: Ledger, storage: Storage, frames: Frames = frames_of_child) -> None:
    """Write a snapshot into the journal and take away what it stands for, in steps beside all else.

    Raises:
        CannotRun: the disk is full, or what was written down is not the same state; nothing has changed.
    """
    journal, seq = ledger.journal, ledger.last_seq
    kept_from = max(journal.kept_from, await ledger.read_up_to(seq - RECENT_EVENTS))
    await _steps(lambda: journal.forget_parts(PARTS_A_STEP))  # of one that was broken off
    journal.settle()  # folders are not to tell what a power cut takes from the journal
    num_parts, stories, numbers = 0, None, array("q")
    async with aclosing(frames(storage.root, journal.path, seq, kept_from)) as sent:
        async for kind, body in sent:
            began = time.perf_counter()
            if kind == PART:
                journal.add_part(seq, num_parts, body)
                num_parts += 1
            elif kind == NUMBERS:
                numbers.frombytes(body)
            else:
                stories = json.loads(body)
            await asyncio.sleep(time.perf_counter() - began)
    if stories is None:
        raise CannotRun("making a snapshot failed (it was not sent whole)")
    journal.compact(seq, kept_from, stories)
    log.info("the journal's first %d events are a snapshot of %d parts now", seq, num_parts)
    for job_id in stories:
        if job_id not in ledger.state.jobs:  # deleted while its folder was written
            storage.discard(storage.job_path(job_id))
    await _steps(lambda: journal.forget_parts(PARTS_A_STEP))
    for first in range(0, len(numbers), ROWS_A_STEP):
        await _step(partial(journal.forget, numbers[first : first + ROWS_A_STEP]))
    await _steps(lambda: journal.give_back(PAGES_A_STEP))


async def _steps(step: Callable[[], bool]) -> None:
    """Take steps while there is something to do."""
    while await _step(step):
        pass


async def _step(step: Callable[[], _Result]) -> _Result:
    """Take a step; then the loop has as much time as that took."""
    began = time.perf_counter()
    result = step()
    await asyncio.sleep(time.perf_counter() - began)
    return result
