from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from farm.threads import to_its_end_or_given_up


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
