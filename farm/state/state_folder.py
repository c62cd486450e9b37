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

from farm.errors import CannotRun

log = logging.getLogger(__name__)

#: Nothing for other users of the machine.
_PRIVATE_UMASK = 0o077
JOURNAL_NAME = "journal.sqlite"
#: Held open by the coordinator while it works in the folder.
LOCK_NAME = "lock"


def default_state_folder() -> Path:
    """``$REELFARM_STATE``, else ``~/.local/state/reelfarm``."""
    chosen = os.environ.get("REELFARM_STATE")
    return Path(chosen) if chosen else Path.home() / ".local" / "state" / "reelfarm"


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
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    What this process and its children make in the block is for this user alone.

    Raises:
        CannotRun: another farm works in it, or it cannot be written.
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
            raise CannotRun(
                f"another farm is working in {folder}; use `farm submit` to give it a job, "
                "or choose another folder with --state"
            ) from None
        usual = os.umask(_PRIVATE_UMASK)
        try:
            yield
        finally:
            os.umask(usual)
    finally:
        os.close(handle)
