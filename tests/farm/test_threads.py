from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from farm import threads
from farm.threads import in_turns, to_its_end_or_given_up


async def test_a_call_that_is_cancelled_hears_of_it_and_is_waited_for() -> None:
    begun, told = threading.Event(), []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def call(given_up: threading.Event, name: str) -> None:
        begun.set()
        told.append((name, given_up.wait(20)))
        raise ValueError("given up, as it was told to")

    running = asyncio.ensure_future(to_its_end_or_given_up(call, "ray"))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert told == [("ray", True)]
    del running
    gc.collect()
    assert complaints == [], "how it ended is nobody's concern any more"


async def test_a_call_that_ends_gives_what_it_returns() -> None:
    assert await to_its_end_or_given_up(lambda given_up, number: number + 1, 2) == 3


async def test_many_messages_at_once_leave_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "TURN_S", -1.0)  # after each
    order: list[str] = []

    async def messages() -> AsyncIterator[str]:
        for number in range(3):
            yield f"message {number}"

    async def other() -> None:
        order.append("other")

    beside = asyncio.ensure_future(other())
    async for message in in_turns(messages()):
        order.append(message)
    await beside
    assert order == ["message 0", "other", "message 1", "message 2"]
