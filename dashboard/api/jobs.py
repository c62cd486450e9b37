"""Routes of jobs: plan, submit, look, follow, stop, try again, change, delete."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from dashboard.access import Principal
from dashboard.api.examples import (
    EVENTS,
    FRAMINGS,
    JOB,
    JOB_BODY,
    JOB_ID,
    OPTIONS,
    PLAN,
    QUOTE,
    REPORT,
    TIMELINE,
)
from dashboard.api.job_summaries import Filter, JobSummaries, Status
from dashboard.api.segments import PICTURE_SIDE
from dashboard.files import LargeAnswers, PictureCache, WorkersSeen, large_json
from dashboard.http import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Order,
    answers,
    api_router,
    body_schema,
    options_schema,
    shown_plan,
)
from dashboard.intake import Intake, Submitting, check_key
from dashboard.live import HEADERS, MAX_SEQ, job_events
from farm.errors import NotFound
from farm.planning import Framing, Plan, framing
from farm.reporting import JobSummary, report_parts, timeline
from farm.running import Coordinator, prioritize
from farm.scheduling import Quote
from farm.state import Job
from farm.values import Value

JobId = Annotated[str, Path(description="Id of a job.", examples=[JOB_ID])]

_NO_JOB = {404: "There is no such job."}
_NOT_NOW = {400: "The job is in no state for this; the message says which would do.", **_NO_JOB}
_NOT_TAKEN = {
    404: "There is no such model or upload.",
    413: "The request is larger than is taken.",
    422: "This farm cannot do it (memory, model, mode, disk); the message says what would do.",
}

_JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": body_schema(), "example": JOB_BODY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request", "inputs"],
                    "properties": {
                        "request": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": options_schema(),
                            "description": "The options as JSON.",
                        },
                        "inputs": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "One video, or one or more images.",
                        },
                    },
                },
                "example": {"request": json.dumps(OPTIONS), "inputs": ["(the bytes of photo.jpg)"]},
            },
        },
    }
}


class JobList(TypedDict):
    data: list[JobSummary]
    next_cursor: str | None
    #: Sequence number of the newest event this tells of.
    last_event_id: int


class Planned(Value):
    """What a job would be."""

    plan: Plan
    quote: Quote
    #: Of every input.
    framings: tuple[Framing, ...]


class Frames(Value):
    """Frames of the video, [start, end)."""

    start: int = Field(ge=0, examples=[24])
    end: int = Field(ge=1, examples=[48])


class Priority(Value):
    """Of a job, higher first."""

    priority: int = Field(ge=0, le=100, examples=[80])


class Rerendered(TypedDict):
    job: JobSummary
    #: The segments that are rendered again.
    segments: list[str]


def jobs_router(
    coordinator: Coordinator,
    intake: Intake,
    submitting: Submitting,
    pictures: PictureCache,
    workers_seen: WorkersSeen,
    large: LargeAnswers,
    summaries: JobSummaries,
) -> APIRouter:
    """Every route runs on the event loop, where the coordinator's state lives."""
    router = api_router("jobs")
    ledger, storage = coordinator.ledger, coordinator.storage

    def shown(job: Job, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return Response(summaries.one(job), status, headers, media_type="application/json")

    @router.post(
        "/plans",
        summary="Plan a job",
        response_model=Planned,
        openapi_extra=_JOB_BODY,
        responses=answers({"plan": PLAN, "quote": QUOTE, "framings": FRAMINGS}, errors=_NOT_TAKEN),
    )
    async def plan(
        request: Request,
        brief: Annotated[bool, Query(description="Leave the segments out of the plan.")] = False,
    ) -> Response:
        """The plan a job of the same body would follow, its time and its price; nothing is started."""
        async with (
            intake.job_request(request) as wanted,
            submitting.quoted(wanted, request.state.principal) as (made, price),
        ):
            plan = await plan_json(made, brief=brief)
            framed = [framing(m.width, m.height, made.width, made.height, made.fit) for m in wanted.inputs]
        body = b'{"plan":%b,"quote":%b,"framings":%b}' % (
            plan,
            price.model_dump_json().encode(),
            TypeAdapter(list[Framing]).dump_json(framed),
        )

        async def known() -> bytes:
            return body

        return large.answer(request, known)

    @router.post(
        "/jobs",
        status_code=201,
        summary="Start a job",
        response_model=JobSummary,
        openapi_extra=_JOB_BODY,
        responses=_replayed() | answers(JOB, status=201, errors=_NOT_TAKEN),
    )
    async def submit(
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                min_length=1,
                max_length=255,
                description="Of your choice: however often it is sent, it starts one job.",
                examples=["9f0c6a52-8f5e-4f0b-9a54-1b2f6f3c0d11"],
            ),
        ] = None,
    ) -> Response:
        """Start a job. The inputs come with it (a form, or data: URLs in JSON) or were uploaded before."""
        key = check_key(idempotency_key)
        principal: Principal = request.state.principal
        async with intake.job_request(request) as wanted:
            job, replayed = await submitting.submit_job(wanted, principal, key)
        request.state.subject = job.id
        return shown(job, 200, {"Idempotent-Replayed": "true"}) if replayed else shown(job, 201)

    @router.get(
        "/jobs",
        summary="Jobs",
        response_model=JobList,
        responses=answers({"data": [JOB], "next_cursor": None, "last_event_id": 512}),
    )
    async def jobs(
        status: Annotated[
            Status | None, Query(description="Only those; `ended` is all but the running ones.")
        ] = None,
        model: Annotated[str | None, Query(max_length=500, description="Only those of this model.")] = None,
        q: Annotated[
            str | None, Query(max_length=500, description="Only those with this in a prompt or the id.")
        ] = None,
        order: Order = "desc",
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Response:
        """Jobs by the time they were submitted. Pages hold together while jobs come and go."""
        page = summaries.page(
            Filter(status, model, q), newest_first=order == "desc", limit=limit, cursor=cursor
        )
        return Response(page, media_type="application/json")

    @router.get(
        "/jobs/{job_id}", summary="One job", response_model=JobSummary, responses=answers(JOB, errors=_NO_JOB)
    )
    async def job(job_id: JobId) -> Response:
        """A job in a line."""
        return shown(ledger.job(job_id))

    @router.delete(
        "/jobs/{job_id}",
        status_code=204,
        summary="Delete a job",
        response_class=Response,
        responses=answers(status=204, said="It is gone.", errors=_NOT_NOW),
    )
    async def delete(job_id: JobId) -> Response:
        """Forget a job that has ended and remove its files; those that other jobs use stay."""
        coordinator.delete(job_id)
        return Response(status_code=204)

    @router.post(
        "/jobs/{job_id}/cancel",
        summary="Stop a job",
        response_model=JobSummary,
        responses=answers({**JOB, "status": "cancelled"}, errors=_NOT_NOW),
    )
    async def cancel(job_id: JobId) -> Response:
        """Stop a running job; what is done is kept."""
        coordinator.cancel(job_id)
        return shown(ledger.job(job_id))

    @router.post(
        "/jobs/{job_id}/retry",
        summary="Continue a job",
        response_model=JobSummary,
        responses=answers(JOB, errors=_NOT_NOW),
    )
    async def retry(job_id: JobId) -> Response:
        """Continue a job that failed, was cancelled or waits; what is done is kept, failures are forgiven."""
        coordinator.retry(job_id)
        return shown(ledger.job(job_id))

    @router.post(
        "/jobs/{job_id}/priority",
        summary="Serve a job sooner or later",
        response_model=JobSummary,
        responses=answers({**JOB, "priority": 80}, errors=_NOT_NOW),
    )
    async def priority_of(job_id: JobId, wanted: Priority) -> Response:
        """Change a running job's place in the queue; what runs is not taken back."""
        prioritize(coordinator, job_id, wanted.priority)
        return shown(ledger.job(job_id))

    @router.post(
        "/jobs/{job_id}/rerender",
        summary="Render frames again",
        response_model=Rerendered,
        responses=answers({"job": JOB, "segments": ["s0-2", "s0-3"]}, errors=_NOT_NOW),
    )
    async def rerender(job_id: JobId, frames: Frames) -> JSONResponse:
        """Render the finished segments that show these frames again, with other noise.

        What starts from one of them is rendered again too. The published video stays until the new one is
        whole.
        """
        segments = coordinator.rerender(job_id, frames.start, frames.end)
        told = json.loads(summaries.one(ledger.job(job_id)))
        return JSONResponse({"job": told, "segments": segments})

    @router.get(
        "/jobs/{job_id}/plan",
        summary="A job's plan",
        response_model=Plan,
        responses=answers(PLAN, errors=_NO_JOB),
    )
    async def plan_of(request: Request, job_id: JobId) -> Response:
        """Every segment, handle, seed and dependency, decided when the job was submitted."""
        return large.answer(request, partial(plan_json, ledger.job(job_id).plan))

    @router.get(
        "/jobs/{job_id}/report",
        summary="A job's story",
        response_model=dict[str, Any],
        responses=answers(REPORT, errors=_NO_JOB),
    )
    async def report(request: Request, job_id: JobId) -> Response:
        """Settings, shots, segments with their attempts, seams, workers, totals."""
        job = ledger.job(job_id)

        async def make() -> bytes:
            return await large_json(
                report_parts(job, await asyncio.to_thread(workers_seen.get), ledger.state)
            )

        return large.answer(request, make)

    @router.get(
        "/jobs/{job_id}/timeline",
        summary="Who renders what and when",
        response_model=dict[str, Any],
        responses=answers(TIMELINE, errors=_NO_JOB),
    )
    async def timeline_of(request: Request, job_id: JobId) -> Response:
        """Every segment and every attempt, in columns; `worker` counts in `workers`, -1 is none yet."""
        job = ledger.job(job_id)

        async def make() -> bytes:
            return await large_json({**timeline(job, coordinator.clock()), "last_event_id": job.last_seq})

        return large.answer(request, make)

    @router.get(
        "/jobs/{job_id}/events",
        summary="A job's events",
        response_class=StreamingResponse,
        responses=answers(EVENTS, media_type="text/event-stream", errors=_NO_JOB),
    )
    async def events(
        job_id: JobId,
        after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Begin behind this event.")] = 0,
        last_event_id: Annotated[
            int, Header(ge=0, le=MAX_SEQ, description="The same, as a browser says it.")
        ] = 0,
    ) -> StreamingResponse:
        """The job's events, past ones and those to come, until it has ended."""
        job, folder = ledger.job(job_id), coordinator.storage.job_path(job_id)
        stream = job_events(ledger, job, folder, after=max(after, last_event_id))
        return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)

    @router.get(
        "/jobs/{job_id}/input",
        summary="An input of a job",
        response_class=Response,
        responses=answers(media_type="image/webp", errors={404: "There is no such job or input."}),
    )
    async def input_picture(
        request: Request,
        job_id: JobId,
        index: Annotated[int, Query(ge=0, le=10_000, description="Which one, counted from 0.")] = 0,
    ) -> Response:
        """An input image, or the first frame of an input video, as WebP, longest side at most 640."""
        inputs = ledger.job(job_id).request.inputs
        if index >= len(inputs):
            raise NotFound(f"job {job_id} has {len(inputs)} inputs, counted from 0", param="index")
        sha256 = inputs[index].sha256
        return await pictures.answer(
            request,
            f"input {sha256} {PICTURE_SIDE}",
            lambda: intake.tools.picture(storage.path(sha256), 0, PICTURE_SIDE),
        )

    return router


async def plan_json(made: Plan, *, brief: bool = False) -> bytes:
    """A plan as it is shown; ``brief``: without its segments."""
    plan = shown_plan(made)
    told: dict[str, Any] = plan.model_dump(mode="json", exclude={"segments"})
    if not brief:
        told["segments"] = (segment.model_dump(mode="json") for segment in plan.segments)
    return await large_json(told)


def _replayed() -> dict[int | str, dict[str, Any]]:
    found = answers(JOB, said="The same key has started this job before.")
    found[200]["model"] = JobSummary
    found[200]["headers"] = {
        "Idempotent-Replayed": {"description": "Always `true`.", "schema": {"type": "string"}}
    }
    return found
