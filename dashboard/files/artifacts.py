"""The files of a job as both doors serve them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from fastapi.responses import Response
from starlette.requests import Request
from typing_extensions import TypedDict

from dashboard.files.file_response import open_file
from dashboard.files.journal_reads import WorkersSeen
from dashboard.files.large_json import LargeAnswers, large_json
from dashboard.files.picture_cache import PictureCache
from farm.errors import InvalidInput, NotReady
from farm.reporting import report_parts
from farm.request import MediaTools
from farm.running import SO_FAR_NAME, VIDEO_NAME, Reopening, Storage
from farm.state import Job

ArtifactName = Literal[
    "video.mp4", "sheet.png", "thumbnail.webp", "spritesheet.webp", "report.json", "so-far.mp4"
]
NAMES: tuple[ArtifactName, ...] = get_args(ArtifactName)

MEDIA_TYPES: Mapping[ArtifactName, str] = {
    "video.mp4": "video/mp4",
    "sheet.png": "image/png",
    "thumbnail.webp": "image/webp",
    "spritesheet.webp": "image/webp",
    "report.json": "application/json",
    "so-far.mp4": "video/mp4",
}


class ArtifactSummary(TypedDict):
    name: ArtifactName
    media_type: str
    #: Of what is there now; null where it is made when it is asked for.
    size_bytes: int | None
    #: Where it is fetched.
    href: str
    #: Whether it can be fetched now.
    ready: bool


class Artifacts:
    """Finds, makes and sends them."""

    def __init__(
        self,
        storage: Storage,
        reopening: Reopening,
        tools: MediaTools,
        pictures: PictureCache,
        workers_seen: WorkersSeen,
        large: LargeAnswers,
    ) -> None:
        self._storage = storage
        self._reopening = reopening
        self._tools = tools
        self._pictures = pictures
        self._workers_seen = workers_seen
        self._large = large

    async def list(self, job: Job) -> list[ArtifactSummary]:
        """Every artifact a job has or will have."""
        folder = self._storage.job_path(job.id)
        paths = {name: self._stored(job, folder, name) for name in NAMES}
        sizes = await asyncio.to_thread(lambda: {name: _size(path) for name, path in paths.items()})
        made = {
            "thumbnail.webp": job.published is not None,
            "spritesheet.webp": job.published is not None,
            "report.json": job.status != "running",
            "so-far.mp4": await asyncio.to_thread(_has_frames, paths["so-far.mp4"]),
        }
        return [
            {
                "name": name,
                "media_type": MEDIA_TYPES[name],
                "size_bytes": sizes[name],
                "href": f"/api/v1/jobs/{job.id}/artifacts/{name}",
                "ready": made.get(name, sizes[name] is not None),
            }
            for name in NAMES
        ]

    async def answer(self, request: Request, job: Job, name: ArtifactName) -> Response:
        """One artifact, whole or in part.

        Raises:
            NotReady: it is not there yet, or not any more.
        """
        folder = self._storage.job_path(job.id)
        if name == "so-far.mp4":
            return await self._so_far(job, folder / SO_FAR_NAME)
        if name == "report.json":
            return await self._report(request, job)
        if job.published is None:
            raise NotReady(f"job {job.id} has no {name} yet: it is {job.status}", param="name")
        if name in ("thumbnail.webp", "spritesheet.webp"):
            path = self._stored(job, folder, name)
            assert path is not None
            make = self._tools.thumbnail if name == "thumbnail.webp" else self._tools.spritesheet
            video = await self._reopening.video_path(job)
            return await self._pictures.answer(
                request,
                f"{name} {job.published.frames_sha256}",
                lambda: _kept(path, name, lambda: make(video)),
            )
        if name == VIDEO_NAME:
            await self._reopening.video_path(job)
        suffix = Path(name).suffix
        return await open_file(folder / name, media_type=MEDIA_TYPES[name], name=f"{job.id}{suffix}")

    async def _so_far(self, job: Job, path: Path) -> Response:
        try:
            codec = await asyncio.to_thread(self._tools.codec, path)
        except InvalidInput:
            raise NotReady(
                f"job {job.id} has no video so far: "
                + ("nothing is joined yet" if job.status == "running" else f"it is {job.status}"),
                param="name",
            ) from None
        return await open_file(
            path,
            media_type="video/mp4",
            name=f"{job.id}-so-far.mp4",
            growing=True,
            headers={"X-Codec": codec},
        )

    async def _report(self, request: Request, job: Job) -> Response:
        if job.status == "running":
            raise NotReady(f"job {job.id} has no report yet: it is running", param="name")
        tag = f'"{job.id}-{job.last_seq}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        headers["Content-Disposition"] = f'inline; filename="{job.id}.json"'

        async def make() -> bytes:
            return await large_json(report_parts(job, await asyncio.to_thread(self._workers_seen.get)))

        return self._large.answer(request, make, headers)

    def _stored(self, job: Job, folder: Path, name: ArtifactName) -> Path | None:
        """Where it lies or would lie; None where it is never a file."""
        if name == "report.json":
            return None
        if name == "so-far.mp4":
            return folder / SO_FAR_NAME
        if job.published is None:
            return None
        if name in ("thumbnail.webp", "spritesheet.webp"):
            # Of this video: another take has pictures of its own.
            kind = name.partition(".")[0]
            return folder / f"{kind}-{job.published.frames_sha256[:12]}.webp"
        return folder / name


def _kept(path: Path, name: str, make: Callable[[], bytes]) -> bytes:
    """A picture as it was made before, or made now and kept; those of earlier videos go."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    content = make()
    temporary = path.with_suffix(".writing")
    try:
        for other in path.parent.glob(f"{name.partition('.')[0]}-*.webp"):
            other.unlink(missing_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:  # it is made again when it is asked for again
        temporary.unlink(missing_ok=True)
    return content


def _has_frames(path: Path | None) -> bool:
    """Whether a fragmented MP4 (ISO/IEC 14496-12) has a fragment behind its header."""
    try:
        with open(path or "", "rb") as file:
            while head := file.read(8):
                size_bytes = int.from_bytes(head[:4], "big")
                if head[4:] == b"moof" or size_bytes < 8:
                    return head[4:] == b"moof"
                file.seek(size_bytes - 8, os.SEEK_CUR)
    except OSError:
        pass
    return False


def _size(path: Path | None) -> int | None:
    try:
        return None if path is None else path.stat().st_size
    except OSError:
        return None
