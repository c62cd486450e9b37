"""Where Ray keeps its sockets and logs: in a folder that nobody else enters, gone with the Ray it was for.

Ray opens its own folders to everybody (mode 0777): whoever puts a symbolic link there chooses which file of
ours is written over. So Ray's lie one level below a folder of mode 0700.

A power cut leaves such folders behind. Whoever uses one holds a lock in it, which goes with the process,
however it ends; what nobody holds any more is removed before the next one is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Short: the paths of Ray's sockets may have 107 characters. Not ``TMPDIR``, for the same reason.
ROOT = Path("/tmp")
PREFIX = "rf-"
_RAY_NAME = "r"
_LOCK_NAME = "lock"


@dataclass(frozen=True)
class SessionFolder:
    """A folder for one Ray. ``lock`` is a descriptor: the folder is in use while a process has it."""

    path: Path
    lock: int

    @property
    def ray(self) -> Path:
        """What Ray is told to use."""
        return ray_folder(self.path)

    def let_go(self) -> None:
        """This process uses the folder no more; one that was given ``lock`` may."""
        os.close(self.lock)

    def remove(self) -> None:
        self.let_go()
        shutil.rmtree(self.path, ignore_errors=True)


def ray_folder(session: Path) -> Path:
    """Ray's own folder in that of a session."""
    return session / _RAY_NAME


def new_session_folder(root: Path = ROOT) -> SessionFolder:
    """A fresh folder; those that a power cut left are removed."""
    remove_stale(root)
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))  # made with mode 0700
        lock = _locked(path, os.O_CREAT)
        if lock is not None:
            return SessionFolder(path, lock)


def remove_stale(root: Path = ROOT) -> None:
    """Remove this user's session folders that no process uses. One without a lock in it is left alone."""
    for path in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            lock = _locked(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _locked(path: Path, flags: int = 0) -> int | None:
    """The folder's lock as a descriptor; None: another process has it, or there is none."""
    try:
        handle = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
