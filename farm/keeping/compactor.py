"""The child that makes a snapshot of a journal beside the farm (``compaction``).

    python -m farm.keeping.compactor STATE JOURNAL UNTIL KEPT_FROM     (frames out)

It only reads the journal; it writes the folders of jobs whose stories leave it. It works with what the
machine has left over, and is the first to go where memory runs out.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sqlite3
import sys
from array import array
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from farm.errors import CannotRun, InvalidInput
from farm.keeping.compaction import (
    NUMBERS,
    PART,
    STORIES,
    droppable,
    movable,
    spoken_of,
)
from farm.running import RECORD_NAME, Storage, write_record
from farm.state import Journal, Ledger, State, written_parts

_PR_SET_PDEATHSIG = 1
_NUMBERS_A_FRAME = 8192


def main() -> None:
    root, journal, until, kept_from = sys.argv[1:]
    _step_back()
    gc.disable()
    try:
        for kind, body in frames(Path(root), Path(journal), int(until), int(kept_from)):
            sys.stdout.buffer.write(kind + len(body).to_bytes(4, "big") + body)
        sys.stdout.buffer.flush()
    except (CannotRun, InvalidInput) as error:
        sys.exit(error.message)


def frames(root: Path, path: Path, until: int, kept_from: int) -> Iterator[tuple[bytes, bytes]]:
    """The snapshot of what the journal at ``path`` tells up to event ``until``, and which events it replaces.

    Raises:
        CannotRun: the journal is damaged, or a snapshot would not be the same state.
    """
    with closing(Journal(path, read_only=True)) as journal:
        ledger = Ledger(journal)
        ledger.replay(until)
    for part in written_parts(ledger.state):
        yield PART, part
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        stories = _moved(database, ledger.state, Storage(root), path, until, kept_from)
        numbers = array("q", _droppable(database, ledger.state, stories, kept_from))
    for first in range(0, len(numbers), _NUMBERS_A_FRAME):
        yield NUMBERS, numbers[first : first + _NUMBERS_A_FRAME].tobytes()
    yield STORIES, json.dumps(stories).encode()


def _moved(
    database: sqlite3.Connection, state: State, storage: Storage, path: Path, until: int, kept_from: int
) -> dict[str, int]:
    """Up to which event the folder of a job tells its story, by job, after those that may be moved were."""
    query = "SELECT job_id, COUNT(*) FROM events WHERE seq <= ? AND job_id IS NOT NULL GROUP BY job_id"
    num_rows = dict(database.execute(query, (kept_from,)))
    before = dict(database.execute("SELECT job_id, moved_to FROM stories"))
    stories = {id: seq for id, seq in before.items() if id in state.jobs and seq >= state.jobs[id].first_seq}
    for job_id in movable(state, num_rows, kept_from):
        if num_rows.get(job_id, 0) > 2:  # its first event and its newest stay
            with suppress(CannotRun, InvalidInput):  # then the journal tells it on
                write_record(storage, path, job_id, state.jobs[job_id].first_seq, until)
                _settle(storage.job_path(job_id))
                stories[job_id] = kept_from
    return stories


def _settle(folder: Path) -> None:
    """Have a job's record on the disk: the journal tells its story no more."""
    for path in (folder / RECORD_NAME, folder, folder.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _droppable(
    database: sqlite3.Connection, state: State, stories: dict[str, int], kept_from: int
) -> Iterator[int]:
    workers = spoken_of(state)
    query = (
        "SELECT json_extract(CAST(body AS TEXT), '$.worker.id'), seq FROM events WHERE type = 'worker_joined'"
    )
    newest_joined = dict(database.execute(query + " AND seq <= ? ORDER BY seq", (kept_from,)))
    joined = {seq for worker_id, seq in newest_joined.items() if worker_id in workers}
    newest = dict(database.execute("SELECT job_id, MAX(seq) FROM events GROUP BY job_id"))
    moved = {job_id for job_id, seq in stories.items() if seq == kept_from}
    rows = database.execute("SELECT seq, job_id FROM events WHERE seq <= ? ORDER BY seq", (kept_from,))
    return droppable(rows, state, moved, joined, newest)


def _step_back() -> None:
    """Take the processor and the memory that others leave, and end with whoever asked."""
    os.nice(19)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
