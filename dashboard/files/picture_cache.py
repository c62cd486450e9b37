"""Pictures made on demand: each once for all who ask at the same time, a few at a time, the newest kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from farm.errors import TooManyRequests

KEPT_BYTES = 64 << 20
#: Pictures that are made at the same time; the farm's own work comes first.
AT_ONCE = 2
#: Pictures that wait for their turn; who asks for more has to come again.
MAX_WAITING = 500


class PictureCache:
    """Bytes by key, up to ``KEPT_BYTES``. A key names content that never changes."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0
        self._coming: dict[str, asyncio.Task[bytes]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The picture of that key; ``make`` runs in a thread where it is not there yet.

        Raises:
            TooManyRequests: too many others are to be made before it.
        """
        found = self._made.get(key)
        if found is not None:
            self._made.move_to_end(key)
            return found
        work = self._coming.get(key)
        if work is None:
            # A server does not hear that somebody went away, and makes what nobody waits for any more.
            if len(self._coming) >= MAX_WAITING:
                raise TooManyRequests("too many pictures are being made; try again in some seconds")
            work = self._coming[key] = asyncio.create_task(self._make(key, make))
        # One who goes away leaves the others their picture.
        return await asyncio.shield(work)

    async def _make(self, key: str, make: Callable[[], bytes]) -> bytes:
        try:
            async with self._turn:
                made = await asyncio.to_thread(make)
        finally:
            del self._coming[key]
        self._made[key] = made
        self._num_bytes += len(made)
        while self._num_bytes > KEPT_BYTES:
            self._num_bytes -= len(self._made.popitem(last=False)[1])
        return made

    async def answer(self, request: Request, key: str, make: Callable[[], bytes]) -> Response:
        """A WebP picture, or 304 for who has it already."""
        tag = f'"{hashlib.sha256(key.encode()).hexdigest()[:24]}"'
        # What an address shows may change with a new take, so that it is asked about each time.
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(await self.get(key, make), media_type="image/webp", headers=headers)
