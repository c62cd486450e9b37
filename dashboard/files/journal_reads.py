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

_TASK_EVENTS = """
SELECT at, type, CAST(body AS TEXT) FROM events
WHERE job_id = ? AND seq >= ? AND type != 'job_submitted' AND (
    json_extract(CAST(body AS TEXT), '$.task_id') = ?
    OR type IN ('job_reopened', 'keyframes_remade', 'keyframe_replaced')
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


def task_events(journal: Path, job_id: str, first_seq: int, task_id: str) -> list[TaskEvent]:
    """What happened to one segment of a job that was submitted with event ``first_seq``."""
    with _connected(journal) as db:
        rows = db.execute(_TASK_EVENTS, (job_id, first_seq, task_id, task_id))
        return [TaskEvent(at, kind, json.loads(body)) for at, kind, body in rows]


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
