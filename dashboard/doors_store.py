"""The file in which the doors keep what must outlive a restart: keys, sessions, webhooks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from farm.errors import CannotRun

STORE_NAME = "doors.sqlite"


def open_store(path: Path) -> sqlite3.Connection:
    """The store of a state folder; only its owner may read it. Whoever keeps something makes its own table.

    Every statement is a transaction of its own and on the disk when it returns: a revoked key stays revoked
    after a power cut. Threads may share the connection.

    Raises:
        CannotRun: the file cannot be opened or is none of ours.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Before SQLite opens it: its side files take over the mode.
        path.touch(mode=0o600)
        path.chmod(0o600)
        store = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=FULL")
    except (OSError, sqlite3.Error) as error:
        raise CannotRun(
            f"the keys in {path} cannot be opened ({error}); free disk space or choose another --state"
        ) from error
    return store


def write(store: sqlite3.Connection, statement: str, values: Sequence[object]) -> None:
    """Run one statement that changes something.

    Raises:
        CannotRun: the disk is full or the file cannot be written; nothing was changed.
    """
    try:
        store.execute(statement, values)
    except sqlite3.Error as error:
        raise CannotRun(f"{STORE_NAME} cannot be written ({error}); free disk space") from error
