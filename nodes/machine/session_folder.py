"""Folders for a while: Ray's sockets and logs, inputs on their way in. Nobody else enters, and they go with
whoever made them.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: Short: the paths of Ray's sockets may have 107 characters. Not ``TMPDIR``, for the same reason.
ROOT = Path("/tmp")
PREFIX = "rf-"
_RAY_NAME = "r"
#: Of no other folder: a state folder has a lock in it, too, and may be called as it likes.
_LOCK_NAME = ".of-a-running-farm"
#: Of folders for inputs, in the user's own place for temporary files.
SCRATCH_PREFIX = "reelfarm-"


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


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A fresh folder for inputs on their way in, gone when the block ends."""
    folder = new_session_folder(Path(tempfile.gettempdir()), SCRATCH_PREFIX)
    try:
        yield folder.path
    finally:
        folder.remove()


def new_session_folder(root: Path = ROOT, prefix: str = PREFIX) -> SessionFolder:
    """A fresh folder; those that a power cut left are removed."""
    remove_stale(root, prefix)
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=root))  # made with mode 0700
        lock = _locked(path, os.O_CREAT)
        if lock is not None:
            return SessionFolder(path, lock)


def remove_stale(root: Path = ROOT, prefix: str = PREFIX) -> None:
    """Remove this user's folders of that kind that no process uses. One without our lock is left alone."""
    for path in root.glob(f"{prefix}*"):
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
