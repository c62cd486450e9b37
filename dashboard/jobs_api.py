"""Routes of jobs: submit, look, follow, fetch, stop, try again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, StreamingResponse

from dashboard.live import job_events
from dashboard.schemas import JobOptions, job_options, job_request, shown_plan
from dashboard.uploads import File, receive
from farm.coordinator import Coordinator
from farm.errors import InvalidInput, NotFound
from farm.job import JobRequest
from farm.media import MediaInfo
from farm.plan import Plan
from farm.report import JobSummary, job_report, job_summary, workers_seen
from farm.storage import Storage

#: Uploads that are checked at the same time: each takes a process with up to some GiB.
CHECKS_AT_ONCE = 2

_UPLOAD_DOCS = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request", "inputs"],
                    "properties": {
                        "request": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": JobOptions.model_json_schema(),
                        },
                        "inputs": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True)
class Intake:
    """The way of an upload to a ``JobRequest`` of checked files."""

    storage: Storage
    #: (the user's file, folder for the checked copy) -> what it is. Runs in a thread.
    normalise: Callable[[Path, Path], MediaInfo]
    max_upload_bytes: int
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CHECKS_AT_ONCE))

    @asynccontextmanager
    async def job_request(self, request: Request) -> AsyncIterator[JobRequest]:
        """What an upload asks for. Its files are there until the block ends, and gone afterwards."""
        folder = self.storage.incoming_folder()
        try:
            upload = await receive(request, folder, max_bytes=self.max_upload_bytes)
            options = job_options(bytes(upload.options))
            yield job_request(options, [await self._checked(file) for file in upload.files])
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _checked(self, file: File) -> MediaInfo:
        try:
            async with self._turn:
                return await asyncio.to_thread(self.normalise, file.path, file.path.parent)
        except InvalidInput as error:
            message = error.message.replace(file.path.name, file.name)
            raise InvalidInput(message, param="inputs") from error


def jobs_router(coordinator: Coordinator, intake: Intake) -> APIRouter:
    """Every route runs on the event loop, where the coordinator's state lives."""
    router = APIRouter(tags=["jobs"])
    ledger, storage = coordinator.ledger, coordinator.storage

    async def planned(request: JobRequest) -> Plan:
        # The first look at a model may fetch its files.
        await asyncio.to_thread(coordinator.spec_of, request.model)
        return coordinator.plan(request)

    def published(job_id: str, name: str) -> Path:
        job = ledger.job(job_id)
        path = storage.job_folder(job.id) / name
        if job.published is None or not path.is_file():
            raise NotFound(f"job {job_id} has no {name}: it is {job.status}", param="job_id")
        return path

    @router.post("/jobs", status_code=201, openapi_extra=_UPLOAD_DOCS)
    async def submit(request: Request) -> JobSummary:
        """Start a job."""
        async with intake.job_request(request) as wanted:
            await planned(wanted)
            # ``submit`` finds the files stored: copying a long video would hold up the whole farm.
            for media in wanted.inputs:
                await asyncio.to_thread(storage.put_file, media.path, media.sha256)
            job_id = coordinator.submit(wanted)
        return job_summary(ledger.job(job_id), ledger.state)

    @router.post("/plans", openapi_extra=_UPLOAD_DOCS)
    async def plan(request: Request) -> Plan:
        """The plan that the same upload to ``/jobs`` would follow; nothing is started."""
        async with intake.job_request(request) as wanted:
            return shown_plan(await planned(wanted))

    @router.get("/jobs")
    async def jobs() -> list[JobSummary]:
        """All jobs, the newest first."""
        return [job_summary(job, ledger.state) for job in reversed(ledger.state.jobs.values())]

    @router.get("/jobs/{job_id}")
    async def job(job_id: str) -> JobSummary:
        return job_summary(ledger.job(job_id), ledger.state)

    @router.get("/jobs/{job_id}/report")
    async def report(job_id: str) -> dict[str, Any]:
        """Settings, shots, segments with their attempts, seams, workers, totals."""
        return job_report(ledger.job(job_id), workers_seen(ledger.journal))

    @router.get("/jobs/{job_id}/plan")
    async def plan_of(job_id: str) -> Plan:
        return shown_plan(ledger.job(job_id).plan)

    @router.post("/jobs/{job_id}/cancel")
    async def cancel(job_id: str) -> JobSummary:
        """Stop a running job; what is done is kept."""
        coordinator.cancel(job_id)
        return job_summary(ledger.job(job_id), ledger.state)

    @router.post("/jobs/{job_id}/retry")
    async def retry(job_id: str) -> JobSummary:
        """Continue a failed or cancelled job."""
        coordinator.retry(job_id)
        return job_summary(ledger.job(job_id), ledger.state)

    @router.get("/jobs/{job_id}/events", response_class=StreamingResponse)
    async def events(
        job_id: str,
        after: Annotated[int, Query(ge=0)] = 0,
        last_event_id: Annotated[int, Header(ge=0)] = 0,
    ) -> StreamingResponse:
        """The job's events, past ones and those to come, as ``text/event-stream`` until it has ended."""
        stream = job_events(ledger, ledger.job(job_id), after=max(after, last_event_id))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @router.get("/jobs/{job_id}/video", response_class=FileResponse)
    async def video(job_id: str) -> FileResponse:
        """The finished video; byte ranges are served."""
        path = published(job_id, "video.mp4")
        return FileResponse(
            path, media_type="video/mp4", filename=f"{job_id}.mp4", content_disposition_type="inline"
        )

    @router.get("/jobs/{job_id}/sheet", response_class=FileResponse)
    async def sheet(job_id: str) -> FileResponse:
        """The finished video's contact sheet."""
        path = published(job_id, "sheet.png")
        return FileResponse(
            path, media_type="image/png", filename=f"{job_id}.png", content_disposition_type="inline"
        )

    return router
