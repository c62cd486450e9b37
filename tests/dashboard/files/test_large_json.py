"""Answers that grow with a job take turns, and keep theirs until they are read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dashboard.files.large_json import AT_ONCE, AT_ONCE_OF_ONE, WAITING, LargeAnswers
from farm.errors import TooManyRequests


def request_of(who: str) -> Any:
    return SimpleNamespace(state=SimpleNamespace(principal=SimpleNamespace(id=who)))


class Readers:
    """Ask for large answers, and read none before they are told to."""

    def __init__(self) -> None:
        self.large = LargeAnswers()
        self.made: list[str] = []
        self.read = asyncio.Event()
        self.got: list[dict[str, Any]] = []

    def ask(self, who: str) -> asyncio.Task[None]:
        async def make() -> bytes:
            self.made.append(who)
            return b"x" * 300_000

        return asyncio.ensure_future(self.large.answer(request_of(who), make)({}, None, self._send))  # type: ignore[arg-type]

    async def _send(self, message: Any) -> None:
        await self.read.wait()
        self.got.append(message)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_only_so_many_are_made_before_others_are_read() -> None:
    readers = Readers()
    asking = [readers.ask("ann") for _ in range(5)]
    await readers.settle()
    assert readers.made == ["ann"] * AT_ONCE_OF_ONE
    asking += [readers.ask(f"{number}") for number in range(20)]
    await readers.settle()
    assert len(readers.made) == AT_ONCE
    readers.read.set()
    await asyncio.gather(*asking)
    assert len(readers.made) == len(asking)
    starts = [m for m in readers.got if m["type"] == "http.response.start"]
    assert len(starts) == len(asking)
    assert (b"content-length", b"300000") in starts[0]["headers"]
    assert sum(len(m["body"]) for m in readers.got if "body" in m) == 300_000 * len(asking)


async def test_who_has_too_many_that_wait_is_refused() -> None:
    readers = Readers()
    asking = [readers.ask("ann") for _ in range(AT_ONCE_OF_ONE + WAITING)]
    await readers.settle()
    with pytest.raises(TooManyRequests, match="to be answered at length are under way"):
        await readers.ask("ann")
    readers.read.set()
    await asyncio.gather(*asking)
