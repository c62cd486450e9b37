"""What a job's folder tells of the job: its events, so that a job outlives its journal.

The first line names the job and its newest event, each further one is an event as the journal has it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from farm.errors import CannotRun
from farm.running.storage import Storage
from farm.state import Row, job_rows, moved_to
from farm.values import Value

RECORD_NAME = "job.jsonl"
_EVENT = '"event": '


class RecordHead(Value):
    job_id: str
    #: Sequence number of its newest event, in the journal it was written from.
    last_seq: int


def write_record(
    storage: Storage, journal: Path, job_id: str, first_seq: int = 0, until: int | None = None
) -> None:
    """Write down beside a job's video its story: what its folder and the journal tell, from its first event.

    ``until``: the newest event that is told.

    Raises:
        CannotRun: no space, or the journal cannot be read.
    """
    rows = job_story(journal, storage.job_path(job_id), job_id, first_seq)
    rows = [row for row in rows if until is None or row.seq <= until]
    head = RecordHead(job_id=job_id, last_seq=rows[-1].seq if rows else 0)
    lines = (f'{{"seq": {row.seq}, "at": {row.at!r}, {_EVENT}{row.body}}}' for row in rows)
    storage.write_text(
        storage.job_path(job_id) / RECORD_NAME, "\n".join((head.model_dump_json(), *lines, ""))
    )


def job_story(journal: Path, folder: Path, job_id: str, first_seq: int = 0) -> list[Row]:
    """Everything that is written down of a job from its first event on, in order.

    What its ``folder`` tells instead of the journal comes from there; without the folder it is missing.

    Raises:
        CannotRun: the journal cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("BEGIN")  # both as of one moment
            moved = moved_to(database, job_id)
            rows = list(job_rows(database, job_id, after=first_seq - 1))
    except sqlite3.Error as error:
        raise CannotRun(f"the journal {journal} cannot be read ({error})") from error
    if moved < max(first_seq, 1):
        return rows
    told = (row for row in told_rows(folder) if first_seq <= row.seq <= moved)
    return [*told, *(row for row in rows if row.seq > moved)]


def told_rows(folder: Path, containing: str = "") -> Iterator[Row]:
    """What a job's folder tells, an event after the other, of those that contain a text.

    Ends where it cannot be read any further.
    """
    with suppress(OSError, ValueError), open(folder / RECORD_NAME, encoding="utf-8") as file:
        next(file, None)
        yield from (_row(line) for line in file if containing in line)


def record_head(folder: Path) -> RecordHead | None:
    """The first line of a job folder's record; None where there is none that can be read."""
    try:
        with open(folder / RECORD_NAME, encoding="utf-8") as file:
            return RecordHead.model_validate_json(file.readline())
    except (OSError, ValueError):  # a ValidationError is one
        return None


def read_record(folder: Path) -> list[Row]:
    """The events of a job folder's record.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    try:
        text = (folder / RECORD_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"it has no {RECORD_NAME} ({error.strerror})") from error
    rows = []
    for number, line in enumerate(text.splitlines()[1:], 2):
        try:
            rows.append(_row(line))
        except ValueError as error:
            raise ValueError(f"line {number} of its {RECORD_NAME} is damaged") from error
    return rows


def _row(line: str) -> Row:
    """
    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(line)
        body = line.rstrip()[line.index(_EVENT) + len(_EVENT) : -1]  # as the journal had it
        return Row(int(found.get("seq", 0)), float(found["at"]), body)  # older farms wrote no numbers
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("it is no event") from error
