"""Tokens that work once: with one a machine joins, with another a browser logs in.

Kept in memory, as hashes: a restart ends them.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

JOIN_EXPIRY_S = 24 * 3600.0
#: Of a login link: it stands in a terminal, or in the log of a service.
LOGIN_EXPIRY_S = 3600.0


class OneTimeTokens:
    """The tokens that were given out and not used yet."""

    def __init__(self, expiry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._expiry_s = expiry_s
        self._clock = clock
        #: SHA-256 of a token -> when it ends, and whom it was made for.
        self._tokens: dict[bytes, tuple[float, str]] = {}

    def create(self, principal_id: str = "") -> str:
        """A fresh token, good for one use within ``expiry_s`` seconds."""
        now = self._clock()
        self._tokens = {known: found for known, found in self._tokens.items() if found[0] > now}
        token = secrets.token_urlsafe(32)
        self._tokens[_hash(token)] = (now + self._expiry_s, principal_id)
        return token

    def redeem(self, token: str) -> str | None:
        """Use a token up. Returns whom it was made for; None: it is unknown, used or too old."""
        # Found by its hash: what can be timed tells nothing of the tokens there are.
        ends_at, principal_id = self._tokens.pop(_hash(token), (0.0, ""))
        return principal_id if ends_at > self._clock() else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
