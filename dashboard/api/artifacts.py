"""Routes of a job's files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from dashboard.api.examples import ARTIFACT, JOB_ID, REPORT
from dashboard.files import MEDIA_TYPES, ArtifactName, Artifacts, ArtifactSummary
from dashboard.http import answers, api_router
from farm.state import Ledger

Name = Annotated[ArtifactName, Path(description="Which file.", examples=["video.mp4"])]
JobId = Annotated[str, Path(description="Id of a job.", examples=[JOB_ID])]


class ArtifactList(TypedDict):
    data: list[ArtifactSummary]
    next_cursor: str | None


def artifacts_router(ledger: Ledger, artifacts: Artifacts) -> APIRouter:
    """Routes under which a job's files are listed and fetched."""
    router = api_router("artifacts")

    @router.get(
        "/jobs/{job_id}/artifacts",
        summary="A job's files",
        response_model=ArtifactList,
        responses=answers({"data": [ARTIFACT], "next_cursor": None}, errors={404: "There is no such job."}),
    )
    async def artifact_list(job_id: JobId) -> JSONResponse:
        """Every file a job has or will have."""
        return JSONResponse({"data": await artifacts.list(ledger.job(job_id)), "next_cursor": None})

    async def artifact(request: Request, job_id: JobId, name: Name) -> Response:
        """A file of a job, whole or the one range that is asked for.

        `video.mp4`, `sheet.png`, `thumbnail.webp` and `spritesheet.webp` are there once the video is
        published, `report.json` once the job has ended. `so-far.mp4` is there while segments are joined: it
        grows, is never kept by caches, and its codec string for MediaSource is the header `X-Codec`.
        """
        return await artifacts.answer(request, ledger.job(job_id), name)

    for method, summary in (("GET", "Fetch a file"), ("HEAD", "Look at a file")):
        router.add_api_route(
            "/jobs/{job_id}/artifacts/{name}",
            artifact,
            methods=[method],
            summary=summary,
            operation_id=f"{method.lower()}_artifact",
            response_class=Response,
            responses=_file_answers(),
            openapi_extra={"parameters": _RANGE_HEADERS},
        )
    return router


_RANGE_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string"},
        "example": example,
    }
    for name, text, example in (
        ("Range", "One range of bytes; anything else is answered with the whole file.", "bytes=0-1023"),
        ("If-Range", "The range counts only while the file has this tag.", '"1a2b-3c4d-5e6f"'),
        ("If-None-Match", "Tags of what is there already: 304 when it has not changed.", '"1a2b-3c4d-5e6f"'),
    )
]


def _file_answers() -> dict[int | str, dict[str, Any]]:
    kinds = sorted(set(MEDIA_TYPES.values()) - {"application/json"})
    binary: dict[str, Any] = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    binary["application/json"] = {"schema": {"type": "object"}, "example": REPORT}
    found = answers(
        errors={
            404: "There is no such job or file, or (code not_ready) it is not there yet.",
            416: "The file has no such bytes; `Content-Range` says how many it has.",
        }
    )
    found[200] = {"description": "The file.", "content": binary}
    found[206] = {"description": "The range.", "content": binary}
    found[304] = {"description": "It has not changed."}
    return found
