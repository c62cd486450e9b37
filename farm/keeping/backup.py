"""A whole, consistent copy of a farm, also of one that is up, and taking it back.

The journal is copied first, as of one moment; then what it names, each file compared with its hash while it
is copied. Content never changes under its name, so only what was deleted or published anew meanwhile can be
missing: then the journal is copied again, and what it names by then. What is missing twice is lost to the
farm itself. ``backup.json`` names every file with its hash; it comes last and makes the copy a whole one.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from farm.errors import CannotRun, InvalidInput
from farm.running import RECORD_NAME, SHEET_NAME, VIDEO_NAME, Storage, write_record
from farm.state import JOURNAL_NAME, State, locked, past
from farm.values import Value

MANIFEST_NAME = "backup.json"
#: Journals are copied at most so often for one backup.
MAX_ROUNDS = 5
#: What belongs to a farm besides journal, content and jobs: keys and webhooks, the owner's token, the audit.
OTHER_DATABASES = ("doors.sqlite",)
OTHER_FILES = ("access-token", "audit.jsonl")
_CHUNK_BYTES = 1 << 20

#: Told files and bytes copied so far, and files and bytes in all.
Progress = Callable[[int, int, int, int], None]


class BackedUp(Value):
    """A file of a backup."""

    size_bytes: int
    sha256: str


class Manifest(Value):
    """What a backup holds."""

    #: Sequence number of the newest event.
    last_seq: int
    jobs: int
    #: By place in the state folder.
    files: dict[str, BackedUp]
    #: Places of what the farm itself had lost: it is made again when it is wanted.
    missing: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


def backup(state: Path, target: Path, progress: Progress = lambda *_: None) -> Manifest:
    """Copy the farm of a state folder, up or not, into a new or empty folder.

    Raises:
        InvalidInput: there is no farm, or something is in the target.
        CannotRun: it cannot be written, or the farm changed faster than it could be copied.
    """
    if not (state / JOURNAL_NAME).exists():
        raise InvalidInput(f"there is no farm in {state}; name its folder with --state", param="state")
    copied: dict[str, BackedUp] = {}
    missing_before: set[tuple[str, str | None]] = set()
    with _writing(target):
        for _ in range(MAX_ROUNDS):
            _copy_database(state / JOURNAL_NAME, target / JOURNAL_NAME)
            with past(target) as ledger:
                now, last_seq = ledger.state, ledger.last_seq
            wanted = dict(_named(state, now))
            missing = _copy_all(state, target, wanted, copied, progress)
            if missing <= missing_before:
                break
            missing_before = missing
        else:
            raise CannotRun(f"the jobs of {state} changed faster than they were copied; try again")
        for place in copied.keys() - wanted.keys():  # of jobs that were deleted meanwhile
            del copied[place]
            (target / place).unlink()
        for job in now.jobs.values():  # what the folders tell may be newer than the journal that was copied
            record = Path("jobs", job.id, RECORD_NAME)
            if (state / record).exists():  # the journal may leave a part of the story to it
                _copy(state / record, target / record)
            if (target / record).parent.exists():
                write_record(Storage(target), target / JOURNAL_NAME, job.id, job.first_seq)
                copied[record.as_posix()] = _looked_at(target / record)
        for name in OTHER_DATABASES:
            if (state / name).exists():
                copied[name] = _copy_database(state / name, target / name)
        for name in OTHER_FILES:
            if (state / name).exists():
                copied[name] = _copy(state / name, target / name)
        copied[JOURNAL_NAME] = _looked_at(target / JOURNAL_NAME)
        lost = tuple(sorted(place for place, _ in missing))
        manifest = Manifest(last_seq=last_seq, jobs=len(now.jobs), files=copied, missing=lost)
        (target / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return manifest


def restore(source: Path, state: Path, progress: Progress = lambda *_: None) -> Manifest:
    """Make a state folder of a backup. Its journal comes last, so that half of one is no farm.

    Raises:
        InvalidInput: it is no whole backup, or something is in the state folder.
        CannotRun: a file of the backup is damaged, or the state folder cannot be written.
    """
    try:
        manifest = Manifest.model_validate_json((source / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(f"{source} is no whole backup: its {MANIFEST_NAME} cannot be read") from error
    with _writing(state), locked(state, "restore"):
        done_bytes = 0
        files = sorted(manifest.files.items(), key=lambda file: file[0] == JOURNAL_NAME)
        for number, (place, file) in enumerate(files, 1):
            try:
                same = _copy(source / place, state / place) == file
            except FileNotFoundError:
                same = False
            if not same:
                (state / place).unlink(missing_ok=True)
                raise CannotRun(f"{place} of the backup {source} is damaged or missing; take another backup")
            done_bytes += file.size_bytes
            progress(number, done_bytes, len(files), manifest.size_bytes)
    return manifest


def _named(root: Path, state: State) -> Iterator[tuple[str, str | None]]:
    """What a journal names, by place in the state folder, with the hash it has to have."""
    for sha256 in state.blob_uses:
        yield f"blobs/{sha256[:2]}/{sha256}", sha256
    for job in state.jobs.values():
        folder = f"jobs/{job.id}"
        if job.published is not None:
            yield f"{folder}/{VIDEO_NAME}", job.published.sha256
        for path in (root / folder / SHEET_NAME, *(root / folder / "logs").glob("*.log")):
            if path.is_file():
                yield path.relative_to(root).as_posix(), None


def _copy_all(
    state: Path,
    target: Path,
    wanted: dict[str, str | None],
    copied: dict[str, BackedUp],
    progress: Progress,
) -> set[tuple[str, str | None]]:
    """Copy what is not copied yet; returns what is not there, or not what it has to be."""
    sizes = {place: _size(state / place) for place in wanted}
    total_bytes, done_bytes = sum(sizes.values()), 0
    missing = set()
    for number, (place, sha256) in enumerate(wanted.items(), 1):
        if place not in copied or sha256 is None or copied[place].sha256 != sha256:
            copied.pop(place, None)
            with suppress(FileNotFoundError):
                copied[place] = _copy(state / place, target / place)
            if place not in copied or sha256 not in (None, copied[place].sha256):
                missing.add((place, sha256))
                copied.pop(place, None)
                (target / place).unlink(missing_ok=True)
        done_bytes += sizes[place]
        progress(number, done_bytes, len(wanted), total_bytes)
    return missing


def _copy(source: Path, target: Path) -> BackedUp:
    """Copy a file, for its owner alone, and say what was copied."""
    digest, size_bytes = hashlib.sha256(), 0
    with open(source, "rb") as reading:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writing:
            while chunk := reading.read(_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
    return BackedUp(size_bytes=size_bytes, sha256=digest.hexdigest())


def _copy_database(source: Path, target: Path) -> BackedUp:
    """Copy what a database says at one moment, whoever writes to it meanwhile."""
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    read_only = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
    return _looked_at(target)


def _looked_at(path: Path) -> BackedUp:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return BackedUp(size_bytes=os.fstat(file.fileno()).st_size, sha256=sha256)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A new or empty folder, to be filled; what goes wrong with it is said in one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise InvalidInput(f"{folder} is not empty; name a new folder")
        yield
    except (OSError, sqlite3.Error) as error:
        raise CannotRun(f"{folder} cannot be written ({error}); free disk space or choose another") from error
