"""Job folders that tell more than the journal: it is older than they are, or another one.

A folder is made after its job is in the journal and on the disk, so that no crash and no power cut leaves
one that is newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from farm.errors import CannotRun
from farm.running import Storage, read_record, record_head, write_record
from farm.state import JOURNAL_NAME, Journal, Row, State, apply, event_adapter, refusal, write_private

#: Which newer folders are gone on without, in the state folder.
IGNORED_NAME = "ignored-folders.json"
_ignored_adapter = TypeAdapter(dict[str, int])


@dataclass(frozen=True)
class Adopted:
    """What became of the jobs of newer folders."""

    #: Ids of those that the journal has now.
    jobs: list[str]
    #: By id, why a job is not listed; its folder stays as it is.
    refused: dict[str, str]


def newer_folders(storage: Storage, journal: Journal) -> list[str]:
    """Ids of the jobs whose folders tell of events that the journal does not have."""
    newest = journal.newest_of_jobs()
    found = []
    for job_id in sorted(storage.contents()[1]):
        last_seq, deleted = newest.get(job_id, (0, False))
        head = record_head(storage.job_path(job_id))
        if not deleted and (last_seq == 0 or (head is not None and head.last_seq > last_seq)):
            found.append(job_id)
    return found


def adopt(storage: Storage, journal: Journal) -> Adopted:
    """Take the stories that newer folders tell into a journal that nobody writes to.

    Raises:
        CannotRun: the journal cannot be written.
    """
    adopted = Adopted([], {})
    for job_id in newer_folders(storage, journal):
        try:
            told = read_record(storage.job_path(job_id))
            had = known_story(journal.rows(job_id), told, journal.moved_to(job_id))
            missing = what_is_missing(job_id, had, told)
        except ValueError as error:
            adopted.refused[job_id] = str(error)
            continue
        journal.take_over(job_id, missing)
        write_record(storage, journal.path, job_id)
        adopted.jobs.append(job_id)
    return adopted


def known_story(had: Sequence[Row], told: Sequence[Row], moved_to: int) -> list[Row]:
    """What a journal knows of a job, with what it has moved to the folder that tells of it. Pure.

    Args:
        had: What is written down in the journal.
        told: What the job's folder tells.
        moved_to: The newest event that the journal leaves to the folder; 0: none.
    """
    if not had or moved_to < had[0].seq:
        return list(had)
    return [*(r for r in told if 0 < r.seq <= moved_to), *(r for r in had if r.seq > moved_to)]


def what_is_missing(job_id: str, had: Sequence[Row], told: Sequence[Row]) -> list[Row]:
    """Of a told story, the events behind those that the journal had. Pure.

    Raises:
        ValueError: it is not the story of this job, or the journal's went on in another way.
    """
    state = State()
    for number, row in enumerate(told, 1):
        try:
            event = event_adapter.validate_json(row.body)
        except ValidationError as error:
            raise ValueError(f"its event {number} is damaged") from error
        wrong = refusal(state, event)
        if wrong or getattr(event, "job_id", None) != job_id:
            raise ValueError(f"its event {number} is not one of {job_id}: {wrong or event.type}")
        apply(state, event, row.at)
    events = [(row.at, event_adapter.validate_json(row.body)) for row in (*had, *told)]
    if events[: len(had)] != events[len(had) : 2 * len(had)]:
        raise ValueError("the journal tells another story of it")
    return list(told[len(had) :])


def settle_folders(state: Path, decision: str | None) -> Adopted | None:
    """Before a farm starts: act on newer folders. None: there are none, or they are left as they are.

    Who ignores them is not asked again, until one of them tells of more.

    Args:
        state: the farm's state folder, which is locked.
        decision: "adopt", "ignore", or None: nobody has decided.

    Raises:
        CannotRun: there are newer folders, and nobody has decided.
    """
    storage = Storage(state)
    with closing(Journal(state / JOURNAL_NAME)) as journal:
        newer = {job_id: _told_seq(storage, job_id) for job_id in newer_folders(storage, journal)}
        if newer and decision == "adopt":
            return adopt(storage, journal)
        if newer and decision == "ignore":
            _ignore(state, newer)
        ignored = _ignored(state)
        newer = {job_id: seq for job_id, seq in newer.items() if ignored.get(job_id) != seq}
        if not newer:
            return None
        named = ", ".join(list(newer)[:3]) + (f" and {len(newer) - 3} more" if len(newer) > 3 else "")
        raise JournalIsOlder(
            f"the journal {journal.path} is older than the job folders beside it: it lacks what they tell of "
            f"{named}; --adopt lists these jobs again, --ignore goes on without them from now on and leaves "
            "their files"
        )


def _told_seq(storage: Storage, job_id: str) -> int:
    """The newest event that a job's folder tells of; 0 where it tells none."""
    head = record_head(storage.job_path(job_id))
    return 0 if head is None else head.last_seq


def _ignored(state: Path) -> dict[str, int]:
    """The folders that somebody goes on without: the job's id and its newest event then."""
    try:
        return _ignored_adapter.validate_json((state / IGNORED_NAME).read_bytes())
    except (OSError, ValidationError):  # asked once more, no worse
        return {}


def _ignore(state: Path, folders: dict[str, int]) -> None:
    try:
        write_private(state / IGNORED_NAME, _ignored_adapter.dump_json(_ignored(state) | folders).decode())
    except OSError as error:
        raise CannotRun(f"{state} cannot be written ({error.strerror}); free disk space") from error


class JournalIsOlder(CannotRun):
    """The job folders tell of more than the journal, and nobody has said what to do."""
