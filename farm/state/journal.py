"""The journal: events, in order, in one SQLite file, and a snapshot of the state in place of old ones.

Events are only appended. Once a snapshot tells the state that they made, old ones may go
(``farm.keeping.compaction``): the snapshot's parts are written beside the one that counts, counting changes
in one transaction, and what nobody reads any more goes after it, so that a killed process loses nothing.

WAL with ``synchronous=NORMAL``: a killed process loses nothing that was appended; a power cut can lose
the newest appends but never corrupts. What it loses is rendered again. Events that files follow are on the
disk before those files change, so that no folder is ever newer than its journal.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
CREATE TABLE IF NOT EXISTS snapshots (
    seq INTEGER NOT NULL,
    part INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (seq, part)
);
CREATE TABLE IF NOT EXISTS compaction (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    snapshot_seq INTEGER NOT NULL,
    kept_from INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS stories (
    job_id TEXT PRIMARY KEY,
    moved_to INTEGER NOT NULL
);
"""
#: Which of these tables there are; 1 had the events alone.
_VERSION = 2


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


def moved_to(database: sqlite3.Connection, job_id: str) -> int:
    """Up to which event a job's story is in its folder, and no more here; 0: all of it is here."""
    found = database.execute("SELECT moved_to FROM stories WHERE job_id = ?", (job_id,)).fetchone()
    return int(found[0]) if found else 0


class Journal:
    """One writer. Readers of other processes may look while it is written."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
                self._know()
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before SQLite opens it: its side files take over the mode.
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # heard by a new file alone
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._durable = self._together = False
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise CannotRun(f"the journal {path} was written by a newer farm; start that one")
            if version < _VERSION:
                self._db.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
            self._know()
        except (OSError, sqlite3.Error) as error:
            raise CannotRun(
                f"the journal {path} cannot be opened ({error}); free disk space or choose another --state"
            ) from error

    def _know(self) -> None:
        found = self._db.execute("SELECT snapshot_seq, kept_from FROM compaction").fetchone()
        self._compaction: tuple[int, int] = found or (0, 0)

    @property
    def snapshot_seq(self) -> int:
        """The snapshot tells what the events up to this one have made; 0: there is none."""
        return self._compaction[0]

    @property
    def kept_from(self) -> int:
        """Every event past this one is here."""
        return self._compaction[1]

    def append(self, event: Event, at: float) -> int:
        """Write one event and return its sequence number.

        Raises:
            CannotRun: the disk is full or the file cannot be written; nothing was changed.
        """
        job_id = getattr(event, "job_id", None)
        try:
            self._write_durably(durable := event.type in _DURABLE)
            if self._together and not durable and not self._db.in_transaction:
                self._db.execute("BEGIN")
            cursor = self._db.execute(
                "INSERT INTO events (at, job_id, type, body) VALUES (?, ?, ?, ?)",
                (at, job_id, event.type, event.model_dump_json().encode()),
            )
        except sqlite3.Error as error:
            raise CannotRun(
                f"the journal cannot be written ({error}); free disk space and start again"
            ) from error
        return cursor.lastrowid or 0

    def _write_durably(self, durable: bool) -> None:
        if durable != self._durable:
            self._commit()
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def begin(self) -> None:
        """What is appended from now on is written at once when ``end`` is called, and not before it, but for
        events that have to be on the disk: with them, everything before them is written."""
        self._together = True

    def end(self) -> None:
        """
        Raises:
            CannotRun: the disk is full or the file cannot be written; nothing since ``begin`` was.
        """
        self._together = False
        try:
            self._commit()
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise CannotRun(
                f"the journal cannot be written ({error}); free disk space and start again"
            ) from error

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def events(
        self, *, job_id: str | None = None, after: int = 0, until: int | None = None
    ) -> Iterator[tuple[int, float, Event]]:
        """(sequence number, time, event) in order, of one job or of the whole farm.

        Raises:
            CannotRun: one of them cannot be read; says which, and why.
        """
        query = "SELECT seq, at, body FROM events WHERE seq > ?"
        arguments: tuple[object, ...] = (after,)
        if job_id is not None:
            query += " AND job_id = ?"
            arguments += (job_id,)
        if until is not None:
            query += " AND seq <= ?"
            arguments += (until,)
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
        return self._damaged(f"event {seq}", cause)

    def damaged_snapshot(self, cause: str) -> CannotRun:
        """The same of the snapshot."""
        return self._damaged("the snapshot", cause)

    def _damaged(self, what: str, cause: str) -> CannotRun:
        return CannotRun(
            f"{what} of the journal {self.path} is damaged ({cause}); `farm restore` a backup, or move "
            "the journal away: `farm up --adopt` then lists the jobs again whose folders tell of them"
        )

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """What is read in the block is as it was at one moment, also where another process compacts."""
        self._db.execute("BEGIN")
        try:
            self._know()
            yield
        finally:
            self._db.execute("COMMIT")

    def parts(self) -> Iterator[bytes]:
        """Of the snapshot, as they were written down."""
        query = "SELECT body FROM snapshots WHERE seq = ? ORDER BY part"
        return (body for (body,) in self._db.execute(query, (self.snapshot_seq,)))

    # Compaction: small writes, any of which may be the last. Each raises CannotRun as ``append`` does.

    def settle(self) -> None:
        """Have everything on the disk that was appended."""
        with self._all_or_nothing(durable=True):
            self._db.execute("INSERT OR REPLACE INTO compaction VALUES (0, ?, ?)", self._compaction)

    def add_part(self, seq: int, part: int, body: bytes) -> None:
        """Write down a part of a snapshot that does not count yet."""
        with self._all_or_nothing():
            self._db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", (seq, part, body))

    def compact(self, seq: int, kept_from: int, stories: Mapping[str, int]) -> None:
        """From now on the snapshot of ``seq`` counts, and events up to ``kept_from`` may be missing.

        ``stories``: by job, up to which event its folder tells its story instead of the journal.
        """
        with self._all_or_nothing(durable=True):
            self._db.execute("INSERT OR REPLACE INTO compaction VALUES (0, ?, ?)", (seq, kept_from))
            self._db.execute("DELETE FROM stories")
            self._db.executemany("INSERT INTO stories VALUES (?, ?)", stories.items())
        self._know()

    def forget_parts(self, at_most: int) -> bool:
        """Take away some parts of snapshots that do not count; False: there were none."""
        query = "DELETE FROM snapshots WHERE rowid IN (SELECT rowid FROM snapshots WHERE seq != ? LIMIT ?)"
        with self._all_or_nothing():
            return self._db.execute(query, (self.snapshot_seq, at_most)).rowcount > 0

    def forget(self, numbers: Iterable[int]) -> None:
        """Take away events that the snapshot stands for and nobody reads here."""
        with self._all_or_nothing():
            self._db.executemany("DELETE FROM events WHERE seq = ?", ((number,) for number in numbers))

    def give_back(self, num_pages: int) -> bool:
        """Give the disk so many pages that hold nothing any more; False: there are none to give."""
        (before,) = self._db.execute("PRAGMA freelist_count").fetchone()
        self._db.execute(f"PRAGMA incremental_vacuum({num_pages})").fetchall()
        (left,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return bool(left < before)

    @contextmanager
    def _all_or_nothing(self, *, durable: bool = False) -> Iterator[None]:
        try:
            self._write_durably(durable)
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise CannotRun(f"the journal cannot be written ({error}); free disk space") from error

    def newest_of_jobs(self) -> dict[str, tuple[int, bool]]:
        """By job, the sequence number of its newest event, and whether that is its deletion."""
        query = "SELECT job_id, MAX(seq), type FROM events WHERE job_id IS NOT NULL GROUP BY job_id"
        return {job_id: (seq, kind == "job_deleted") for job_id, seq, kind in self._db.execute(query)}

    def moved_to(self, job_id: str) -> int:
        """Up to which event a job's folder tells its story instead; 0: all of it is here."""
        return moved_to(self._db, job_id)

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
        with self._all_or_nothing():
            self._db.executemany("INSERT INTO events (at, job_id, type, body) VALUES (?, ?, ?, ?)", values)

    def close(self) -> None:
        self._db.close()
