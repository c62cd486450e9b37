"""Taking in a multipart upload: written to disk as it arrives, counted on the way, its names never used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from farm.errors import CannotRun, InvalidInput
from farm.job import MAX_INPUTS

#: Everything but the files: MAX_INPUTS prompts of the longest kind fit, escaped.
MAX_OPTIONS_BYTES = 8 << 20
#: Given to the parser, in a thread, at a time.
_CHUNK_BYTES = 1 << 20


class UploadTooLarge(InvalidInput):
    """More bytes than the farm takes."""

    http_status = 413


@dataclass(frozen=True)
class File:
    path: Path
    #: As the client called it; for messages only.
    name: str


@dataclass
class Upload:
    """A form with one field ``request`` and files ``inputs``, in order."""

    folder: Path
    options: bytearray = field(default_factory=bytearray)
    files: list[File] = field(default_factory=list)


async def receive(request: Request, folder: Path, *, max_bytes: int) -> Upload:
    """Read a multipart form into ``folder``; its files are called ``input-1``, ``input-2`` and so on.

    Raises:
        UploadTooLarge: the body is longer than ``max_bytes``; the rest of it is not read.
        InvalidInput: not such a form, or it ended early.
        CannotRun: no space.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidInput("expected multipart/form-data with the field request and the files inputs")
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise _too_large(max_bytes)
    upload = Upload(folder)
    with _reading(upload, boundary) as reader:
        num_bytes, pending = 0, bytearray()
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise _too_large(max_bytes)
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                await asyncio.to_thread(reader.write, bytes(pending))
                pending.clear()
        await asyncio.to_thread(reader.write, bytes(pending))
        reader.check_complete()
    return upload


def _too_large(max_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"the upload is larger than {max_bytes} bytes, the most that is taken; send less", param="inputs"
    )


@contextlib.contextmanager
def _reading(upload: Upload, boundary: bytes) -> Iterator[_FormReader]:
    """Turns what goes wrong into errors for people, and closes the open file."""
    try:
        with contextlib.closing(_FormReader(upload, boundary)) as reader:
            yield reader
    except FormParserError as error:
        raise InvalidInput(f"the upload is not a multipart form: {error}") from error
    except ClientDisconnect as error:
        raise InvalidInput("the upload ended early; send it again") from error
    except OSError as error:
        raise CannotRun(f"the upload cannot be kept ({error.strerror}); free disk space") from error


class _FormReader:
    """What the multipart parser calls. Files go to disk part by part."""

    def __init__(self, upload: Upload, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": self._take,
                "on_part_end": self.close,
                "on_end": self._end,
            },
        )
        self._upload = upload
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._file: IO[bytes] | None = None
        self._complete = False

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def check_complete(self) -> None:
        if not self._complete:
            raise InvalidInput("the upload ended early; send it again")
        if not self._upload.options:
            raise InvalidInput("request is missing: the job's options as JSON", param="request")
        if not self._upload.files:
            raise InvalidInput("inputs is missing: one video, or one or more images", param="inputs")

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_part(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._disposition = b""
        match parameters.get(b"name", b"").decode(errors="replace"):
            case "request":
                self._upload.options.clear()
            case "inputs":
                self._open(parameters.get(b"filename", b"").decode(errors="replace"))
            case other:
                raise InvalidInput(f"field {other[:80]!r} is not known here; expected request and inputs")

    def _open(self, name: str) -> None:
        number = len(self._upload.files) + 1
        if number > MAX_INPUTS:
            raise InvalidInput(f"got more than {MAX_INPUTS} inputs, which are the most", param="inputs")
        path = self._upload.folder / f"input-{number}"
        shown = "".join(c if c.isprintable() else "?" for c in name)[:100]
        self._upload.files.append(File(path, shown or path.name))
        self._file = path.open("xb")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif len(self._upload.options) + end - start > MAX_OPTIONS_BYTES:
            raise UploadTooLarge(f"request has more than {MAX_OPTIONS_BYTES} bytes", param="request")
        else:
            self._upload.options += data[start:end]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end(self) -> None:
        self._complete = True
