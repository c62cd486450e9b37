"""A check of a file lasts as long as somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dashboard.intake.looks import Look, Looks, while_wanted
from farm.errors import InvalidInput


class Client:
    """A request whose client is there until it is gone."""

    def __init__(self) -> None:
        self.gone = False

    async def is_disconnected(self) -> bool:
        return self.gone


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.intake.looks.GONE_S", 0.01)


def forever(look: Look, begun: threading.Event) -> str:
    for num_frames in range(10**9):
        look.told(num_frames, None)
        begun.set()
        threading.Event().wait(0.001)
    return "done"


async def test_a_look_ends_when_its_client_has_gone() -> None:
    client: Any = Client()
    look, begun = Look("me", "a.mp4"), threading.Event()
    waiting = asyncio.ensure_future(while_wanted(client, look, lambda: forever(look, begun)))
    assert await asyncio.to_thread(begun.wait, 60)
    client.gone = True
    with pytest.raises(InvalidInput, match="whoever sent the file has gone"):
        await asyncio.wait_for(waiting, 60)


async def test_a_look_ends_before_what_waits_for_it_is_cancelled() -> None:
    client: Any = Client()
    look, begun = Look("me", "a.mp4"), threading.Event()
    waiting = asyncio.ensure_future(while_wanted(client, look, lambda: forever(look, begun)))
    assert await asyncio.to_thread(begun.wait, 60)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    told = look.num_frames
    await asyncio.sleep(0)
    assert look.num_frames == told


def test_looks_are_told_to_their_owner_alone() -> None:
    looks = Looks()
    with looks.begun("me", "a.mp4") as mine, looks.begun("you", "b.mp4"):
        assert looks.of("me") == [mine]
    assert looks.of("me") == looks.of("you") == []
