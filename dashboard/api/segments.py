"""Routes of a job's segments and of the seams between them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from typing_extensions import TypedDict

from dashboard.api.examples import JOB_ID, SEAM, SEGMENT, SEGMENT_LOG
from dashboard.api.segment_log import segment_log
from dashboard.files import PictureCache, WorkersSeen, open_file, task_events
from dashboard.http import DEFAULT_LIMIT, Cursor, Limit, answers, api_router, page_of
from farm.errors import InvalidInput, NotFound, NotReady
from farm.planning import Segment
from farm.reporting import EarlierSummary, seam_list, segment_detail
from farm.request import MediaTools
from farm.running import SO_FAR_NAME, Reopening, Storage
from farm.state import Fill, Job, Ledger, Task, TaskStatus

#: Longest side of a picture of a segment or an input.
PICTURE_SIDE = 640

JobId = Annotated[str, Path(description="Id of a job.", examples=[JOB_ID])]
SegmentId = Annotated[str, Path(description="Id of a segment, as the plan names it.", examples=["s0-1"])]
SeamId = Annotated[str, Path(description="Id of the segment after the seam.", examples=["s0-1"])]

_NO_SEGMENT = {404: "There is no such job or segment."}
_NOT_READY = {404: "There is no such job or segment, or (code not_ready) it is not rendered yet."}


class AttemptSummary(TypedDict):
    id: str
    worker_id: str
    rung: str
    take: int
    started_at: float
    ended_at: float | None
    wall_s: float | None
    load_s: float | None
    #: "running", "succeeded", or how it failed.
    outcome: str
    message: str


class SegmentDetail(TypedDict):
    """One window of a job. Frame numbers are the video's, half-open; what is not known yet is null."""

    id: str
    shot: int
    level: str
    start: int
    end: int
    num_frames: int
    head: int
    tail: int
    depends_on: list[str]
    status: TaskStatus
    take: int
    #: Finished ones.
    takes: int
    worker_id: str | None
    why: str
    rung: str | None
    need_bytes: int | None
    vram_bytes: int | None
    predicted_s: float | None
    wall_s: float | None
    peak_bytes: int | None
    #: Of one between two given frames: how it gets from the one to the other.
    fill: Fill | None
    failed_attempts: int
    #: Where it had many: those that ``attempts`` tells no more of.
    earlier_attempts: EarlierSummary | None
    attempts: list[AttemptSummary]


class SegmentList(TypedDict):
    data: list[SegmentDetail]
    next_cursor: str | None
    last_event_id: int


class SeamTake(TypedDict):
    take: int
    passed: bool
    failed_gates: list[str]


class SeamDetail(TypedDict):
    """The join between two segments, and what it measured."""

    #: The segment before the seam, and the one after it, by whose id the seam goes.
    after: str
    before: str
    start: int
    overlap: int
    accepted_take: int | None
    passed: bool
    failed_gates: list[str]
    decision: str
    report: dict[str, Any]
    takes: list[SeamTake]


class SeamList(TypedDict):
    data: list[SeamDetail]
    next_cursor: str | None
    last_event_id: int


def segments_router(
    ledger: Ledger,
    storage: Storage,
    reopening: Reopening,
    tools: MediaTools,
    pictures: PictureCache,
    workers_seen: WorkersSeen,
) -> APIRouter:
    """Routes under which segments and seams are looked at."""
    router = api_router("segments")

    def found(job_id: str, segment_id: str) -> tuple[Job, Task]:
        job = ledger.job(job_id)
        task = job.tasks.get(segment_id)
        if task is None:
            raise NotFound(f"job {job_id} has no segment {segment_id}", param="segment_id")
        return job, task

    @router.get(
        "/jobs/{job_id}/segments",
        summary="A job's segments",
        response_model=SegmentList,
        responses=answers(
            {"data": [SEGMENT], "next_cursor": None, "last_event_id": 512},
            errors={404: "There is no such job."},
        ),
    )
    async def segments(job_id: JobId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> JSONResponse:
        """The segments in the order of the plan, each with its attempts."""
        workers = await asyncio.to_thread(workers_seen.get)
        job = ledger.job(job_id)
        shown, following = page_of(job.order, cursor, limit)
        details = [segment_detail(job, job.tasks[task_id], workers) for task_id in shown]
        return JSONResponse({"data": details, "next_cursor": following, "last_event_id": job.last_seq})

    @router.get(
        "/jobs/{job_id}/segments/{segment_id}",
        summary="One segment",
        response_model=SegmentDetail,
        responses=answers(SEGMENT, errors=_NO_SEGMENT),
    )
    async def segment(job_id: JobId, segment_id: SegmentId) -> JSONResponse:
        """A segment: its frames, the attempt whose result is kept, and every attempt."""
        workers = await asyncio.to_thread(workers_seen.get)
        return JSONResponse(segment_detail(*found(job_id, segment_id), workers))

    @router.get(
        "/jobs/{job_id}/segments/{segment_id}/log",
        summary="A segment's log",
        response_class=PlainTextResponse,
        responses=answers(SEGMENT_LOG, media_type="text/plain", errors=_NO_SEGMENT),
    )
    async def log(job_id: JobId, segment_id: SegmentId) -> PlainTextResponse:
        """What the farm recorded of a segment, with the lines its workers noted while they rendered it."""
        job, task = found(job_id, segment_id)
        paths = {
            number: storage.attempt_log_path(job.id, task.id, number)
            for number in range(job.attempts_before + 1, job.attempts_before + task.num_attempts + 1)
        }
        folder = storage.job_path(job.id)
        text = await asyncio.to_thread(_log, ledger.journal.path, folder, job, task.id, paths)
        return PlainTextResponse(text, headers={"Cache-Control": "no-store"})

    @router.get(
        "/jobs/{job_id}/segments/{segment_id}/picture",
        summary="A frame of a segment",
        response_class=Response,
        responses=answers(media_type="image/webp", errors=_NOT_READY),
    )
    async def picture(
        request: Request,
        job_id: JobId,
        segment_id: SegmentId,
        frame: Annotated[
            int | None,
            Query(ge=0, description="A frame of the video; without one, the middle of the segment."),
        ] = None,
    ) -> Response:
        """A frame as WebP, longest side at most 640: of the take that is kept, or of the newest."""
        job, task = found(job_id, segment_id)
        take = _rendered(job, task)
        index = _index_of(task.segment, frame)
        path = await reopening.segment_path(job, task, take)
        return await pictures.answer(
            request,
            f"frame {path.name} {index} {PICTURE_SIDE}",
            lambda: tools.picture(path, index, PICTURE_SIDE),
        )

    @router.get(
        "/jobs/{job_id}/segments/{segment_id}/video",
        summary="A segment's frames",
        response_class=Response,
        responses=answers(media_type="video/x-matroska", errors=_NOT_READY),
    )
    async def video(job_id: JobId, segment_id: SegmentId) -> Response:
        """The segment as it was rendered, lossless (FFV1 in Matroska), handles included."""
        job, task = found(job_id, segment_id)
        path = await reopening.segment_path(job, task, _rendered(job, task))
        return await open_file(path, media_type="video/x-matroska", name=f"{job.id}-{task.id}.mkv")

    @router.get(
        "/jobs/{job_id}/seams",
        summary="A job's seams",
        response_model=SeamList,
        responses=answers(
            {"data": [SEAM], "next_cursor": None, "last_event_id": 512},
            errors={404: "There is no such job."},
        ),
    )
    async def seams(job_id: JobId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> JSONResponse:
        """Every seam that was measured, in the order of the video."""
        job = ledger.job(job_id)
        shown, following = page_of(seam_list(job), cursor, limit)
        return JSONResponse({"data": shown, "next_cursor": following, "last_event_id": job.last_seq})

    @router.get(
        "/jobs/{job_id}/seams/{segment_id}/picture",
        summary="A seam before and after",
        response_class=Response,
        responses=answers(
            media_type="image/webp",
            errors={404: "There is no such job or seam, or (code not_ready) it is not joined yet."},
        ),
    )
    async def seam_picture(
        request: Request,
        job_id: JobId,
        segment_id: SeamId,
        which: Annotated[
            Literal["before", "after"],
            Query(description="The segments cut hard, or the same moments of the joined video."),
        ] = "after",
    ) -> Response:
        """A strip of the frames around a seam, as WebP."""
        job, later = found(job_id, segment_id)
        earlier = _before(job, later)
        videos = await asyncio.to_thread(_joined, storage.job_path(job.id), job)
        paths = [await reopening.segment_path(job, task, _rendered(job, task)) for task in (earlier, later)]
        of = f"{paths[0].name} {paths[1].name} {later.segment.head}"
        if which == "after":
            of += "".join(f" {path.name} {tag}" for path, tag in videos)

        def make() -> bytes:
            refused = InvalidInput("these segments are not joined yet; look again when they are")
            for path in [path for path, _ in videos] if which == "after" else [None]:
                try:
                    return tools.seam_picture(
                        paths[0],
                        paths[1],
                        overlap=later.segment.head,
                        num_frames_earlier=earlier.segment.end - earlier.segment.start,
                        joined=path,
                        joined_start=later.segment.start,
                        joined_step=job.plan.delivered.fps / job.plan.fps,
                        which=which,
                    )
                except InvalidInput as error:
                    refused = error
            raise NotReady(refused.message, param="segment_id")

        return await pictures.answer(request, f"seam {which} {of}", make)

    return router


def _rendered(job: Job, task: Task) -> int:
    """The take that is kept, or the newest that is there."""
    if task.segment.level == "text":
        raise NotFound(f"{task.id} of {job.id} is its encoded prompt, and has no frames", param="segment_id")
    if not task.artifacts:
        raise NotReady(
            f"segment {task.id} of {job.id} is {task.status}, not rendered yet", param="segment_id"
        )
    kept = job.kept_take(task)
    return kept if kept in task.artifacts else max(task.artifacts)


def _index_of(segment: Segment, frame: int | None) -> int:
    """Position in a segment of a frame of the video, or of the one before it that was rendered."""
    indices = segment.frame_indices
    if frame is None:
        return len(indices) // 2
    last = max(segment.end - 1, indices[-1] if segment.level != "final" else 0)
    if not segment.start <= frame <= last:
        raise InvalidInput(
            f"frame is {frame}, expected {segment.start} to {last}: those of segment {segment.id}",
            param="frame",
        )
    return max(bisect_right(indices, frame) - 1, 0)


def _before(job: Job, later: Task) -> Task:
    """The segment that is joined to this one's start."""
    final = job.plan.final_segments
    number = next((i for i, segment in enumerate(final) if segment.id == later.id), 0)
    if number == 0:
        raise NotFound(f"segment {later.id} of {job.id} has no seam before it", param="segment_id")
    return job.tasks[final[number - 1].id]


def _joined(folder: FilePath, job: Job) -> list[tuple[FilePath, str]]:
    """The videos that may show a seam, the newest first, each with what tells it from another of its name."""
    found = []
    for name in (SO_FAR_NAME, "video.mp4"):
        path = folder / name
        if name == "video.mp4" and job.published is None:
            continue
        try:
            about = path.stat()
        except OSError:
            continue
        # The one that grows is the same file all along, and what it shows already does not change.
        found.append((path, f"{about.st_ino}"))
    return found


def _log(journal: FilePath, folder: FilePath, job: Job, task_id: str, paths: dict[int, FilePath]) -> str:
    logs = {}
    for number, path in paths.items():
        try:
            logs[number] = path.read_text(errors="replace")
        except OSError:
            continue
    return segment_log(task_id, task_events(journal, folder, job.id, job.first_seq, task_id), logs)
