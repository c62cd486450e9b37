"""HEAD wherever GET is answered: the same answer without its body."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnswerHead:
    """Has a route that takes GET alone answer HEAD, too; its answer ends where a body would begin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or not _for_get_alone(scope):
            await self._app(scope, receive, send)
            return
        begun = asyncio.Event()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                begun.set()

        got: dict[str, Any] = {**scope, "method": "GET"}
        answering = asyncio.ensure_future(self._app(got, receive, send_head))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait({answering, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            # A stream of events has no end of its own.
            for each in (answering, waiting):
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each


def _for_get_alone(scope: Scope) -> bool:
    """Whether a route answers GET of this address, and none HEAD."""

    def taken(method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in scope["app"].router.routes)

    return taken("GET") and not taken("HEAD")
