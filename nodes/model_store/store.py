"""Where a machine keeps the models that the farm has brought to it: a folder each, by name and commit.

    $REELFARM_MODELS/                      else ~/.local/share/reelfarm/models
    ├── owner--name@COMMIT/                whole: it gets this name once every file of it is checked
    ├── my-style/                          added by its owner
    ├── .coming/owner--name@COMMIT/        on its way: checked files, and parts of others
    └── .records/owner--name@COMMIT.json   where it came from; touched whenever it is loaded

A model is what is asked for, shown and dropped, so it is what has a folder; and what came with another name
or commit is another model.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from farm.errors import CannotRun
from farm.machines import parse_bytes

#: Where a machine keeps them.
FOLDER_VARIABLE = "REELFARM_MODELS"
#: What they may take of its disk, such as 200GiB: those that came from the farm and were not loaded for
#: longest go for others. Unset: nothing goes.
QUOTA_VARIABLE = "REELFARM_MODELS_QUOTA"
#: What stays free of a disk, whatever comes.
DISK_RESERVE_BYTES = 2 * 10**9
_COMING, _RECORDS = ".coming", ".records"
#: Between looks whether another process has brought what this one waits for.
_TURN_INTERVAL_S = 0.5

#: ``hub``: fetched from there; ``farm``: taken from other machines; ``added``: by who owns this one.
Origin = Literal["hub", "farm", "added"]


@dataclass(frozen=True)
class Kept:
    """A model of the store."""

    key: str
    folder: Path
    size_bytes: int
    origin: Origin
    #: When it was last loaded, or came; seconds since the epoch.
    used_at: float


def models_folder() -> Path:
    """``$REELFARM_MODELS``, else ``~/.local/share/reelfarm/models``."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "reelfarm" / "models"


def models_quota() -> int | None:
    """Bytes that this machine's models may take; None: nobody said.

    Raises:
        InvalidInput: it is no amount.
    """
    said = os.environ.get(QUOTA_VARIABLE)
    return None if said is None else parse_bytes(said, param=QUOTA_VARIABLE)


def hub_key(repository: str, commit: str) -> str:
    """What a model of the hub is kept as."""
    return f"{repository.replace('/', '--')}@{commit}"


def is_key(text: str) -> bool:
    """Whether it may name a folder of the store."""
    return bool(text) and not text.startswith(".") and not any(c in text for c in "/\\\0\n")


def folder_of(key: str) -> Path:
    """Where a model of that key is, or would be."""
    return models_folder() / key


def kept(key: str) -> Path | None:
    """The folder of a model that is here; None: it is not."""
    folder = folder_of(key)
    return folder if is_key(key) and folder.is_dir() else None


def kept_models() -> list[Kept]:
    """Every model of the store, by key."""
    root = models_folder()
    if not root.is_dir():
        return []
    return [
        Kept(
            key=folder.name,
            folder=folder,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            origin=_origin(folder.name),
            used_at=_used_at(folder),
        )
        for folder in sorted(root.iterdir())
        if folder.is_dir() and is_key(folder.name)
    ]


def mark_used(key: str) -> None:
    """Remember that a model is loaded now: what was not for longest goes first."""
    if kept(key) is not None:
        _write_record(key, _origin(key))


def forget(key: str) -> bool:
    """Remove a model, and what has come of one; False: there was none."""
    found = False
    for folder in (folder_of(key), models_folder() / _COMING / key):
        if is_key(key) and folder.exists():
            found = True
            gone = models_folder() / _COMING / f".gone-{os.getpid()}-{key}"
            gone.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(gone)  # at once: nobody finds half a model
            shutil.rmtree(gone, ignore_errors=True)
    for record in (_record(key), manifest_record(key)):
        record.unlink(missing_ok=True)
    return found


def manifest_record(key: str) -> Path:
    """Where the manifest of a model is kept that was brought from other machines."""
    return models_folder() / _RECORDS / f"{key}.manifest.json"


def check_disk(wanted_bytes: int, what: str) -> None:
    """
    Raises:
        CannotRun: the store's disk has no room for so much more.
    """
    folder = models_folder()
    free = free_bytes()
    if wanted_bytes and wanted_bytes + DISK_RESERVE_BYTES > free:
        raise CannotRun(
            f"{what} takes {wanted_bytes / 1e9:.1f} GB more, and {folder} has {free / 1e9:.1f} GB free "
            f"({DISK_RESERVE_BYTES / 1e9:.0f} GB stay free): make room there, remove a model with `farm "
            f"models remove NAME`, or set {FOLDER_VARIABLE} to another disk",
            param="model",
        )


def room_bytes() -> int:
    """What the store's disk can spare."""
    return free_bytes() - DISK_RESERVE_BYTES


def free_bytes() -> int:
    """Of the store's disk."""
    folder = models_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


class Arrival:
    """A model on its way into the store; ``arriving`` makes one. Its files lie apart until all are there."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._staging = models_folder() / _COMING / key

    def whole(self, path: str) -> Path | None:
        """A file of it that is whole and checked, here or where the model is already; None: there is none."""
        places = (folder_of(self.key) / path, self._staging / path)
        return next((place for place in places if place.is_file()), None)

    def part(self, path: str, suffix: str) -> Path:
        """Where a file of it is written to until it is whole. Its folder is there."""
        part = self._staging / f"{path}{suffix}"
        part.parent.mkdir(parents=True, exist_ok=True)
        return part

    def finish(self, part: Path, path: str) -> None:
        """A part has become the whole file, and is checked."""
        part.replace(self._staging / path)

    def settle(self, origin: Origin) -> Path:
        """All files are there: the model gets its place. Returns its folder."""
        folder = folder_of(self.key)
        if self._staging.is_dir():
            if folder.exists():
                for file in [file for file in self._staging.rglob("*") if file.is_file()]:
                    target = folder / file.relative_to(self._staging)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
                shutil.rmtree(self._staging)
            else:
                self._staging.rename(folder)
        _write_record(self.key, origin)
        return folder


@contextmanager
def arriving(key: str, waits: Callable[[], None] = lambda: None) -> Iterator[Arrival]:
    """Bring a model into the store, alone of all processes of this machine.

    ``waits`` is called again and again while another one is at it; what it raises ends the wait.
    """
    locks = models_folder() / _COMING
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f".{key}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waits()
                time.sleep(_TURN_INTERVAL_S)
        yield Arrival(key)


def _record(key: str) -> Path:
    return models_folder() / _RECORDS / f"{key}.json"


def _write_record(key: str, origin: Origin) -> None:
    record = _record(key)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"origin": origin}))


def _origin(key: str) -> Origin:
    try:
        said = json.loads(_record(key).read_text())["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        return "added"  # its owner put it there
    return said if said in ("hub", "farm") else "added"


def _used_at(folder: Path) -> float:
    record = _record(folder.name)
    return (record if record.exists() else folder).stat().st_mtime
