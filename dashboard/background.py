"""What works beside the answers for as long as the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


def beside(*works: Work) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A ``lifespan`` of an app under which these run; one that fails is logged, and the farm goes on."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.ensure_future(work()) for work in works]
        for task in running:
            task.add_done_callback(_tell)
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    return lifespan


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a part of the server ended", exc_info=error)
