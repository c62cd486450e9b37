"""Routes of a job's keyframes: look at them before the windows are rendered, make some again, approve."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from typing_extensions import TypedDict

from dashboard.api.examples import JOB, JOB_ID, KEYFRAME, UPLOAD_ID
from dashboard.api.job_summaries import JobSummaries
from dashboard.api.segments import PICTURE_SIDE
from dashboard.files import PictureCache
from dashboard.http import DEFAULT_LIMIT, Cursor, Limit, PictureBody, answers, api_router, page_of
from dashboard.intake import Intake
from farm.errors import NotReady
from farm.reporting import JobSummary, KeyframeDetail, ReviewStatus, keyframe_details, review_status
from farm.request import MAX_FRAMES, MAX_SEED, MAX_SIDE
from farm.running import Coordinator, approve_keyframes, remake_keyframe, replace_keyframe
from farm.state import Job, keyframe_of
from farm.values import Value

JobId = Annotated[str, Path(description="Id of a job.", examples=[JOB_ID])]
Number = Annotated[
    int,
    Path(ge=1, le=MAX_FRAMES, description="Of the keyframe, from 1 in the video's order.", examples=[3]),
]

_NO_KEYFRAME = {404: "There is no such job or keyframe, or (code not_ready) it is not there yet."}
_NOT_NOW = {400: "The job does not wait for a review; the message says what would do.", **_NO_KEYFRAME}

_PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": PictureBody.model_json_schema(),
                "example": {"picture": UPLOAD_ID},
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": {"type": "string", "format": "binary"}},
                },
                "example": {"picture": "(the bytes of photo.jpg)"},
            },
        },
    }
}


class KeyframeList(TypedDict):
    data: list[KeyframeDetail]
    next_cursor: str | None
    #: Of the job.
    review: ReviewStatus | None
    last_event_id: int


class Seed(Value):
    """What a keyframe is made again with."""

    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Null: one it was not made with yet.", examples=[7]
    )


class Replaced(TypedDict):
    keyframe: KeyframeDetail
    #: What is taken of the picture otherwise than it is.
    notes: list[str]


def keyframes_router(
    coordinator: Coordinator, intake: Intake, pictures: PictureCache, summaries: JobSummaries
) -> APIRouter:
    """Every route runs on the event loop, where the coordinator's state lives."""
    router = api_router("keyframes")
    ledger, storage = coordinator.ledger, coordinator.storage

    def listed(job: Job, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> JSONResponse:
        shown, following = page_of(job.keyframes, cursor, limit)
        return JSONResponse(
            {
                "data": keyframe_details(job, shown),
                "next_cursor": following,
                "review": review_status(job),
                "last_event_id": job.last_seq,
            }
        )

    def one(job: Job, number: int, notes: tuple[str, ...] = ()) -> JSONResponse:
        (shown,) = keyframe_details(job, [keyframe_of(job, number)])
        return JSONResponse({"keyframe": shown, "notes": list(notes)})

    example = {"data": [KEYFRAME], "next_cursor": None, "review": "waiting", "last_event_id": 22}

    @router.get(
        "/jobs/{job_id}/keyframes",
        summary="A job's keyframes",
        response_model=KeyframeList,
        responses=answers(example, errors={404: "There is no such job."}),
    )
    async def keyframes(job_id: JobId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> JSONResponse:
        """The pictures that the windows are rendered from, in the order of the video; none in some modes.

        A job that was submitted with `review` waits until they are approved.
        """
        return listed(ledger.job(job_id), limit, cursor)

    @router.get(
        "/jobs/{job_id}/keyframes/{number}/picture",
        summary="A keyframe's picture",
        response_class=Response,
        responses=answers(media_type="image/webp", errors=_NO_KEYFRAME),
    )
    async def picture(
        request: Request,
        job_id: JobId,
        number: Number,
        side: Annotated[int, Query(ge=16, le=MAX_SIDE, description="The longest, at most.")] = PICTURE_SIDE,
    ) -> Response:
        """The newest there is as WebP, never enlarged."""
        job = ledger.job(job_id)
        keyframe = keyframe_of(job, number)
        media = job.pictures.get((keyframe.segment, keyframe.position))
        if media is not None:
            path, index = storage.path(media.sha256), 0
        else:
            task = job.tasks[keyframe.segment]
            if not task.artifacts:
                raise NotReady(
                    f"keyframe {number} of {job_id} is not made yet: it is {task.status}", param="number"
                )
            take = max(task.artifacts)
            path, index = await coordinator.reopening.segment_path(job, task, take), keyframe.position
        return await pictures.answer(
            request, f"frame {path.name} {index} {side}", lambda: intake.tools.picture(path, index, side)
        )

    @router.post(
        "/jobs/{job_id}/keyframes/{number}/remake",
        summary="Make a keyframe again",
        response_model=KeyframeList,
        openapi_extra={"requestBody": {"content": {"application/json": {"example": {"seed": 7}}}}},
        responses=answers(example, errors=_NOT_NOW),
    )
    async def remake(job_id: JobId, number: Number, wanted: Seed | None = None) -> JSONResponse:
        """Make it again with another seed, and with it what comes of the same segments and behind them.

        `made_again_with` names those. A picture that stands for it goes; those that stand for others stay.
        """
        await remake_keyframe(coordinator, job_id, number, wanted.seed if wanted else None)
        return listed(ledger.job(job_id))

    @router.put(
        "/jobs/{job_id}/keyframes/{number}/picture",
        summary="Replace a keyframe",
        response_model=Replaced,
        openapi_extra=_PICTURE,
        responses=answers({"keyframe": {**KEYFRAME, "replaced": True}, "notes": []}, errors=_NOT_NOW),
    )
    async def replace(request: Request, job_id: JobId, number: Number) -> JSONResponse:
        """Let a picture stand for it. It is framed as the job's inputs are."""
        keyframe_of(ledger.job(job_id), number)
        async with intake.picture(request) as media:
            notes = await replace_keyframe(coordinator, job_id, number, media)
        return one(ledger.job(job_id), number, notes)

    @router.delete(
        "/jobs/{job_id}/keyframes/{number}/picture",
        summary="Take a keyframe's picture back",
        response_model=Replaced,
        responses=answers({"keyframe": KEYFRAME, "notes": []}, errors=_NOT_NOW),
    )
    async def take_back(job_id: JobId, number: Number) -> JSONResponse:
        """Let what was rendered count again, where a picture stands for it."""
        await replace_keyframe(coordinator, job_id, number, None)
        return one(ledger.job(job_id), number)

    @router.post(
        "/jobs/{job_id}/approve",
        summary="Approve a job's keyframes",
        response_model=JobSummary,
        responses=answers({**JOB, "review": "approved"}, errors=_NOT_NOW),
    )
    async def approve(job_id: JobId) -> Response:
        """Let the windows be rendered. All keyframes have to be there."""
        approve_keyframes(coordinator, job_id)
        return Response(summaries.one(ledger.job(job_id)), media_type="application/json")

    return router
