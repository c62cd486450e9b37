"""A job's files: ranges, tags, the video that grows, and memory that does not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from fastapi import FastAPI, Request, Response

from dashboard.files.file_response import open_file, wanted_range
from farm.errors import InvalidInput


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes = 5 - 5", (5, 6)),
        # What is no single range of bytes is answered with the whole file.
        ("bytes=0-1,5-6", None),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("lines=0-9", None),
        ("bytes=" + "9" * 30 + "-", None),
        ("bytes=٣-٥", None),
    ],
)
def test_a_range_is_read_as_the_standard_says(header: str | None, found: tuple[int, int] | None) -> None:
    assert wanted_range(header, 100) == found


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0)])
def test_a_range_behind_the_end_is_refused(header: str, size: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        wanted_range(header, size)
    assert refused.value.http_status == 416


@pytest.fixture
async def video(farm: Any, photo: Path) -> str:
    return f"jobs/{await farm.finished_job(photo)}/artifacts/video.mp4"


async def test_a_video_is_served_whole_and_in_parts(farm: Any, video: str) -> None:
    whole = await farm.get(video)
    size = len(whole.content)
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    assert whole.headers["content-length"] == str(size)
    assert whole.headers["content-type"] == "video/mp4"
    part = await farm.get(video, headers={"Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, whole.content[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{size}"
    end = await farm.get(video, headers={"Range": "bytes=-7"})
    assert (end.status_code, end.content) == (206, whole.content[-7:])
    behind = await farm.get(video, headers={"Range": f"bytes={size}-"})
    assert (behind.status_code, farm.error_of(behind)["code"]) == (416, "range_not_satisfiable")
    assert behind.headers["content-range"] == f"bytes */{size}"


async def test_a_range_counts_only_while_the_file_is_the_same(farm: Any, video: str) -> None:
    headers = (await farm.get(video)).headers
    for tag in (headers["etag"], headers["last-modified"]):
        assert (await farm.get(video, headers={"Range": "bytes=0-1", "If-Range": tag})).status_code == 206
    for tag in ('"other"', f"W/{headers['etag']}", "Thu, 01 Jan 1970 00:00:00 GMT"):
        answer = await farm.get(video, headers={"Range": "bytes=0-1", "If-Range": tag})
        assert (answer.status_code, len(answer.content)) == (200, int(headers["content-length"]))


async def test_what_is_known_already_is_not_sent_again(farm: Any, video: str) -> None:
    for name in ("video.mp4", "sheet.png", "thumbnail.webp", "report.json"):
        address = video.replace("video.mp4", name)
        tag = (await farm.get(address)).headers["etag"]
        again = await farm.get(address, headers={"If-None-Match": f'"x", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert (await farm.get(address, headers={"If-None-Match": '"x"'})).status_code == 200


async def test_head_tells_what_get_would_send(farm: Any, video: str) -> None:
    for name in ("video.mp4", "thumbnail.webp", "report.json"):
        address = video.replace("video.mp4", name)
        whole = await farm.get(address)
        head = await farm.http.head(f"/api/v1/{address}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
    head = await farm.http.head(f"/api/v1/{video}", headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"], head.content) == (206, "10", b"")


async def test_every_artifact_that_is_ready_is_what_it_says(farm: Any, photo: Path) -> None:
    job_id = await farm.finished_job(photo)
    listed = (await farm.get(f"jobs/{job_id}/artifacts")).json()["data"]
    assert [a["name"] for a in listed if not a["ready"]] == ["so-far.mp4"]
    fetched = {a["name"]: await farm.http.get(a["href"]) for a in listed if a["ready"]}
    for artifact in listed:
        if artifact["ready"]:
            answer = fetched[artifact["name"]]
            assert (answer.status_code, answer.headers["content-type"]) == (200, artifact["media_type"])
            assert artifact["size_bytes"] in (None, len(answer.content))
    assert json.loads(fetched["report.json"].content)["id"] == job_id
    thumbnail = cv2.imdecode(np.frombuffer(fetched["thumbnail.webp"].content, np.uint8), cv2.IMREAD_COLOR)
    assert thumbnail is not None
    assert thumbnail.shape[:2] == (32, 32)
    assert fetched["spritesheet.webp"].content[8:12] == b"WEBP"
    again = (await farm.get(f"jobs/{job_id}/artifacts")).json()["data"]
    assert {a["name"]: a["size_bytes"] for a in again if a["ready"]} == {
        name: None if name == "report.json" else len(answer.content) for name, answer in fetched.items()
    }


async def test_pictures_are_those_of_the_video_that_is_published_now(farm: Any, photo: Path) -> None:
    # The one whose takes differ.
    job_id = await farm.finished_job(photo, model="procedural-typical")
    before = (await farm.get(f"jobs/{job_id}/artifacts/spritesheet.webp")).headers["etag"]
    assert (await farm.post(f"jobs/{job_id}/rerender", json={"start": 0, "end": 24})).status_code == 200
    # The published video stays until the new one is whole.
    assert (await farm.get(f"jobs/{job_id}/artifacts/video.mp4")).status_code == 200
    await farm.until_ended(job_id)
    after = (await farm.get(f"jobs/{job_id}/artifacts/spritesheet.webp")).headers["etag"]
    assert before != after
    folder = farm.state_dir / "jobs" / job_id
    assert len(list(folder.glob("spritesheet-*.webp"))) == 1


async def test_what_is_not_there_yet_is_said_so(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job_id = (await farm.submit(photo)).json()["id"]
    for name in ("video.mp4", "sheet.png", "thumbnail.webp", "spritesheet.webp", "report.json"):
        answer = await farm.get(f"jobs/{job_id}/artifacts/{name}")
        assert (answer.status_code, farm.error_of(answer)["code"]) == (404, "not_ready")
    answer = await farm.get(f"jobs/{job_id}/artifacts/../../../etc/passwd")
    assert answer.status_code == 404
    answer = await farm.get(f"jobs/{job_id}/artifacts/journal.sqlite")
    assert (answer.status_code, farm.error_of(answer)["param"]) == (400, "name")


async def test_a_video_so_far_without_a_frame_is_not_offered(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job_id = (await farm.submit(photo)).json()["id"]
    path = farm.coordinator.storage.job_folder(job_id) / "so-far.mp4"

    async def offered() -> bool:
        listed = (await farm.get(f"jobs/{job_id}/artifacts")).json()["data"]
        return next(bool(a["ready"]) for a in listed if a["name"] == "so-far.mp4")

    while not path.exists():  # the joiner makes its own once, and replaces what lies there
        await asyncio.sleep(0.01)
    assert not await offered()
    header = b"".join(
        (8 + n).to_bytes(4, "big") + kind + bytes(n) for kind, n in ((b"ftyp", 20), (b"moov", 703))
    )
    for content, expected in ((b"", False), (header, False), (header + b"\0\0\0\x10moof" + bytes(8), True)):
        path.unlink()  # a file of our own: the joiner's stays open
        path.write_bytes(content)
        assert await offered() is expected


@pytest.mark.slow
async def test_the_video_so_far_is_read_while_it_grows(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=("near/cpu0",))
    job_id = (await farm.submit(photo, num_frames=400)).json()["id"]
    address = f"jobs/{job_id}/artifacts/so-far.mp4"

    async def until_there() -> httpx2.Response:
        while (answer := await farm.get(address)).status_code == 404:
            await asyncio.sleep(0.02)
        return answer

    first = await asyncio.wait_for(until_there(), 30)
    assert first.headers["x-codec"].startswith("avc1.")
    assert (first.headers["cache-control"], "etag" in first.headers) == ("no-store", False)
    assert first.content[4:8] == b"ftyp"
    so_far = first.content
    while (await farm.get(f"jobs/{job_id}")).json()["status"] == "running":
        more = await farm.get(address, headers={"Range": f"bytes={len(so_far)}-"})
        if more.status_code == 206:
            unit, _, place = more.headers["content-range"].partition(" ")
            assert (unit, place) == ("bytes", f"{len(so_far)}-{len(so_far) + len(more.content) - 1}/*")
            so_far += more.content
        elif more.status_code == 404:  # joined to the end
            break
        else:
            assert more.headers["content-range"] == f"bytes */{len(so_far)}"
        await asyncio.sleep(0.01)
    await farm.until_ended(job_id)
    assert len(so_far) > len(first.content)
    assert (await farm.get(address)).status_code == 404
    kept = farm.state_dir / "kept.mp4"
    kept.write_bytes(so_far)
    capture = cv2.VideoCapture(str(kept))
    num_frames = 0
    while capture.read()[0]:
        num_frames += 1
    assert num_frames > 8


async def test_a_large_file_is_sent_in_little_memory_even_when_it_is_replaced(
    serve: Any, tmp_path: Path
) -> None:
    large = tmp_path / "large.mp4"
    size = 96 << 20
    with large.open("wb") as file:
        file.truncate(size)
    app = FastAPI()

    @app.get("/large")
    async def answer(request: Request) -> Response:
        return await open_file(large, media_type="video/mp4", name="large.mp4")

    url = await serve(app)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = 0
    async with (
        httpx2.AsyncClient(trust_env=False) as http,
        http.stream("GET", f"{url}/large") as download,
    ):
        assert download.headers["content-length"] == str(size)
        large.with_suffix(".new").write_bytes(b"another")
        large.with_suffix(".new").replace(large)
        async for chunk in download.aiter_bytes():
            got += len(chunk)
    assert got == size
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 32 << 10


async def test_what_was_damaged_on_the_disk_is_not_sent_and_comes_back_by_itself(
    farm: Any, photo: Path
) -> None:
    job_id = await farm.finished_job(photo)
    address = f"jobs/{job_id}/artifacts/video.mp4"
    whole = (await farm.get(address)).content
    segment = (await farm.get(f"jobs/{job_id}/segments/s0-0/video")).content
    video = farm.state_dir / "jobs" / job_id / "video.mp4"
    sha256 = hashlib.sha256(segment).hexdigest()
    blob = farm.state_dir / "blobs" / sha256[:2] / sha256
    for path, place, before in (
        (video, address, whole),
        (blob, f"jobs/{job_id}/segments/s0-0/video", segment),
        (blob, f"jobs/{job_id}/segments/s0-0/picture", None),
    ):
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        answer = await farm.get(place)
        assert (answer.status_code, farm.error_of(answer)["code"]) == (404, "not_ready")
        await farm.until_ended(job_id)
        again = await farm.get(place)
        assert again.status_code == 200
        assert before is None or again.content == before
