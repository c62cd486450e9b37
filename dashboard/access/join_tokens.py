"""One-time tokens with which a machine joins the farm. Kept in memory, as hashes: a restart ends them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

EXPIRY_S = 24 * 3600.0


class JoinTokens:
    """The tokens that were given out and not used yet."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        #: SHA-256 of a token -> when it ends.
        self._ends_at: dict[bytes, float] = {}

    def create(self) -> str:
        """A fresh token, good for one machine within ``EXPIRY_S`` seconds."""
        now = self._clock()
        self._ends_at = {known: end for known, end in self._ends_at.items() if end > now}
        token = secrets.token_urlsafe(32)
        self._ends_at[_hash(token)] = now + EXPIRY_S
        return token

    def redeem(self, token: str) -> bool:
        """Use a token up. False: unknown, used or too old."""
        given = _hash(token)
        found = [known for known in self._ends_at if hmac.compare_digest(known, given)]
        return any(self._ends_at.pop(known) > self._clock() for known in found)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
