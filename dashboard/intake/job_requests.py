"""The way from a request's body to a ``JobRequest`` of checked files."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request

from dashboard.access import Principal
from dashboard.http import job_body, job_options, job_request, picture_body
from dashboard.intake.kept_uploads import UPLOAD_ID, KeptUpload, KeptUploads
from dashboard.intake.looks import Looks, while_wanted
from dashboard.intake.turns import Turns
from dashboard.intake.upload_space import UploadSpace
from dashboard.intake.uploads import (
    JOB_FORM,
    PICTURE_FORM,
    UPLOAD_FORM,
    File,
    Form,
    Upload,
    content_kind,
    read_body,
    receive,
)
from farm.errors import CannotRun, InvalidInput
from farm.request import MAX_REFERENCES, JobRequest, MediaInfo, MediaTools
from farm.running import Storage

#: Uploads that are checked at the same time: each takes a process with up to some GiB.
CHECKS_AT_ONCE = 3
#: Requests of one caller that may wait for a check of theirs to end.
CHECKS_WAITING = 30

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def caller_of(request: Request) -> str:
    """Whom a request's work counts against."""
    principal: Principal = request.state.principal
    return principal.id


@dataclass(frozen=True)
class Intake:
    """Whatever comes from outside is counted, looked at and checked here before anything else sees it."""

    storage: Storage
    tools: MediaTools
    uploads: KeptUploads
    max_upload_bytes: int
    space: UploadSpace
    looks: Looks = field(default_factory=Looks)
    _turns: Turns = field(
        default_factory=lambda: Turns("be checked", of_one=1, of_all=CHECKS_AT_ONCE, waiting=CHECKS_WAITING)
    )

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A private folder for what a request brings; gone when the block ends."""
        folder = await asyncio.to_thread(self.storage.incoming_folder)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @asynccontextmanager
    async def job_request(self, request: Request) -> AsyncIterator[JobRequest]:
        """What a request asks for, as a form or as JSON. Its files are there until the block ends."""
        async with self.folder() as folder:
            if content_kind(request) == b"application/json":
                yield await self._from_json(request, folder)
            else:
                yield await self._from_form(request, folder)

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[MediaInfo]:
        """A picture that comes as a form's file, or is named in JSON. It is there until the block ends."""
        async with self.folder() as folder:
            if content_kind(request) == b"application/json":
                name = picture_body(await self.body(request))
                yield await self._named(request, name, folder / "picture", param="picture")
                return
            found = await self.form(request, folder, PICTURE_FORM)
            if not found.files:
                raise InvalidInput("picture is missing", param="picture")
            yield await self.checked(request, found.files[0], param="picture")

    async def form(self, request: Request, folder: Path, form: Form) -> Upload:
        """A multipart form; the first bytes of its files are those of pictures or videos."""
        with self.space.taken(caller_of(request)) as taken:
            return await receive(
                request,
                folder,
                form=form,
                max_bytes=self.max_upload_bytes,
                check_head=self.tools.refuse_unknown,
                take=taken.up_to,
            )

    async def body(self, request: Request) -> bytes:
        """A body that may hold inputs, and is in memory as a whole.

        Raises:
            TooManyRequests: whoever asks has as many uploads under way as may be.
        """
        with self.space.taken(caller_of(request)):
            return await read_body(request)

    async def checked(self, request: Request, file: File, *, param: str, clip: bool = False) -> MediaInfo:
        """A file as what it is after it was decoded whole and written anew beside it.

        clip: an animated picture is a video; else its first picture is taken.

        Raises:
            InvalidInput: it is refused; ``param`` is the field it came in.
            TooManyRequests: whoever asks has too many that wait.
        """
        try:
            with self.looks.begun(caller_of(request), file.name) as look:
                async with self._turns.one(caller_of(request)):
                    normalise = self.tools.normalise_clip if clip else self.tools.normalise
                    check = partial(normalise, file.path, file.path.parent, look.told)
                    media = await while_wanted(request, look, check)
            notes = tuple(note.replace(file.path.name, file.name) for note in media.notes)
            return media.model_copy(update={"notes": notes})
        except InvalidInput as error:
            message = error.message.replace(file.path.name, file.name)
            raise InvalidInput(message, param=param) from error

    async def keep(self, request: Request) -> KeptUpload:
        """Take one file in, to be named later.

        Raises:
            CannotRun: as many as are kept at a time are there already.
        """
        self.uploads.check_room(0)
        async with self.folder() as folder:
            found = await self.form(request, folder, UPLOAD_FORM)
            if not found.files:
                raise InvalidInput("file is missing: a picture or a video", param="file")
            file = found.files[0]
            clip = found.texts.get("clip", b"false")
            if clip not in (b"true", b"false"):
                raise InvalidInput("clip: expected true or false", param="clip")
            media = await self.checked(request, file, param="file", clip=clip == b"true")
            return await asyncio.to_thread(self.uploads.keep, media, file.name)

    async def _from_form(self, request: Request, folder: Path) -> JobRequest:
        found = await self.form(request, folder, JOB_FORM)
        if not found.texts.get("request"):
            raise InvalidInput("request is missing: the job's options as JSON", param="request")
        options = job_options(bytes(found.texts["request"]))
        clip = options.pop("clip", False)
        media = [await self.checked(request, file, param="inputs", clip=clip) for file in found.files]
        return job_request(options, media, await self._named_files(request, options, folder))

    async def _from_json(self, request: Request, folder: Path) -> JobRequest:
        options, inputs = await asyncio.to_thread(job_body, await self.body(request))
        clip = options.pop("clip", False)
        media = [
            await self._named(request, text, folder / f"input-{i}", clip=clip)
            for i, text in enumerate(inputs, 1)
        ]
        return job_request(options, media, await self._named_files(request, options, folder))

    async def _named_files(
        self, request: Request, options: dict[str, Any], folder: Path
    ) -> dict[str, MediaInfo | tuple[MediaInfo, ...] | None]:
        """The sound, the mask and the pictures that the options name."""
        found: dict[str, MediaInfo | tuple[MediaInfo, ...] | None] = {}
        for name in ("audio", "mask"):
            text = options.get(name)
            found[name] = text and await self._named(request, text, folder / name, param=name)
        texts = options.get("references", ())
        if len(texts) > MAX_REFERENCES:
            raise InvalidInput(
                f"got {len(texts)} references, at most {MAX_REFERENCES} are taken", param="references"
            )
        shown = [
            await self._named(request, text, folder / f"reference-{i}", param="references")
            for i, text in enumerate(texts, 1)
        ]
        return {**found, "references": tuple(shown)}

    async def _named(
        self, request: Request, text: str, path: Path, *, param: str = "inputs", clip: bool = False
    ) -> MediaInfo:
        """A file that is named in JSON: an upload by its id, or a data: URL."""
        if UPLOAD_ID.fullmatch(text):
            return (await asyncio.to_thread(self.uploads.get, text)).media
        await asyncio.to_thread(self.write_data_url, text, path, param=param)
        return await self.checked(request, File(path, path.name), param=param, clip=clip)

    def write_data_url(self, text: str, path: Path, *, param: str = "inputs") -> None:
        """The bytes of a base64 data: URL as a file. Its media type is not believed. Blocks.

        Raises:
            InvalidInput: it is none, or its bytes are of no kind that is taken.
        """
        found = _DATA_URL.match(text)
        if found is None:
            raise InvalidInput(
                f"{param}: {text[:40]!r} is neither the id of an upload nor a data: URL in base64",
                param=param,
            )
        try:
            content = base64.b64decode(text[found.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"{param}: a data: URL is not base64 ({error})", param=param) from error
        try:
            self.tools.refuse_unknown(content[:512])
        except InvalidInput as error:
            raise InvalidInput(f"{path.name}: {error.message}", param=param) from error
        try:
            path.write_bytes(content)
        except OSError as error:
            raise CannotRun(f"the upload cannot be kept ({error.strerror}); free disk space") from error
