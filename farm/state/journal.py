"""The append-only journal: every event, in order, in one SQLite file.

WAL with ``synchronous=NORMAL``: a killed process loses nothing that was appended; a power cut can lose
the newest appends but never corrupts. What it loses is rendered again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from farm.errors import CannotRun
from farm.state.events import Event, event_adapter

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
            cursor = self._db.execute(
                "INSERT INTO events (at, job_id, type, body) VALUES (?, ?, ?, ?)",
                (at, job_id, event.type, event_adapter.dump_json(event)),
            )
        except sqlite3.Error as error:
            raise CannotRun(
                f"the journal cannot be written ({error}); free disk space and start again"
            ) from error
        return cursor.lastrowid or 0

    def events(self, *, job_id: str | None = None, after: int = 0) -> Iterator[tuple[int, float, Event]]:
        """(sequence number, time, event) in order, of one job or of the whole farm."""
        query = "SELECT seq, at, body FROM events WHERE seq > ?"
        arguments: tuple[object, ...] = (after,)
        if job_id is not None:
            query += " AND job_id = ?"
            arguments = (after, job_id)
        for seq, at, body in self._db.execute(query + " ORDER BY seq", arguments):
            yield seq, at, event_adapter.validate_json(body)

    def close(self) -> None:
        self._db.close()
