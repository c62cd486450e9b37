from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dashboard.intake.turns import Turns
from farm.errors import TooManyRequests


@pytest.fixture
def begin() -> Callable[[Turns, str], tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]]:
    """Ask for a turn; gives the task, whether it has begun, and what ends it."""

    def start(turns: Turns, who: str) -> tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]:
        begun, end = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with turns.one(who):
                begun.set()
                await end.wait()

        return asyncio.ensure_future(work()), begun, end

    return start


async def test_who_takes_long_keeps_nobody_else_waiting(begin: Callable) -> None:  # type: ignore[type-arg]
    turns = Turns("be checked", of_one=1, of_all=2, waiting=10)
    slow = [begin(turns, "slow") for _ in range(4)]
    await slow[0][1].wait()
    other, begun, end = begin(turns, "other")
    await asyncio.wait_for(begun.wait(), 10)
    assert [started.is_set() for _, started, _ in slow] == [True, False, False, False]
    end.set()
    await other
    for task, started, finish in slow:
        await asyncio.wait_for(started.wait(), 10)
        finish.set()
        await task


async def test_there_are_only_so_many_turns(begin: Callable) -> None:  # type: ignore[type-arg]
    turns = Turns("be checked", of_one=1, of_all=2, waiting=10)
    first, second, third = (begin(turns, who) for who in ("a", "b", "c"))
    await first[1].wait()
    await second[1].wait()
    assert not third[1].is_set()
    first[2].set()
    await asyncio.wait_for(third[1].wait(), 10)
    for task, _, end in (second, third):
        end.set()
        await task


async def test_who_has_too_many_waiting_is_refused_until_one_ends_or_is_given_up(
    begin: Callable,  # type: ignore[type-arg]
) -> None:
    turns = Turns("be checked", of_one=1, of_all=2, waiting=1)
    first, second = begin(turns, "a"), begin(turns, "a")
    await first[1].wait()
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests, match="2 requests of yours to be checked are under way"):
        async with turns.one("a"):
            pass
    second[0].cancel()
    await asyncio.wait([second[0]])
    third = begin(turns, "a")
    first[2].set()
    await asyncio.wait_for(third[1].wait(), 10)
    third[2].set()
    await third[0]
    assert turns._here == {}
    assert turns._own == {}
