"""A file over HTTP: whole, or the one range that is asked for (RFC 9110, sections 13 and 14).

The file is opened before anything is said of it, so that one which is replaced or removed meanwhile is still
sent as it was announced. However large it is, no more than a chunk of it is held.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import IO

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from farm.errors import InvalidInput, NotReady, error_json

CHUNK_BYTES = 256 << 10
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.IGNORECASE | re.ASCII)


class RangeNotSatisfiable(InvalidInput):
    """The range begins behind the end of the file."""

    code = "range_not_satisfiable"
    http_status = 416


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes (first, past the last) that a ``Range`` header asks of a file of ``size`` bytes.

    None: the whole file, for a header that is missing, malformed, of another unit or of several ranges, as
    section 14.2 allows.

    Raises:
        RangeNotSatisfiable: the file has no such bytes.
    """
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first == "":
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(
            f"the file has {size} bytes, and the range begins at {start}", param="range"
        )
    return start, end


class OpenFile(Response):
    """A file that was opened already; made by ``open_file``.

    Args:
        growing: the file is still written: it has no tag and no size that lasts, and nobody keeps it.
    """

    def __init__(
        self, file: IO[bytes], *, media_type: str, headers: Mapping[str, str], growing: bool = False
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self._file = file
        self._growing = growing
        about = os.fstat(file.fileno())
        self._size = about.st_size
        own = {"accept-ranges": "bytes", "content-length": str(self._size)}
        if growing:
            own["cache-control"] = "no-store"
        else:
            own["etag"] = f'"{about.st_ino:x}-{about.st_mtime_ns:x}-{about.st_size:x}"'
            own["last-modified"] = formatdate(about.st_mtime, usegmt=True)
            own["cache-control"] = "private, no-cache"
        self.init_headers({**own, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            await asyncio.to_thread(self._file.close)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        if self._is_known(asked.getlist("if-none-match")):
            self.status_code = 304
            del self.headers["content-length"]
            await self._send_range(send, 0, 0)
            return
        try:
            found = wanted_range(self._range(asked), self._size)
        except RangeNotSatisfiable as error:
            headers = {"content-range": f"bytes */{self._size}", "accept-ranges": "bytes"}
            refused = JSONResponse(error_json(416, error.code, error.message, error.param), 416, headers)
            await refused(scope, receive, send)
            return
        start, end = found or (0, self._size)
        if found is not None:
            self.status_code = 206
            # Nobody knows yet how long a growing file will be.
            total = "*" if self._growing else str(self._size)
            self.headers["content-range"] = f"bytes {start}-{end - 1}/{total}"
            self.headers["content-length"] = str(end - start)
        await self._send_range(send, start, start if scope["method"] == "HEAD" else end)

    def _is_known(self, if_none_match: list[str]) -> bool:
        tag = self.headers.get("etag")
        if tag is None:
            return False
        known = [part.strip().removeprefix("W/") for line in if_none_match for part in line.split(",")]
        return tag in known or "*" in known

    def _range(self, asked: Headers) -> str | None:
        ranges = asked.getlist("range")
        if_range = asked.get("if-range")
        same = if_range is None or if_range in (self.headers.get("etag"), self.headers.get("last-modified"))
        return ranges[0] if same and len(ranges) == 1 else None

    async def _send_range(self, send: Send, start: int, end: int) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if start:
            await asyncio.to_thread(self._file.seek, start)
        while start < end:
            chunk = await asyncio.to_thread(self._file.read, min(CHUNK_BYTES, end - start))
            if not chunk:
                raise OSError(f"{self._file.name} became shorter while it was sent")
            start += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def open_file(
    path: Path, *, media_type: str, name: str, growing: bool = False, headers: Mapping[str, str] | None = None
) -> OpenFile:
    """A file as an answer; ``name`` is what a browser saves it as.

    Raises:
        NotReady: it is not there.
    """
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise NotReady(f"{name} is not there yet, or not any more") from None
    disposition = {"content-disposition": f'inline; filename="{name}"'}
    return OpenFile(file, media_type=media_type, headers={**disposition, **(headers or {})}, growing=growing)
