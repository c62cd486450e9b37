"""What is being looked at: how far each check of a file is, and its end where nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from farm.errors import InvalidInput

T = TypeVar("T")

#: Between two looks whether the client is still there.
GONE_S = 1.0


@dataclass
class Look:
    """One file under check. ``told`` may be called on any thread."""

    caller: str
    name: str
    num_frames: int = 0
    #: Of the whole; None where that is not known.
    share: float | None = None
    unwanted: bool = False

    def told(self, num_frames: int, share: float | None) -> None:
        """
        Raises:
            InvalidInput: nobody waits for it any more.
        """
        if self.unwanted:
            raise InvalidInput("the check was stopped: whoever sent the file has gone")
        self.num_frames, self.share = num_frames, share


@dataclass
class Looks:
    """Those that are under way or wait for their turn."""

    _here: list[Look] = field(default_factory=list)

    @contextmanager
    def begun(self, caller: str, name: str) -> Iterator[Look]:
        """A look, listed until the block ends."""
        look = Look(caller, name)
        self._here.append(look)
        try:
            yield look
        finally:
            self._here.remove(look)

    def of(self, caller: str) -> list[Look]:
        """One caller's, the oldest first."""
        return [look for look in self._here if look.caller == caller]


async def while_wanted(request: Request, look: Look, work: Callable[[], T]) -> T:
    """What ``work`` returns; it runs on a thread and ends early where the client has gone."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        while not (await asyncio.wait([working], timeout=GONE_S))[0]:
            look.unwanted = look.unwanted or await request.is_disconnected()
        return working.result()
    except asyncio.CancelledError:
        look.unwanted = True
        await asyncio.wait([working])
        raise
