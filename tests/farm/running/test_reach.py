"""Whether ports are reached, and by whom they are answered."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from farm.running import reach
from farm.running.reach import unreached


async def test_a_port_is_reached_where_the_right_word_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "ANSWER_S", 0.3)

    async def says(stack: AsyncExitStack, word: bytes) -> int:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(word)
            if word:
                writer.close()

        server = await stack.enter_async_context(await asyncio.start_server(greet, "127.0.0.1", 0))
        port: int = server.sockets[0].getsockname()[1]
        return port

    async with AsyncExitStack() as stack:
        right, wrong, short, silent = [await says(stack, word) for word in (b"word", b"wolf", b"wo", b"")]
        assert await unreached("127.0.0.1", [right, wrong, short, silent], b"word") == [wrong, short, silent]
        assert await unreached("127.0.0.1", [right, silent]) == []
        closed = await says(stack, b"word")
    assert await unreached("127.0.0.1", [closed], b"word") == [closed]
