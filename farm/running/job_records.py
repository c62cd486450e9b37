"""What a job's folder tells of the job: its events, so that a job outlives its journal.

The first line names the job and its newest event, each further one is an event as the journal has it.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from pydantic import ValidationError

from farm.errors import CannotRun
from farm.running.storage import Storage
from farm.state import Row, job_rows
from farm.values import Value

RECORD_NAME = "job.jsonl"


class RecordHead(Value):
    job_id: str
    #: Sequence number of its newest event, in the journal it was written from.
    last_seq: int


def write_record(storage: Storage, journal: Path, job_id: str, first_seq: int = 0) -> None:
    """Write down beside a job's video what the journal says of it, from its first event on.

    Raises:
        CannotRun: no space, or the journal cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = list(job_rows(database, job_id, after=first_seq - 1))
    except sqlite3.Error as error:
        raise CannotRun(f"the journal {journal} cannot be read ({error})") from error
    head = RecordHead(job_id=job_id, last_seq=rows[-1].seq if rows else 0)
    lines = [head.model_dump_json(), *(f'{{"at": {row.at!r}, "event": {row.body}}}' for row in rows)]
    storage.write_text(storage.job_path(job_id) / RECORD_NAME, "\n".join((*lines, "")))


def record_head(folder: Path) -> RecordHead | None:
    """The first line of a job folder's record; None where there is none that can be read."""
    try:
        with open(folder / RECORD_NAME, encoding="utf-8") as file:
            return RecordHead.model_validate_json(file.readline())
    except (OSError, ValueError):  # a ValidationError is one
        return None


def read_record(folder: Path) -> list[Row]:
    """The events of a job folder's record, without their sequence numbers.

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
            found = json.loads(line)
            rows.append(Row(0, float(found["at"]), json.dumps(found["event"], separators=(",", ":"))))
        except (ValueError, LookupError, TypeError, ValidationError) as error:
            raise ValueError(f"line {number} of its {RECORD_NAME} is damaged") from error
    return rows
