"""Taking in a multipart upload: written to disk as it arrives, counted on the way, its names never used."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from farm.errors import CannotRun, InvalidInput, TooLarge
from farm.request import MAX_INPUTS
from farm.running import RESERVE_BYTES

#: Everything but the files: MAX_INPUTS prompts of the longest kind fit, escaped.
MAX_TEXT_BYTES = 8 << 20
#: Of a form whose picture may be a data: URL, as the openai clients send it; the API's own limit is 20 MiB.
MAX_TEXT_WITH_INPUT_BYTES = 24 << 20
#: A job as JSON, its inputs perhaps in it.
MAX_JSON_BYTES = 32 << 20
#: Values in JSON: a body of the largest size that is all values would take seconds to read.
MAX_JSON_VALUES = 200_000
#: What a field counts beside its text, so that nobody sends a million empty ones; a name has no more.
_FIELD_BYTES = 4 << 10
#: Given to the parser, in a thread, at a time.
_CHUNK_BYTES = 1 << 20
#: Of a file, shown to ``check_head`` before more of it is kept.
_HEAD_BYTES = 512


@dataclass(frozen=True)
class Form:
    """Which fields a form may have."""

    #: The field that holds the files.
    files: str
    max_files: int
    #: The fields that hold text; None: any.
    texts: frozenset[str] | None
    #: Of all of them; each counts ``_FIELD_BYTES`` besides.
    max_text_bytes: int = MAX_TEXT_BYTES


JOB_FORM = Form(files="inputs", max_files=MAX_INPUTS, texts=frozenset({"request"}))
PICTURE_FORM = Form(files="picture", max_files=1, texts=frozenset())
UPLOAD_FORM = Form(files="file", max_files=1, texts=frozenset({"clip"}))


@dataclass(frozen=True)
class File:
    path: Path
    #: As the client called it; for messages only.
    name: str


@dataclass
class Upload:
    """What a form held: its files in order, and its text fields (of one that came twice, the last)."""

    folder: Path
    texts: dict[str, bytearray] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)


def content_kind(request: Request) -> bytes:
    """The media type of a request's body, without parameters."""
    kind: bytes = parse_options_header(request.headers.get("content-type"))[0]
    return kind


async def receive(
    request: Request,
    folder: Path,
    *,
    form: Form,
    max_bytes: int,
    check_head: Callable[[bytes], None],
    take: Callable[[int], None],
) -> Upload:
    """Read a multipart form into ``folder``; its files are called ``input-1``, ``input-2`` and so on.

    Args:
        check_head: raises InvalidInput for the first bytes of a file that is not taken.
        take: claims so many bytes of the disk in all, before they are written; raises CannotRun where there
            are none for it.

    Raises:
        TooLarge: the body is longer than ``max_bytes``; the rest of it is not read.
        InvalidInput: not such a form, it ended early, or a file is of a kind that is not taken.
        CannotRun: no space, or little more than the farm itself needs.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidInput(f"expected multipart/form-data with {_fields(form)}")
    take(_checked_length(request, max_bytes, form.files))
    upload = Upload(folder)
    with _reading(lambda: _FormReader(upload, boundary, form, check_head)) as reader:
        num_bytes, pending = 0, bytearray()
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise _too_large(max_bytes, form.files)
            take(num_bytes)  # of a body that does not say how long it is
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                await asyncio.to_thread(reader.write, bytes(pending))
                pending.clear()
        await asyncio.to_thread(reader.write, bytes(pending))
        reader.check_complete()
    return upload


async def read_body(request: Request, *, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is longer than ``max_bytes``, and the rest of it is not read, or it holds more values
            than any request needs.
        InvalidInput: it ended early.
    """
    _checked_length(request, max_bytes, None)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes, None)
    except ClientDisconnect as error:
        raise InvalidInput("the body ended early; send it again") from error
    if body.count(b",") >= MAX_JSON_VALUES:
        raise TooLarge(
            f"the body holds more than {MAX_JSON_VALUES} values, the most that is taken; send less"
        )
    return bytes(body)


def _checked_length(request: Request, max_bytes: int, param: str | None) -> int:
    """The length a body is announced with, 0 where it is not."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise InvalidInput("Content-Length is no number", param="content-length")
    if len(length) > 18 or int(length) > max_bytes:
        raise _too_large(max_bytes, param)
    return int(length)


def _too_large(max_bytes: int, param: str | None) -> TooLarge:
    what = "body" if param is None else "upload"
    return TooLarge(
        f"the {what} is larger than {max_bytes} bytes, the most that is taken; send less", param=param
    )


def _fields(form: Form) -> str:
    texts = "" if not form.texts else f"the field {', '.join(sorted(form.texts))} and "
    return f"{texts}the file{'s' if form.max_files > 1 else ''} {form.files}"


@contextlib.contextmanager
def _reading(begin: Callable[[], _FormReader]) -> Iterator[_FormReader]:
    """Turns what goes wrong into errors for people, and closes the open file."""
    try:
        with contextlib.closing(begin()) as reader:
            yield reader
    except FormParserError as error:
        raise InvalidInput(f"the upload is not a multipart form: {error}") from error
    except ClientDisconnect as error:
        raise InvalidInput("the upload ended early; send it again") from error
    except OSError as error:
        raise CannotRun(f"the upload cannot be kept ({error.strerror}); free disk space") from error


class _FormReader:
    """What the multipart parser calls. Files go to disk part by part."""

    def __init__(
        self, upload: Upload, boundary: bytes, form: Form, check_head: Callable[[bytes], None]
    ) -> None:
        self._parser = _parser(self, boundary)
        self._upload = upload
        self._form = form
        self._check_head = check_head
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._text = bytearray()
        self._num_text_bytes = 0
        self._file: IO[bytes] | None = None
        #: Of the open file, until it was looked at.
        self._head: bytearray | None = None
        self._complete = False

    def write(self, chunk: bytes) -> None:
        if shutil.disk_usage(self._upload.folder).free < RESERVE_BYTES:
            # The journal is on this disk, too: without room for it the farm ends.
            raise CannotRun("the upload cannot be kept: the disk is all but full; free disk space")
        self._parser.write(chunk)

    def check_complete(self) -> None:
        if not self._complete:
            raise InvalidInput("the upload ended early; send it again")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def headers_finished(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._disposition = b""
        self._count_text(_FIELD_BYTES)
        name = parameters.get(b"name", b"").decode(errors="replace")
        if name == self._form.files:
            self._open(parameters.get(b"filename", b"").decode(errors="replace"))
        elif self._form.texts is None or name in self._form.texts:
            self._text = self._upload.texts[name] = bytearray()
        else:
            known = " and ".join([*sorted(self._form.texts), self._form.files])
            raise InvalidInput(f"field {name[:80]!r} is not known here; expected {known}")

    def _open(self, name: str) -> None:
        number = len(self._upload.files) + 1
        if number > self._form.max_files:
            raise InvalidInput(
                f"got more than {self._form.max_files} {self._form.files}, which are the most",
                param=self._form.files,
            )
        path = self._upload.folder / f"input-{number}"
        shown = "".join(c if c.isprintable() else "?" for c in name)[:100]
        self._upload.files.append(File(path, shown or path.name))
        self._file = path.open("xb")
        self._head = bytearray()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            if self._head is not None:
                self._head += data[start : min(end, start + _HEAD_BYTES)]
                if len(self._head) >= _HEAD_BYTES:
                    self._look()
            self._file.write(data[start:end])
            return
        self._count_text(end - start)
        self._text += data[start:end]

    def _count_text(self, num_bytes: int) -> None:
        self._num_text_bytes += num_bytes
        most = self._form.max_text_bytes
        if self._num_text_bytes > most:
            raise TooLarge(f"the fields of text have more than {most} bytes; send less", param="request")

    def _look(self) -> None:
        head, self._head = bytes(self._head or b""), None
        try:
            self._check_head(head)
        except InvalidInput as error:
            name = self._upload.files[-1].name
            raise InvalidInput(f"{name}: {error.message}", param=self._form.files) from error

    def part_end(self) -> None:
        if self._head is not None:
            self._look()
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def end(self) -> None:
        self._complete = True


def _parser(reader: _FormReader, boundary: bytes) -> MultipartParser:
    return MultipartParser(
        boundary,
        {
            "on_header_field": reader.header_field,
            "on_header_value": reader.header_value,
            "on_header_end": reader.header_end,
            "on_headers_finished": reader.headers_finished,
            "on_part_data": reader.part_data,
            "on_part_end": reader.part_end,
            "on_end": reader.end,
        },
    )
