"""The append-only journal: every event, in order, in one SQLite file.

WAL with ``synchronous=NORMAL``: a killed process loses nothing that was appended; a power cut can lose
the newest appends but never corrupts. What it loses is rendered again. Events that files follow are on the
disk before those files change, so that no folder is ever newer than its journal.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from farm.errors import CannotRun
from farm.state.events import Event, event_adapter

#: On the disk when ``append`` returns.
_DURABLE = frozenset({"job_submitted", "job_published", "job_deleted"})
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    job_id TEXT,
    type TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_job ON events (job_id, seq);
PRAGMA user_version = 1;
"""


class Row(NamedTuple):
    """An event as it is written down."""

    seq: int
    #: Seconds since the epoch.
    at: float
    #: JSON.
    body: str


def job_rows(database: sqlite3.Connection, job_id: str, *, after: int = 0) -> Iterator[Row]:
    """A job's events past ``after``, as they are written down in a journal."""
    query = "SELECT seq, at, CAST(body AS TEXT) FROM events WHERE job_id = ? AND seq > ? ORDER BY seq"
    return map(Row._make, database.execute(query, (job_id, after)))


class Journal:
    """One writer. Readers of other processes may look while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before SQLite opens it: its side files take over the mode.
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._durable = False
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise CannotRun(
                f"the journal {path} cannot be opened ({error}); free disk space or choose another --state"
            ) from error

    def append(self, event: Event, at: float) -> int:
        """Write one event and return its sequence number.

        Raises:
            CannotRun: the disk is full or the file cannot be written; nothing was changed.
        """
        job_id = getattr(event, "job_id", None)
        try:
            if (durable := event.type in _DURABLE) != self._durable:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            cursor = self._db.execute(
                "INSERT INTO events (at, job_id, type, body) VALUES (?, ?, ?, ?)",
                (at, job_id, event.type, event.model_dump_json().encode()),
            )
        except sqlite3.Error as error:
            raise CannotRun(
                f"the journal cannot be written ({error}); free disk space and start again"
            ) from error
        return cursor.lastrowid or 0

    def events(self, *, job_id: str | None = None, after: int = 0) -> Iterator[tuple[int, float, Event]]:
        """(sequence number, time, event) in order, of one job or of the whole farm.

        Raises:
            CannotRun: one of them cannot be read; says which, and why.
        """
        query = "SELECT seq, at, body FROM events WHERE seq > ?"
        arguments: tuple[object, ...] = (after,)
        if job_id is not None:
            query += " AND job_id = ?"
            arguments = (after, job_id)
        seq = after
        try:
            for seq, at, body in self._db.execute(query + " ORDER BY seq", arguments):
                yield seq, at, event_adapter.validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise self.damaged(seq, f"{place}: {first['msg']}" if place else first["msg"]) from error
        except sqlite3.Error as error:
            raise self.damaged(seq + 1, str(error)) from error

    def damaged(self, seq: int, cause: str) -> CannotRun:
        """What is said of an event that cannot be read or cannot have happened."""
        return CannotRun(
            f"event {seq} of the journal {self.path} is damaged ({cause}); `farm restore` a backup, or move "
            "the journal away: `farm up --adopt` then lists the jobs again whose folders tell of them"
        )

    def newest_of_jobs(self) -> dict[str, tuple[int, bool]]:
        """By job, the sequence number of its newest event, and whether that is its deletion."""
        query = "SELECT job_id, MAX(seq), type FROM events WHERE job_id IS NOT NULL GROUP BY job_id"
        return {job_id: (seq, kind == "job_deleted") for job_id, seq, kind in self._db.execute(query)}

    def rows(self, job_id: str) -> list[Row]:
        """What is written down of a job, but not of an earlier one of its id that was deleted."""
        query = "SELECT MAX(seq) FROM events WHERE job_id = ? AND type = 'job_deleted'"
        deleted = self._db.execute(query, (job_id,)).fetchone()[0]
        return list(job_rows(self._db, job_id, after=deleted or 0))

    def take_over(self, job_id: str, rows: Sequence[Row]) -> None:
        """Append events of a job that another journal had, with their times: all or none of them.

        Raises:
            CannotRun: the disk is full or the file cannot be written; nothing was changed.
        """
        values = [(row.at, job_id, json.loads(row.body)["type"], row.body.encode()) for row in rows]
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO events (at, job_id, type, body) VALUES (?, ?, ?, ?)", values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise CannotRun(f"the journal cannot be written ({error}); free disk space") from error

    def close(self) -> None:
        self._db.close()
