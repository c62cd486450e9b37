"""Who changed what, who came in, who was refused: a JSON line each, in files that only the owner may read."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import TypedDict

log = logging.getLogger(__name__)

AUDIT_NAME = "audit.jsonl"
MAX_FILE_BYTES = 10_000_000
#: Files that are kept: ``audit.jsonl``, and the older ones ``audit.jsonl.1`` and so on.
NUM_FILES = 5

_BLOCK_BYTES = 64 << 10
#: Somebody may paste a key where its id belongs.
_SECRET = re.compile(r"(rf_[0-9a-f]{8}_)[A-Za-z0-9_-]+")


class AuditEntry(TypedDict):
    """One request that changed something, tried to, or was refused."""

    #: Seconds since the epoch.
    at: float
    #: Id of whoever asked: a key's id or "owner"; None: somebody without a key.
    principal: str | None
    name: str | None
    #: IP address the connection came from.
    address: str
    method: str
    path: str
    #: Of the answer; None: the connection broke before there was one.
    status: int | None
    #: What it was about, such as the job that was made, where the address does not say.
    subject: str | None


class Audit:
    """Appends lines; a full file is put aside."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        #: The file ends within a line: a crash or a full disk cut it off.
        self._torn = not _ends_whole(path)

    def write(self, entry: AuditEntry) -> None:
        """Append one entry. A full disk does not stop the farm; the entry goes to the log then."""
        line = _SECRET.sub(r"\1...", json.dumps(entry))
        whole = ("\n" if self._torn else "") + line + "\n"
        try:
            self._rotate(len(whole))
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                self._torn = True
                self._torn = os.write(handle, whole.encode()) < len(whole)
            finally:
                os.close(handle)
        except OSError as error:
            log.warning("the audit log cannot be written (%s): %s", error.strerror, line)

    def newest(self, limit: int) -> list[AuditEntry]:
        """The last ``limit`` entries, the newest first. Reads files: call it in a thread."""
        found: list[AuditEntry] = []
        for path in (self._path, *map(self._older, range(1, NUM_FILES))):
            for line in _backwards(path):
                if len(found) == limit:
                    return found
                try:
                    found.append(json.loads(line))
                except ValueError:  # cut off by a crash
                    continue
        return found

    def _rotate(self, num_bytes: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size == 0 or size + num_bytes <= self._max_bytes:
            return
        for number in range(NUM_FILES - 1, 0, -1):
            newer = self._older(number - 1) if number > 1 else self._path
            if newer.exists():
                os.replace(newer, self._older(number))

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _ends_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
    except OSError:
        return True


def _backwards(path: Path) -> Iterator[bytes]:
    """A file's lines, the last one first."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        left, tail = file.seek(0, os.SEEK_END), b""
        while left:
            start = max(0, left - _BLOCK_BYTES)
            file.seek(start)
            first, *lines = (file.read(left - start) + tail).split(b"\n")
            left, tail = start, first
            yield from (line for line in reversed(lines) if line)
        if tail:
            yield tail
