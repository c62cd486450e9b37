"""Sessions of browsers: a key once, a cookie from then on. A session ends with its key, or at logging out."""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from dashboard.access.decisions import Principal
from dashboard.access.keys import Keys, digest
from dashboard.doors_store import write

EXPIRY_S = 14 * 86400.0
#: Of one key at a time; the oldest makes room.
MAX_PER_KEY = 50

_TABLE = """
CREATE TABLE IF NOT EXISTS sessions (
    digest BLOB PRIMARY KEY,
    principal_id TEXT NOT NULL,
    key_digest BLOB NOT NULL,
    expires_at REAL NOT NULL
)
"""


@dataclass(frozen=True)
class _Session:
    #: SHA-256 of the cookie.
    digest: bytes
    principal_id: str
    #: Of the key it was begun with: another owner's token, and the owner's sessions are over.
    key_digest: bytes
    expires_at: float


class Sessions:
    """All sessions, in memory and in the store."""

    def __init__(self, store: sqlite3.Connection, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        store.execute(_TABLE)
        rows = store.execute("SELECT digest, principal_id, key_digest, expires_at FROM sessions")
        self._sessions = {row[0]: _Session(*row) for row in rows}

    def start(self, principal_id: str) -> str:
        """A fresh session of a principal whose key was just shown; returns its cookie."""
        key_digest = self._keys.digest_of(principal_id)
        assert key_digest is not None, f"{principal_id} has no key"
        self._make_room(principal_id)
        cookie = secrets.token_urlsafe(32)
        session = _Session(digest(cookie), principal_id, key_digest, self._clock() + EXPIRY_S)
        write(
            self._store,
            "INSERT INTO sessions VALUES (?, ?, ?, ?)",
            (session.digest, session.principal_id, session.key_digest, session.expires_at),
        )
        self._sessions[session.digest] = session
        return cookie

    def find(self, cookie: str) -> Principal | None:
        """Whose session this is; None: nobody's, it is over, or its key works no more."""
        # Found by its hash: what can be timed tells nothing of the cookies there are.
        session = self._sessions.get(digest(cookie))
        return (
            None
            if session is None or not self._lasts(session)
            else self._keys.principal(session.principal_id)
        )

    def end(self, cookie: str) -> None:
        """Log out; a cookie of no session is nothing to end."""
        session = self._sessions.get(digest(cookie))
        if session is not None:
            self._remove(session)

    def _lasts(self, session: _Session) -> bool:
        key_digest = self._keys.digest_of(session.principal_id)
        return (
            self._clock() < session.expires_at
            and key_digest is not None
            and hmac.compare_digest(key_digest, session.key_digest)
        )

    def _make_room(self, principal_id: str) -> None:
        for session in list(self._sessions.values()):
            if not self._lasts(session):
                self._remove(session)
        own = [s for s in self._sessions.values() if s.principal_id == principal_id]
        for session in sorted(own, key=lambda s: s.expires_at)[: max(0, len(own) + 1 - MAX_PER_KEY)]:
            self._remove(session)

    def _remove(self, session: _Session) -> None:
        # Over from now on, even where that cannot be written.
        del self._sessions[session.digest]
        write(self._store, "DELETE FROM sessions WHERE digest = ?", (session.digest,))
