"""Which connections may be open, so that the farm's own files never lack a descriptor.

Whoever connects is let in; where there are too many, one that says nothing makes room: it has sent no whole
request and costs nobody an answer. Connections that are being answered are never closed for another's sake.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

#: A farm needs no more, and some programs look through all that there could be.
WANTED_DESCRIPTORS = 65_536
#: Of the coordinator's own: journal, results, Ray, decoders, and what is accepted before it is counted.
RESERVED_DESCRIPTORS = 384
MAX_CONNECTIONS = 2048
#: The log is told no more often than that.
SAY_AGAIN_S = 60.0

C = TypeVar("C", bound=Hashable)


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may and needs; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    else:
        most = WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    if most < RESERVED_DESCRIPTORS + 2 * MAX_CONNECTIONS:
        log.warning(
            "only %d descriptors may be open here, so at most %d connections; raise `ulimit -Hn`",
            most,
            most_connections(most),
        )
    return most


def most_connections(descriptors: int) -> int:
    """How many may be open: each may have a file besides."""
    return max(16, min(MAX_CONNECTIONS, (descriptors - RESERVED_DESCRIPTORS) // 2))


class Connections(Generic[C]):
    """The open connections, by where they come from and whether they wait for a request.

    Args:
        most: of all.
        most_of_one: of one caller, as the address they come from.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._caller_of: dict[C, str] = {}
        self._num_of: Counter[str] = Counter()
        self._say_again_at = 0.0
        #: Caller -> connections without a whole request, the one that waits for longest first.
        self._silent: dict[str, dict[C, None]] = {}

    def __len__(self) -> int:
        return len(self._caller_of)

    def enter(self, connection: C, caller: str, *, scarce: bool = False) -> C | None:
        """Count a connection. Returns the one to be closed for it, which may be itself; None: there is room.

        Args:
            scarce: few descriptors are left, whoever has them.
        """
        self._caller_of[connection] = caller
        self._num_of[caller] += 1
        self.is_silent(connection)
        if self._num_of[caller] > self._most_of_one:
            return self._oldest(caller) or connection
        if scarce:
            self._say_scarce()
        if scarce or len(self._caller_of) > self._most:
            # Of whoever has most that say nothing.
            most = max(self._silent, key=lambda one: len(self._silent[one]))
            return self._oldest(most)
        return None

    def is_silent(self, connection: C) -> None:
        """It waits for a request from now on."""
        caller = self._caller_of.get(connection)
        if caller is not None:
            self._silent.setdefault(caller, {})[connection] = None

    def is_busy(self, connection: C) -> None:
        """Its request is being answered."""
        caller = self._caller_of.get(connection)
        if caller is not None and caller in self._silent:
            self._silent[caller].pop(connection, None)
            if not self._silent[caller]:
                del self._silent[caller]

    def leave(self, connection: C) -> None:
        """It is closed."""
        self.is_busy(connection)
        caller = self._caller_of.pop(connection, None)
        if caller is not None:
            self._num_of[caller] -= 1
            if not self._num_of[caller]:
                del self._num_of[caller]

    def _say_scarce(self) -> None:
        now = time.monotonic()
        if now >= self._say_again_at:
            self._say_again_at = now + SAY_AGAIN_S
            log.warning("descriptors run out with %d connections open: silent ones end", len(self))

    def _oldest(self, caller: str) -> C | None:
        return next(iter(self._silent.get(caller, ())), None)
