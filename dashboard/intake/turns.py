"""Taking turns at work that is dear: so much at a time of one caller, and of all together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farm.errors import TooManyRequests


class Turns:
    """Whoever has their own turn already waits for themselves, and stands in nobody's way.

    Args:
        what: is done in a turn, for the refusal.
        of_one: turns a caller may have at a time.
        of_all: turns there are.
        waiting: requests of one caller that may wait beside; more are refused.
    """

    def __init__(self, what: str, *, of_one: int, of_all: int, waiting: int) -> None:
        self._what = what
        self._of_one = of_one
        self._most = of_one + waiting
        self._all = asyncio.Semaphore(of_all)
        self._own: dict[str, asyncio.Semaphore] = {}
        #: Of a caller, those that have a turn or wait for one.
        self._here: Counter[str] = Counter()

    @asynccontextmanager
    async def one(self, who: str) -> AsyncIterator[None]:
        """A turn of this caller, until the block ends.

        Raises:
            TooManyRequests: as many of theirs wait as may.
        """
        if self._here[who] >= self._most:
            raise TooManyRequests(
                f"{self._most} requests of yours to {self._what} are under way, the most there can be; "
                "wait for one of them",
                retry_after_s=5.0,
            )
        self._here[who] += 1
        own = self._own.setdefault(who, asyncio.Semaphore(self._of_one))
        try:
            async with own, self._all:
                yield
        finally:
            self._here[who] -= 1
            if not self._here[who]:
                del self._here[who], self._own[who]
