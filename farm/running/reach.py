"""Whether the ports of a machine are reached from this one: I/O of a few seconds, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

#: A firewall that drops says nothing; on a network of a farm an answer takes milliseconds.
ANSWER_S = 4.0


async def unreached(host: str, ports: Iterable[int], word: bytes = b"") -> list[int]:
    """Those TCP ports to which no connection comes about, or whose other end does not begin with ``word``."""

    async def reached(port: int) -> bool:
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    return not word or await reader.readexactly(len(word)) == word
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError):
            return False

    asked = list(ports)
    answers = await asyncio.gather(*map(reached, asked))
    return [port for port, answer in zip(asked, answers, strict=True) if not answer]


async def still_unreached(host: str, ports: Iterable[int]) -> list[int]:
    """Those that are not reached twice in a row: a machine may be busy for some seconds."""
    once = await unreached(host, ports)
    return await unreached(host, once) if once else []
