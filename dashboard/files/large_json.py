"""JSON that grows with a job: written in slices, so that nothing waits for it, and only so much at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from dashboard.intake import Turns, caller_of

#: Items of a list between two turns of the event loop.
SLICE = 100
#: Answers that are written and sent at a time, of one caller and of all: each takes some MB until it is read.
AT_ONCE_OF_ONE, AT_ONCE = 2, 8
#: Of one caller.
WAITING = 60
#: Of an answer, between two looks at whether its reader takes any.
_CHUNK_BYTES = 256 << 10


class LargeAnswers:
    """Gives out answers that are made when it is their turn, and keep it until their reader has them."""

    def __init__(self) -> None:
        self._turns = Turns("be answered at length", of_one=AT_ONCE_OF_ONE, of_all=AT_ONCE, waiting=WAITING)

    def answer(
        self, request: Request, make: Callable[[], Awaitable[bytes]], headers: Mapping[str, str] | None = None
    ) -> Response:
        """The JSON that ``make`` writes; 429 where a caller has too many that wait."""
        return _LargeAnswer(self._turns.one(caller_of(request)), make, headers)


class _LargeAnswer(Response):
    media_type = "application/json"

    def __init__(
        self,
        turn: AbstractAsyncContextManager[None],
        make: Callable[[], Awaitable[bytes]],
        headers: Mapping[str, str] | None,
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]  # of nothing
        self._turn = turn
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turn:
            body = memoryview(await self._make())
            self.headers["content-length"] = str(len(body))
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for at in range(0, len(body), _CHUNK_BYTES):
                chunk = bytes(body[at : at + _CHUNK_BYTES])
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def large_json(values: Mapping[str, Any]) -> bytes:
    """An object as JSON. A value that is an iterator is a list, whose items are made as they are written."""
    members = []
    for name, value in values.items():
        text = await _list(value) if isinstance(value, Iterator) else _json(value)
        members.append(f"{_json(name)}:{text}")
        await asyncio.sleep(0)
    return f"{{{','.join(members)}}}".encode()


async def _list(items: Iterator[Any]) -> str:
    slices = []
    while some := list(islice(items, SLICE)):
        slices.append(_json(some)[1:-1])
        await asyncio.sleep(0)
    return f"[{','.join(slices)}]"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
