"""The folder that holds everything a farm must not lose, and the lock that keeps it one farm's."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.errors import CannotRun

JOURNAL_NAME = "journal.sqlite"


def default_state_folder() -> Path:
    """``$REELFARM_STATE``, else ``~/.local/state/reelfarm``."""
    chosen = os.environ.get("REELFARM_STATE")
    return Path(chosen) if chosen else Path.home() / ".local" / "state" / "reelfarm"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises:
        CannotRun: another farm works in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        yield
    finally:
        os.close(handle)
