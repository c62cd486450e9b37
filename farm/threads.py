"""Calls in a thread that are never left half done, and work on a loop that others get their turn beside."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

#: Of work that could go on without waiting for anything.
TURN_S = 0.005


async def to_its_end(
    call: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Run a call in a thread; when cancelled, still wait for it: nothing may be taken down under it."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await _over(running)
        raise


async def to_its_end_or_given_up(
    call: Callable[Concatenate[threading.Event, _Arguments], _Result],
    *arguments: _Arguments.args,
    **named: _Arguments.kwargs,
) -> _Result:
    """As ``to_its_end``, of a call that ends soon once its event is set, which is when this is cancelled."""
    given_up = threading.Event()
    running = asyncio.ensure_future(to_its_end(call, given_up, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        given_up.set()
        await _over(running)
        raise


async def _over(running: asyncio.Future[Any]) -> None:
    """Wait for what nobody asks any more how it ended."""
    await asyncio.wait({running})
    if not running.cancelled():
        running.exception()  # or asyncio would tell of it


async def in_turns(items: AsyncIterator[_Item]) -> AsyncIterator[_Item]:
    """The same items; where many are there at once, the rest of the loop has a turn now and then."""
    began = time.perf_counter()
    async for item in items:
        yield item
        if time.perf_counter() - began > TURN_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
