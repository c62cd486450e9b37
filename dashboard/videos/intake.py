"""From a request of ``/v1/videos`` to a ``JobRequest``: JSON, a form, or a form with objects in its names."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request

from dashboard.http import job_request
from dashboard.intake import (
    MAX_TEXT_WITH_INPUT_BYTES,
    File,
    Form,
    Intake,
    Specs,
    Turns,
    Upload,
    caller_of,
    content_kind,
    read_body,
)
from dashboard.videos.schemas import (
    PAINTED_NAME,
    CreateRequest,
    EditRequest,
    InputReference,
    InvalidImage,
    Unsupported,
    job_options,
    nested,
    validated,
)
from farm.capabilities import EngineSpec
from farm.errors import InvalidInput, NotReady
from farm.request import MAX_SIDE, JobRequest, MediaInfo
from farm.running import Reopening
from farm.state import Job
from farm.values import Value

#: The longer side of a painted picture, at the least: a camera that moves in wants more than the frame has.
PAINTED_SIDE = 1024
MIN_SIDE = 16
PAINTINGS_AT_ONCE = 2
#: Of one caller.
PAINTINGS_WAITING = 30
#: Of a body that can hold no picture.
MAX_SMALL_BYTES = 1 << 20

V = TypeVar("V", bound=Value)

_CREATE_FORM = Form(
    files="input_reference", max_files=1, texts=None, max_text_bytes=MAX_TEXT_WITH_INPUT_BYTES
)
_EDIT_FORM = Form(files="video", max_files=1, texts=None)


class VideosIntake:
    """Takes in what the openai clients send; files are checked as everywhere (``dashboard.intake``)."""

    def __init__(self, reopening: Reopening, intake: Intake, specs: Specs) -> None:
        self._reopening = reopening
        self._specs = specs
        self._intake = intake
        self._painting = Turns("be painted", of_one=1, of_all=PAINTINGS_AT_ONCE, waiting=PAINTINGS_WAITING)

    async def json(self, request: Request) -> bytes:
        """A body that is JSON, and no large one.

        Raises:
            InvalidInput: it says that it is something else.
        """
        if content_kind(request) != b"application/json":
            raise InvalidInput("expected a body of application/json")
        return await read_body(request, max_bytes=MAX_SMALL_BYTES)

    @asynccontextmanager
    async def create(self, request: Request) -> AsyncIterator[JobRequest]:
        """What a create asks for. Its files are there until the block ends."""
        async with self._intake.folder() as folder:
            wanted, file = await self._body(request, folder, CreateRequest, _CREATE_FORM)
            options = job_options(wanted)
            if file is not None:
                media = [await self._checked(request, file, "input_reference")]
            elif wanted.input_reference is not None:
                media = [await self._referenced(request, wanted.input_reference, folder)]
            else:
                spec = await self._specs.get(options["model"])
                words_alone = "text_alone" in spec.takes
                media = [] if words_alone else [await self._painted(request, options, spec, folder)]
            yield job_request(options, media)

    @asynccontextmanager
    async def edit(
        self, request: Request, job_of: Callable[[str], Job]
    ) -> AsyncIterator[tuple[JobRequest, Job | None]]:
        """What an edit asks for, and the job whose video is edited, where it is one of this farm."""
        async with self._intake.folder() as folder:
            wanted, file = await self._body(request, folder, EditRequest, _EDIT_FORM)
            source = None
            if file is None:
                if wanted.video is None:
                    raise InvalidInput("video is missing: a file, or the id of a video", param="video")
                source = job_of(wanted.video.id)
                file = await self._published(source, folder)
            options = job_options(wanted, **({"default_model": source.request.model} if source else {}))
            media = await self._checked(request, file, "video")
            if media.kind != "video":
                raise InvalidInput(f"{file.name} is an image; an edit is made over a video", param="video")
            yield job_request(options, [media]), source

    async def _body(
        self, request: Request, folder: Path, model: type[V], form: Form
    ) -> tuple[V, File | None]:
        if content_kind(request) == b"application/json":
            return await asyncio.to_thread(validated, model, await self._intake.body(request)), None
        with _of_pictures(form.files):
            found: Upload = await self._intake.form(request, folder, form)
        wanted = validated(model, nested(_texts(found.texts)))
        return wanted, found.files[0] if found.files else None

    async def _checked(self, request: Request, file: File, param: str) -> MediaInfo:
        with _of_pictures(param):
            return await self._intake.checked(request, file, param=param)

    async def _referenced(self, request: Request, reference: InputReference, folder: Path) -> MediaInfo:
        if reference.file_id is not None:
            return (await asyncio.to_thread(self._intake.uploads.get, reference.file_id)).media
        url = reference.image_url or ""
        if url[:8].lower().startswith(("http://", "https://")):
            raise Unsupported(
                "this farm fetches no addresses; send the picture as a file, a data: URL or an upload",
                param="input_reference",
            )
        path = folder / "input-1"
        with _of_pictures("input_reference"):
            await asyncio.to_thread(self._intake.write_data_url, url, path, param="input_reference")
        return await self._checked(request, File(path, "image_url"), "input_reference")

    async def _painted(
        self, request: Request, options: Mapping[str, Any], spec: EngineSpec, folder: Path
    ) -> MediaInfo:
        """A picture painted from the prompt, in the shape that is asked for or the model's own."""
        asked = [options.get(name) for name in ("width", "height")]
        sides = [side for side in asked if side is not None and MIN_SIDE <= side <= MAX_SIDE]
        width, height = sides if len(sides) == 2 else (spec.native_width, spec.native_height)
        scale = max(1, math.ceil(PAINTED_SIDE / max(width, height)))
        prompt, seed = options["prompts"][0], options.get("seed", 0)
        async with self._painting.one(caller_of(request)):
            png = await asyncio.to_thread(
                self._intake.tools.backdrop, prompt, seed, width * scale, height * scale
            )
        path = folder / PAINTED_NAME
        await asyncio.to_thread(path.write_bytes, png)
        return MediaInfo(
            kind="image",
            width=width * scale,
            height=height * scale,
            num_frames=1,
            sha256=hashlib.sha256(png).hexdigest(),
            path=path,
        )

    async def _published(self, job: Job, folder: Path) -> File:
        """A finished video, to be checked into ``folder``."""
        if job.published is None:
            raise NotReady("the video is not finished; edit it when it is completed", param="video")
        path = folder / "input-1"
        path.symlink_to((await self._reopening.video_path(job)).absolute())
        return File(path, f"{job.id}.mp4")


def _texts(fields: Mapping[str, bytearray]) -> dict[str, str]:
    try:
        return {name: value.decode() for name, value in fields.items()}
    except UnicodeDecodeError as error:
        raise InvalidInput("a field holds bytes that are no UTF-8 text; send it again") from error


@contextmanager
def _of_pictures(param: str) -> Iterator[None]:
    """What is refused of a file is refused as OpenAI refuses it: 400 ``invalid_image``."""
    try:
        yield
    except InvalidInput as error:
        if error.param != param:
            raise
        raise InvalidImage(error.message, param=param) from error
