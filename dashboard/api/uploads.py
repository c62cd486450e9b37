"""Routes of uploads: kept for a day, to be named by plans and jobs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from dashboard.api.examples import CHECKS, UPLOAD, UPLOAD_ID
from dashboard.api.segments import PICTURE_SIDE
from dashboard.files import PictureCache
from dashboard.http import answers, api_router
from dashboard.intake import Intake, KeptUpload, caller_of

UploadId = Annotated[str, Path(description="Id of an upload.", examples=[UPLOAD_ID])]
_NO_UPLOAD = {404: "There is no such upload, or its day is over."}

_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A picture, a video or a sound; docs/inputs.md lists the kinds.",
                        },
                        "clip": {
                            "type": "boolean",
                            "default": False,
                            "description": "An animated picture is a video; else its first picture is taken.",
                        },
                    },
                },
                "example": {"file": "(the bytes of photo.jpg)"},
            }
        },
    }
}


class CheckSummary(TypedDict):
    """A file that is being checked. ``share`` of it is done; null where that is not known (yet)."""

    #: As it was called where it came from.
    name: str
    num_frames: int
    share: float | None


class Checks(TypedDict):
    data: list[CheckSummary]


class UploadSummary(TypedDict):
    """A checked picture, video or sound. ``fps`` is a video's frames a second, else null."""

    id: str
    kind: str
    width: int
    height: int
    num_frames: int
    fps: float | None
    #: What is taken of it otherwise than it is.
    notes: list[str]
    #: Of a video or a sound; null: it has none.
    sound: dict[str, Any] | None
    #: As it was called where it came from.
    name: str
    #: Seconds since the epoch.
    expires_at: float


def uploads_router(intake: Intake, pictures: PictureCache) -> APIRouter:
    """Routes under which files come in."""
    router = api_router("uploads")
    uploads = intake.uploads

    @router.post(
        "/uploads",
        status_code=201,
        summary="Upload a file",
        response_model=UploadSummary,
        openapi_extra=_UPLOAD_BODY,
        responses=answers(
            UPLOAD,
            status=201,
            errors={
                413: "The file is larger than is taken.",
                422: "Uploads hold as much as they may together, or the disk is full.",
            },
        ),
    )
    async def upload(request: Request) -> JSONResponse:
        """Bring a picture or a video: it is checked, cleaned of what is not picture, and kept for a day."""
        kept = await intake.keep(request)
        request.state.subject = kept.id
        return JSONResponse(upload_summary(kept), 201)

    @router.get(
        "/uploads",
        summary="Uploads being checked",
        response_model=Checks,
        responses=answers(CHECKS),
    )
    async def checks(request: Request) -> JSONResponse:
        """How far the checks of files are that you have sent; one ends when its request is given up."""
        looks = intake.looks.of(caller_of(request))
        found = [{"name": o.name, "num_frames": o.num_frames, "share": o.share} for o in looks]
        return JSONResponse({"data": found})

    @router.get(
        "/uploads/{upload_id}",
        summary="One upload",
        response_model=UploadSummary,
        responses=answers(UPLOAD, errors=_NO_UPLOAD),
    )
    async def upload_of(upload_id: UploadId) -> JSONResponse:
        """What an upload is."""
        return JSONResponse(upload_summary(await asyncio.to_thread(uploads.get, upload_id)))

    @router.delete(
        "/uploads/{upload_id}",
        status_code=204,
        summary="Delete an upload",
        response_class=Response,
        responses=answers(status=204, said="It is gone.", errors=_NO_UPLOAD),
    )
    async def delete(upload_id: UploadId) -> Response:
        """Remove an upload before its day is over; jobs made from it keep what they need."""
        await asyncio.to_thread(uploads.delete, upload_id)
        return Response(status_code=204)

    @router.get(
        "/uploads/{upload_id}/picture",
        summary="A picture of an upload",
        response_class=Response,
        responses=answers(media_type="image/webp", errors=_NO_UPLOAD),
    )
    async def picture(request: Request, upload_id: UploadId) -> Response:
        """The picture, or the first frame of the video, as WebP, longest side at most 640."""
        media = (await asyncio.to_thread(uploads.get, upload_id)).media
        return await pictures.answer(
            request,
            f"input {media.sha256} {PICTURE_SIDE}",
            lambda: intake.tools.picture(media.path, 0, PICTURE_SIDE),
        )

    return router


def upload_summary(kept: KeptUpload) -> UploadSummary:
    """An upload as it is shown."""
    media = kept.media
    return {
        "id": kept.id,
        "kind": media.kind,
        "width": media.width,
        "height": media.height,
        "num_frames": media.num_frames,
        "fps": None if media.fps is None else float(media.fps),
        "notes": list(media.notes),
        "sound": None if media.sound is None else media.sound.model_dump(),
        "name": kept.name,
        "expires_at": kept.expires_at,
    }
