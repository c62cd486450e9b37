"""JSON that takes long to write, written in slices: nothing else waits for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

#: Items of a list between two turns of the event loop.
SLICE = 100


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
