"""``/v1/videos``: the farm's jobs in the shape of OpenAI's videos API, for clients that speak that already.

What the official clients do on the wire, and what was measured of it, decides here: ids are opaque, a missing
file is 404 (409 would be asked for again), a cancelled job is a failed video, a list says its ``last_id``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Annotated, Literal, NoReturn

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from dashboard.access import Principal
from dashboard.files import ArtifactName, Artifacts
from dashboard.http import Route
from dashboard.intake import MAX_KEY_CHARS, Submitting, check_key
from dashboard.live import stored_events
from dashboard.videos.docs import CONTENT, DELETED, EXAMPLE, PAGE, documented
from dashboard.videos.intake import VideosIntake
from dashboard.videos.schemas import (
    CreateRequest,
    DeletedVideo,
    EditRequest,
    RemixRequest,
    Unsupported,
    Variant,
    Video,
    VideoPage,
    job_id_of,
    name_here,
    poll_after_ms,
    validated,
    video,
)
from farm.errors import FarmError, NotFound, NotReady
from farm.request import JobRequest
from farm.running import Coordinator
from farm.scheduling import eta_s
from farm.state import Job, Ledger

MAX_PAGE = 100
_ARTIFACTS: Mapping[Variant, ArtifactName] = {
    "video": "video.mp4",
    "thumbnail": "thumbnail.webp",
    "spritesheet": "spritesheet.webp",
}


class _Doorway:
    """What the routes share."""

    def __init__(self, coordinator: Coordinator, submitting: Submitting) -> None:
        self.coordinator = coordinator
        self.ledger = coordinator.ledger
        self.submitting = submitting

    def job(self, of_video: str) -> Job:
        """
        Raises:
            NotFound: there is no such video.
        """
        job = self.ledger.state.jobs.get(job_id_of(of_video))
        if job is None:
            raise NotFound(f"there is no video {of_video}", param="video_id")
        return job

    def shown(self, job: Job, response: Response) -> Video:
        """A job as the answer, with when to look again in its headers."""
        if job.status == "running":
            left_s = eta_s(self.ledger.state, job, self.ledger.monotonic())
            response.headers["openai-poll-after-ms"] = str(poll_after_ms(left_s))
        return video(job)

    async def start(
        self, wanted: JobRequest, asked: _Asked, response: Response, *, made_from: Job | None = None
    ) -> Video:
        job, again = await self.submitting.submit_job(
            wanted,
            asked.principal,
            asked.idempotency_key,
            resent=asked.resent,
            remixed_from=made_from.id if made_from else None,
        )
        asked.state.subject = job.id
        if again:
            response.headers["Idempotent-Replayed"] = "true"
        return self.shown(job, response)


class _Asked:
    """Who wants a video, and whether this request may have come before."""

    def __init__(
        self,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                min_length=1,
                max_length=MAX_KEY_CHARS,
                description="Of your choice: however often it is sent, it starts one job.",
            ),
        ] = None,
        x_stainless_retry_count: Annotated[str, Header(include_in_schema=False)] = "0",
    ) -> None:
        self.state = request.state
        self.principal: Principal = request.state.principal
        self.idempotency_key = check_key(idempotency_key)
        #: The official clients count how often they have sent a request before.
        self.resent = x_stainless_retry_count.isdecimal() and int(x_stainless_retry_count[:9]) > 0


def videos_router(
    coordinator: Coordinator,
    intake: VideosIntake,
    submitting: Submitting,
    artifacts: Artifacts,
) -> APIRouter:
    """Every route runs on the event loop, where the coordinator's state lives."""
    router = APIRouter(tags=["videos"], prefix="/v1/videos", route_class=Route)
    door = _Doorway(coordinator, submitting)

    @router.post("", **documented("Create a video", EXAMPLE, body=CreateRequest, errors=(404, 413, 422)))
    async def create(request: Request, response: Response, asked: Annotated[_Asked, Depends()]) -> Video:
        """Start a job from a prompt, and a picture or a video. Without one, a model that needs one gets a
        picture painted from the prompt. Models called `sora-2…` mean the farm's default."""
        try:
            async with intake.create(request) as wanted:
                return await door.start(wanted, asked, response)
        except FarmError as error:
            name_here(error)
            raise

    @router.get("", **documented("List videos", PAGE, errors=(404,)))
    async def videos(
        after: Annotated[str | None, Query(description="The last id of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    ) -> VideoPage:
        """Every job of the farm, by the time it was submitted."""
        place = None if after is None else await _first_seq(door.ledger, after)
        jobs = list(door.ledger.state.jobs.values())
        if order == "desc":
            jobs.reverse()
        if place is not None:
            jobs = [
                job for job in jobs if (job.first_seq > place if order == "asc" else job.first_seq < place)
            ]
        page = [video(job) for job in islice(jobs, limit)]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(jobs) > limit,
        }

    @router.post("/edits", **documented("Edit a video", EXAMPLE, body=EditRequest, errors=(404, 413, 422)))
    async def edit(request: Request, response: Response, asked: Annotated[_Asked, Depends()]) -> Video:
        """Render a video anew over another: an uploaded one, or one of this farm."""
        try:
            async with intake.edit(request, door.job) as (wanted, source):
                return await door.start(wanted, asked, response, made_from=source)
        except FarmError as error:
            name_here(error)
            raise

    @router.get("/{video_id}", **documented("Retrieve a video", EXAMPLE, errors=(404,)))
    async def retrieve(video_id: str, response: Response) -> Video:
        """A video as it is now. `openai-poll-after-ms` says when to look again, until it has ended."""
        return door.shown(door.job(video_id), response)

    @router.delete("/{video_id}", **documented("Delete a video", DELETED, errors=(404,)))
    async def delete(request: Request, video_id: str) -> DeletedVideo:
        """Remove a video and all its files for good. One that is still being made is cancelled first."""
        job = door.job(video_id)
        if job.status == "running":
            coordinator.cancel(job.id)
        coordinator.delete(job.id)
        request.state.subject = job.id
        return {"id": video_id, "object": "video.deleted", "deleted": True}

    @router.get("/{video_id}/content", **documented("Download a video", CONTENT, errors=(404, 416)))
    async def content(
        request: Request, video_id: str, variant: Annotated[Variant, Query()] = "video"
    ) -> Response:
        """The video (MP4; byte ranges are served), its thumbnail, or a sheet of 25 of its frames (WebP)."""
        job = door.job(video_id)
        if job.published is None:
            said = f"it is {video(job)['status']}" if job.status == "running" else f"it was {job.status}"
            raise NotReady(f"{video_id} has no content: {said}", param="video_id")
        return await artifacts.answer(request, job, _ARTIFACTS[variant])

    @router.post(
        "/{video_id}/remix", **documented("Remix a video", EXAMPLE, body=RemixRequest, errors=(404, 422))
    )
    async def remix(
        video_id: str, request: Request, response: Response, asked: Annotated[_Asked, Depends()]
    ) -> Video:
        """The same input, settings and seed with another prompt."""
        source = door.job(video_id)
        wanted = validated(RemixRequest, await intake.json(request))
        changed = source.request.model_copy(update={"prompts": (wanted.prompt,)})
        try:
            return await door.start(changed, asked, response, made_from=source)
        except FarmError as error:
            name_here(error)
            raise

    @router.post("/extensions", include_in_schema=False, response_model=None)
    async def extend() -> NoReturn:
        """Answers that this farm has no extensions: ask for all the seconds at once."""
        raise Unsupported(
            "videos cannot be extended here; create one with all the seconds: length is not limited"
        )

    @router.post("/characters", include_in_schema=False, response_model=None)
    async def create_character() -> NoReturn:
        """Answers that this farm has no characters: give a picture of the subject as input_reference."""
        raise _no_characters()

    @router.get("/characters/{character_id}", include_in_schema=False, response_model=None)
    async def character(character_id: str) -> NoReturn:
        """Answers that this farm has no characters."""
        raise _no_characters()

    return router


def _no_characters() -> Unsupported:
    return Unsupported("there are no characters here; give a picture of the subject as input_reference")


async def _first_seq(ledger: Ledger, of_video: str) -> int:
    """Where a video stands among all, also one that was deleted since.

    Raises:
        NotFound: there never was such a video.
    """
    try:
        job_id = job_id_of(of_video)
    except NotFound as error:
        raise NotFound(error.message, param="after") from error
    job = ledger.state.jobs.get(job_id)
    if job is not None:
        return job.first_seq
    read = partial(stored_events, ledger.journal.path, after=0, until=ledger.last_seq, job_id=job_id, limit=1)
    for event in await asyncio.to_thread(read):
        if event.type != "job_submitted":  # compacted
            raise NotFound(f"video {of_video} was deleted long ago; begin at another one", param="after")
        return event.seq
    raise NotFound(f"there never was a video {of_video}", param="after")
