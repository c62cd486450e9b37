"""What works beside the answers for as long as the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI

log = logging.getLogger(__name__)

#: A work that failed begins again after this.
RESTART_S = 10.0

Work = Callable[[], Coroutine[Any, Any, None]]


def beside(
    *works: Work, at_end: Callable[[], None]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A ``lifespan`` of an app under which these run; one that fails is logged and begins again.

    Args:
        at_end: lets go of what they have used.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.ensure_future(_kept_up(work)) for work in works]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            at_end()

    return lifespan


async def _kept_up(work: Work) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("a part of the server failed, and begins again in %.0f s", RESTART_S)
        await asyncio.sleep(RESTART_S)
