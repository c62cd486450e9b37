"""Segments and seams of a job: what is told, shown and rendered again; and jobs that are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

WEBP = b"WEBP"


@pytest.fixture
async def job(farm: Any, photo: Path) -> str:
    """A finished job of the model whose takes differ."""
    return f"jobs/{await farm.finished_job(photo, model='procedural-typical')}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(shared_farm: Any, photo: Path) -> str:
    """Such a job for the tests that only look at it."""
    return f"jobs/{await shared_farm.finished_job(photo, model='procedural-typical')}"


@pytest.mark.asyncio(loop_scope="module")
async def test_segments_are_told_page_by_page(shared_farm: Any, seen: str) -> None:
    whole = (await shared_farm.get(f"{seen}/segments")).json()
    assert [s["id"] for s in whole["data"]] == ["s0-0", "s0-1", "s0-2", "s0-3", "s0-4"]
    assert whole["next_cursor"] is None
    first = (await shared_farm.get(f"{seen}/segments?limit=3")).json()
    rest = (await shared_farm.get(f"{seen}/segments?limit=3&cursor={first['next_cursor']}")).json()
    assert (first["data"] + rest["data"], rest["next_cursor"]) == (whole["data"], None)
    one = (await shared_farm.get(f"{seen}/segments/s0-2")).json()
    assert one == whole["data"][2]
    assert one["worker_id"] == one["attempts"][0]["worker_id"]
    assert one["vram_bytes"] == 4 << 30
    assert one["attempts"][0]["ended_at"] >= one["attempts"][0]["started_at"]


async def test_what_a_worker_was_is_known_after_it_is_gone(farm: Any, job: str) -> None:
    for slot in ("cpu0", "cpu1"):
        farm.coordinator.drain(f"near/{slot}", leaving=True)
    await farm.until(lambda: not farm.coordinator.ledger.state.workers)
    segments = (await farm.get(f"{job}/segments")).json()["data"]
    assert {s["vram_bytes"] for s in segments} == {4 << 30}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_segment_has_a_log_of_its_own(shared_farm: Any, seen: str) -> None:
    answer = await shared_farm.get(f"{seen}/segments/s0-1/log")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    worker_id = (await shared_farm.get(f"{seen}/segments/s0-1")).json()["worker_id"]
    assert f"attempt 1 goes to {worker_id} at resident" in lines[0]
    own = [line for line in lines if line.startswith("    ")]
    assert any("frames in" in line for line in own)
    assert "attempt 1 is done in" in lines[1 + len(own)]
    assert "the seam passes" in answer.text
    assert "s0-2" not in answer.text
    assert (await shared_farm.get(f"{seen}/segments/s0-9/log")).status_code == 404


@pytest.mark.asyncio(loop_scope="module")
async def test_a_segment_shows_its_frames(shared_farm: Any, seen: str) -> None:
    shown = {}
    for frame in ("", "?frame=5", "?frame=12"):
        answer = await shared_farm.get(f"{seen}/segments/s0-1/picture{frame}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        assert answer.content[8:12] == WEBP
        shown[frame] = answer.content
    assert len(set(shown.values())) == 3
    answer = await shared_farm.get(f"{seen}/segments/s0-1/picture?frame=13")
    assert (answer.status_code, shared_farm.error_of(answer)["param"]) == (400, "frame")
    assert "5 to 12" in shared_farm.error_of(answer)["message"]
    video = await shared_farm.get(f"{seen}/segments/s0-1/video", headers={"Range": "bytes=0-3"})
    assert (video.status_code, video.content) == (206, b"\x1aE\xdf\xa3")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_picture_that_is_known_is_not_made_again(shared_farm: Any, seen: str) -> None:
    first = await shared_farm.get(f"{seen}/segments/s0-1/picture")
    headers = {"If-None-Match": first.headers["etag"]}
    again = await shared_farm.get(f"{seen}/segments/s0-1/picture", headers=headers)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_seam_is_shown_before_and_after(shared_farm: Any, seen: str) -> None:
    seams = (await shared_farm.get(f"{seen}/seams")).json()["data"]
    assert [(seam["after"], seam["before"]) for seam in seams] == [
        ("s0-0", "s0-1"),
        ("s0-1", "s0-2"),
        ("s0-2", "s0-3"),
        ("s0-3", "s0-4"),
    ]
    pictures = {}
    for which in ("before", "after"):
        answer = await shared_farm.get(f"{seen}/seams/s0-1/picture?which={which}")
        assert (answer.status_code, answer.content[8:12]) == (200, WEBP)
        pictures[which] = answer.content
    assert pictures["before"] != pictures["after"]
    answer = await shared_farm.get(f"{seen}/seams/s0-0/picture")
    assert (answer.status_code, shared_farm.error_of(answer)["param"]) == (404, "segment_id")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_input_is_shown(shared_farm: Any, seen: str) -> None:
    answer = await shared_farm.get(f"{seen}/input?index=0")
    assert (answer.status_code, answer.content[8:12]) == (200, WEBP)
    answer = await shared_farm.get(f"{seen}/input?index=1")
    assert (answer.status_code, shared_farm.error_of(answer)["param"]) == (404, "index")


async def test_what_is_not_rendered_yet_is_said_so(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job = f"jobs/{(await farm.submit(photo)).json()['id']}"
    for what in ("segments/s0-1/picture", "segments/s0-1/video", "seams/s0-1/picture"):
        answer = await farm.get(f"{job}/{what}")
        assert (answer.status_code, farm.error_of(answer)["code"]) == (404, "not_ready")
    assert (await farm.get(f"{job}/segments/s0-1/log")).text == ""
    assert (await farm.get(f"{job}/seams")).json()["data"] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_timeline_tells_who_rendered_what_and_when(shared_farm: Any, seen: str) -> None:
    told = (await shared_farm.get(f"{seen}/timeline")).json()
    segments = told["segments"]
    assert segments["id"] == ["s0-0", "s0-1", "s0-2", "s0-3", "s0-4"]
    assert set(segments["status"]) == {"done"}
    by_timeline = [told["workers"][number] for number in segments["worker"]]
    told_apart = (await shared_farm.get(f"{seen}/segments")).json()["data"]
    assert by_timeline == [segment["worker_id"] for segment in told_apart]
    attempts = [len(segment["attempts"]) for segment in told_apart]
    assert [told["attempts"]["segment"].count(number) for number in range(5)] == attempts
    assert told["last_event_id"] == (await shared_farm.get(seen)).json()["last_event_id"]


async def test_some_frames_are_rendered_again_and_the_rest_stays(farm: Any, job: str) -> None:
    before = {s["id"]: s for s in (await farm.get(f"{job}/segments")).json()["data"]}
    answer = await farm.post(f"{job}/rerender", json={"start": 8, "end": 10})
    assert (answer.status_code, answer.json()["segments"]) == (200, ["s0-1"])
    assert answer.json()["job"]["status"] == "running"
    await farm.until_ended(job.removeprefix("jobs/"))
    after = {s["id"]: s for s in (await farm.get(f"{job}/segments")).json()["data"]}
    assert {name for name in after if after[name]["takes"] != before[name]["takes"]} == {"s0-1"}
    assert "somebody asked for it" in (await farm.get(f"{job}/segments/s0-1/log")).text
    assert "somebody asked for it" not in (await farm.get(f"{job}/segments/s0-3/log")).text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("frames", [{"start": 5, "end": 5}, {"start": 0, "end": 25}, {"start": -1, "end": 3}])
async def test_frames_that_are_none_are_not_rendered_again(
    shared_farm: Any, seen: str, frames: dict[str, int]
) -> None:
    answer = await shared_farm.post(f"{seen}/rerender", json=frames)
    assert (answer.status_code, shared_farm.error_of(answer)["code"]) == (400, "invalid_input")
    assert (await shared_farm.get(seen)).json()["status"] == "succeeded"


async def test_a_job_is_deleted_once_it_has_ended(farm: Any, photo: Path) -> None:
    job_id = (await farm.submit(photo, num_frames=200)).json()["id"]
    address = f"/api/v1/jobs/{job_id}"
    running = await farm.http.delete(address)
    assert (running.status_code, farm.error_of(running)["code"]) == (400, "invalid_input")
    assert "cancel it first" in farm.error_of(running)["message"]
    await farm.post(f"jobs/{job_id}/cancel")
    assert (await farm.http.delete(address)).status_code == 204
    assert (await farm.http.get(address)).status_code == 404
    assert (await farm.http.delete(address)).status_code == 404
    assert (await farm.get("jobs")).json()["data"] == []
    await farm.until(lambda: not (farm.state_dir / "jobs" / job_id).exists())
