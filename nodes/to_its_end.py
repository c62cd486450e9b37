"""Calls of Ray in a thread that are never left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def to_its_end(call: Callable[..., Any], *arguments: Any) -> Any:
    """Run a call in a thread; when cancelled, still wait for it: Ray must not be taken down under it."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
