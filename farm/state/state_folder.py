"""The folder that holds everything a farm must not lose, and the lock that keeps it one farm's."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from farm.errors import CannotRun

log = logging.getLogger(__name__)

#: Nothing for other users of the machine.
_PRIVATE_UMASK = 0o077
JOURNAL_NAME = "journal.sqlite"
#: Held open by the coordinator while it works in the folder; says what it is.
LOCK_NAME = "lock"

Holder = Literal["up", "render", "storage", "restore", "models"]


class FolderInUse(CannotRun):
    """Another process works in the state folder; ``by`` says what it is where that is known."""

    def __init__(self, folder: Path, by: Holder | None, pid: int | None) -> None:
        who = f"farm {by} (process {pid})" if by else "another farm"
        what = {
            "up": "`farm submit` gives it a job",
            "render": "it ends with its video, and takes no other job",
            "storage": "it ends soon",
            "models": "it ends soon",
            "restore": "it ends when the copy is whole",
        }.get(by or "", "wait until it ends")
        super().__init__(
            f"{who} is working in {folder}; {what}; another folder, chosen with --state, is free at once"
        )
        self.by = by


def usual_state_folder() -> Path:
    """``~/.local/state/reelfarm``."""
    return Path.home() / ".local" / "state" / "reelfarm"


def default_state_folder() -> Path:
    """``$REELFARM_STATE``, else the usual one."""
    chosen = os.environ.get("REELFARM_STATE")
    return Path(chosen) if chosen else usual_state_folder()


def make_private(folder: Path) -> None:
    """Make a folder that is its user's alone; one that is open to others is closed, and that is said.

    Raises:
        CannotRun: it cannot be made or closed, or it is a folder of everybody, such as /tmp.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & _PRIVATE_UMASK:
            return
        if mode & stat.S_ISVTX:
            raise CannotRun(f"the state folder {folder} is everybody's; choose one inside it with --state")
        folder.chmod(0o700)
    except OSError as error:
        raise CannotRun(
            f"the state folder {folder} cannot be used ({error.strerror}); choose another with --state"
        ) from error
    log.warning("%s was open to other users of this machine (mode %o); it is closed now", folder, mode)


def write_private(path: Path, text: str) -> None:
    """Write a small file that its user alone may read; a reader finds the old text or the new one, whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # made with mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)


def usual_mode() -> int:
    """The mode of a file that this user makes; to be asked before ``locked``, which makes private ones."""
    mask = os.umask(_PRIVATE_UMASK)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def locked(folder: Path, what: Holder) -> Iterator[None]:
    """Hold the folder for this process, a `farm ``what```; the lock goes with the process, however it ends.

    What this process and its children make in the block is for this user alone.

    Raises:
        FolderInUse: another process works in it.
        CannotRun: it cannot be written.
    """
    make_private(folder)
    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotRun(
            f"the state folder {folder} cannot be used ({error.strerror}); choose another with --state"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(folder, *_holder(handle)) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{what} {os.getpid()}".encode(), 0)
        usual = os.umask(_PRIVATE_UMASK)
        try:
            yield
        finally:
            os.umask(usual)
    finally:
        os.close(handle)


def in_use(folder: Path) -> FolderInUse | None:
    """Who works in the folder; None: nobody."""
    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there was never a farm, or it is another user's
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return FolderInUse(folder, *_holder(handle))
    finally:
        os.close(handle)
    return None


def _holder(handle: int) -> tuple[Holder | None, int | None]:
    """What an open lock file says of its holder; an older farm wrote nothing."""
    what, _, pid = os.pread(handle, 100, 0).decode(errors="replace").partition(" ")
    by = next((holder for holder in get_args(Holder) if holder == what), None)
    return (by, int(pid)) if by and pid.isdecimal() else (None, None)
