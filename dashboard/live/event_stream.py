"""The farm's events as server-sent events (WHATWG HTML, section 9.2): of one, and of those stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.state import Event, JobSubmitted

HEARTBEAT = b": still here\n\n"
#: Of a job's submission neither the plan, which may be megabytes, nor the files with this machine's paths.
_FILES = ("inputs", "audio", "mask", "references")
_UNTOLD: dict[str, Any] = {"plan": True, "request": dict.fromkeys(_FILES, True)}
_REMOVED = ", ".join(f"'$.request.{name}'" for name in _FILES)
_STORED = f"""
SELECT seq, at, job_id, type,
    CASE type
        WHEN 'job_submitted' THEN CAST(json_remove(CAST(body AS TEXT), '$.plan', {_REMOVED}) AS BLOB)
        ELSE body
    END
FROM events WHERE seq > :after AND seq <= :until {{of_job}} {{of_types}} ORDER BY seq LIMIT :limit
"""


@dataclass(frozen=True)
class StoredEvent:
    """An event as the journal holds it; ``body`` is its JSON, without what nobody outside is told."""

    seq: int
    at: float
    job_id: str | None
    type: str
    body: bytes

    def message(self) -> bytes:
        return message(self.type, timed(self.at, self.body), self.seq)


def message(name: str, data: bytes, seq: int | None = None) -> bytes:
    """One server-sent event; ``data`` is JSON on one line."""
    number = b"" if seq is None else b"id: %d\n" % seq
    return b"%sevent: %s\ndata: %s\n\n" % (number, name.encode(), data)


def event_message(seq: int, at: float, event: Event) -> bytes:
    """A journal event as it goes to every watcher of the farm."""
    untold = _UNTOLD if isinstance(event, JobSubmitted) else None
    return message(event.type, timed(at, event.model_dump_json(exclude=untold).encode()), seq)


def timed(at: float, body: bytes) -> bytes:
    """A JSON object with its time put in front."""
    return b'{"at":%s,%s' % (repr(at).encode(), body[1:])


def stored_events(
    journal: Path,
    *,
    after: int,
    until: int,
    job_id: str | None = None,
    types: Collection[str] | None = None,
    limit: int,
) -> list[StoredEvent]:
    """At most ``limit`` events with ``after < seq <= until``, of one job or all, of some types or all.

    Reads over a connection of its own, so that any thread may call it while the journal is written.
    """
    wanted = {"after": after, "until": until, "limit": limit, "job_id": job_id}
    wanted["types"] = json.dumps(list(types or ()))
    query = _STORED.format(
        of_job="" if job_id is None else "AND job_id = :job_id",
        of_types="" if types is None else "AND type IN (SELECT value FROM json_each(:types))",
    )
    with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)) as db:
        return [StoredEvent(*row) for row in db.execute(query, wanted)]
