"""API keys ``rf_<id>_<secret>``: made, found, revoked. Only their hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from dashboard.access.decisions import GRANTS, OWNER, SCOPES, Principal, Scope
from dashboard.doors_store import write
from farm.errors import CannotRun, NotFound

log = logging.getLogger(__name__)

#: How exactly ``last_used_at`` is known after a restart.
USE_WRITTEN_EVERY_S = 60.0

_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    last_used_at REAL,
    revoked_at REAL
)
"""
_KEY = re.compile(r"rf_([0-9a-f]{8})_[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class Key:
    """Everything about a key but the key. Times are seconds since the epoch."""

    id: str
    #: SHA-256 of the key. Its secret has 256 bits: there is nothing to guess, so no slow hash is needed.
    digest: bytes
    name: str
    #: As they were given; ``GRANTS`` says what they allow.
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None
    last_used_at: float | None = None
    revoked_at: float | None = None

    def works(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Keys:
    """All keys, in memory and in the store. One process at a time has a state folder."""

    def __init__(
        self, store: sqlite3.Connection, owner_token: str, clock: Callable[[], float] = time.time
    ) -> None:
        """``owner_token``: what the state folder's owner has."""
        self._store = store
        self._clock = clock
        self._owner_digest = digest(owner_token)
        store.execute(_TABLE)
        rows = store.execute(
            "SELECT id, digest, name, scopes, created_at, expires_at, last_used_at, revoked_at FROM keys"
        )
        self._keys = {
            row[0]: Key(row[0], row[1], row[2], tuple(s for s in SCOPES if s in row[3].split()), *row[4:])
            for row in rows
        }
        #: Made once: a principal is looked up at every request.
        self._principals = {key.id: _principal(key) for key in self._keys.values()}
        self._use_written_at = {key.id: key.last_used_at or 0.0 for key in self._keys.values()}

    def create(self, name: str, scopes: Collection[Scope], expires_in_s: float | None) -> tuple[Key, str]:
        """A fresh key and its text, which is known to the caller alone from now on."""
        now = self._clock()
        key_id = secrets.token_hex(4)
        while key_id in self._keys:
            key_id = secrets.token_hex(4)
        text = f"rf_{key_id}_{secrets.token_urlsafe(32)}"
        key = Key(
            id=key_id,
            digest=digest(text),
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            created_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
        )
        write(
            self._store,
            "INSERT INTO keys (id, digest, name, scopes, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
            (key.id, key.digest, key.name, " ".join(key.scopes), key.created_at, key.expires_at),
        )
        self._keys[key.id] = key
        self._principals[key.id] = _principal(key)
        self._use_written_at[key.id] = 0.0
        return key, text

    def find(self, text: str) -> Principal | None:
        """Whose key this is; None: nobody's, or it works no more. Counts as a use of it."""
        given = digest(text)
        if hmac.compare_digest(given, self._owner_digest):
            return OWNER
        named = _KEY.fullmatch(text)
        key = self._keys.get(named[1]) if named else None
        if key is None or not hmac.compare_digest(given, key.digest):
            return None
        return self.principal(key.id)

    def principal(self, principal_id: str) -> Principal | None:
        """Who has that id, while their key works. Counts as a use of the key."""
        if principal_id == OWNER.id:
            return OWNER
        key, now = self._keys.get(principal_id), self._clock()
        if key is None or not key.works(now):
            return None
        if now - self._use_written_at[key.id] >= USE_WRITTEN_EVERY_S:
            self._write_use(key, now)
        return self._principals[key.id]

    def digest_of(self, principal_id: str) -> bytes | None:
        """Stands for the key that a principal has now; None: there is none that works."""
        if principal_id == OWNER.id:
            return self._owner_digest
        key = self._keys.get(principal_id)
        return key.digest if key is not None and key.works(self._clock()) else None

    def revoke(self, key_id: str) -> None:
        """End a key, and with it every session that was begun with it.

        Raises:
            NotFound: there is no such key, or it is revoked already.
        """
        key = self._keys.get(key_id)
        if key is None or key.revoked_at is not None:
            raise NotFound(
                "there is no such key, or it is revoked already; `farm keys` lists them", param="id"
            )
        revoked = replace(key, revoked_at=self._clock())
        # Refused from now on, even where that cannot be written.
        self._keys[key_id] = revoked
        write(self._store, "UPDATE keys SET revoked_at = ? WHERE id = ?", (revoked.revoked_at, key_id))

    def all(self) -> list[Key]:
        """Every key there was, the newest first."""
        return sorted(self._keys.values(), key=lambda key: key.created_at, reverse=True)

    def _write_use(self, key: Key, now: float) -> None:
        self._use_written_at[key.id] = now
        self._keys[key.id] = replace(key, last_used_at=now)
        try:
            write(self._store, "UPDATE keys SET last_used_at = ? WHERE id = ?", (now, key.id))
        except CannotRun as error:
            log.warning("the use of key %s is not kept: %s", key.id, error.message)


def digest(text: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _principal(key: Key) -> Principal:
    return Principal(key.id, key.name, frozenset(s for scope in key.scopes for s in GRANTS[scope]))
