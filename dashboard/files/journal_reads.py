"""Reading the journal beside the farm, over connections of its own: for threads, not for the event loop."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from farm.capabilities import Worker
from farm.running import told_rows
from farm.state import moved_to

_OF_SEVERAL = ("job_reopened", "keyframes_remade", "keyframe_replaced")
_TASK_EVENTS = f"""
SELECT at, type, CAST(body AS TEXT) FROM events
WHERE job_id = ? AND seq >= ? AND type != 'job_submitted' AND (
    json_extract(CAST(body AS TEXT), '$.task_id') = ?
    OR type IN {_OF_SEVERAL}
        AND json_extract(CAST(body AS TEXT), '$.takes.' || json_quote(?)) IS NOT NULL
)
ORDER BY seq
"""
_JOINED = """
SELECT seq, CASE type WHEN 'worker_joined' THEN CAST(body AS TEXT) END FROM events WHERE seq > ? ORDER BY seq
"""


class TaskEvent(NamedTuple):
    at: float
    type: str
    body: dict[str, Any]


def task_events(journal: Path, folder: Path, job_id: str, first_seq: int, task_id: str) -> list[TaskEvent]:
    """What happened to one segment of a job that was submitted with event ``first_seq``.

    ``folder``: of the job, which tells what the journal has left to it.
    """
    with _connected(journal) as db:
        db.execute("BEGIN")  # both as of one moment
        moved = moved_to(db, job_id)
        rows = db.execute(_TASK_EVENTS, (job_id, max(first_seq, moved + 1), task_id, task_id))
        kept = [TaskEvent(at, kind, json.loads(body)) for at, kind, body in rows]
    if moved < first_seq:
        return kept
    rows_there = (row for row in told_rows(folder, f'"{task_id}"') if first_seq <= row.seq <= moved)
    told = (TaskEvent(row.at, body["type"], body) for row in rows_there for body in (json.loads(row.body),))
    return [*(event for event in told if _concerns(event, task_id)), *kept]


def _concerns(event: TaskEvent, task_id: str) -> bool:
    """As ``_TASK_EVENTS`` asks."""
    if event.type == "job_submitted":
        return False
    taken = event.type in _OF_SEVERAL and task_id in event.body["takes"]
    return taken or event.body.get("task_id") == task_id


class WorkersSeen:
    """Every worker that ever joined, by id, as it last joined. Reads each event once."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._seen: dict[str, Worker] = {}
        self._last_seq = 0
        self._turn = threading.Lock()

    def get(self) -> dict[str, Worker]:
        """Blocks."""
        with self._turn, _connected(self._journal) as db:
            for seq, body in db.execute(_JOINED, (self._last_seq,)):
                self._last_seq = seq
                if body is not None:
                    worker = Worker.model_validate(json.loads(body)["worker"])
                    self._seen[worker.id] = worker
            return dict(self._seen)


@contextmanager
def _connected(journal: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)) as db:
        yield db
