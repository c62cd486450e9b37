from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dashboard.background import beside
from farm.errors import CannotRun
from farm.planning.plan import Plan
from farm.scheduling.forecast import Quote

UNKNOWN = "/api/v1/jobs/job-000000000000"


def events_of(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def test_a_submitted_photo_becomes_a_video_with_its_story(
    farm: Any, photo: Path, tmp_path: Path
) -> None:
    submitted = await farm.submit(photo)
    assert submitted.status_code == 201
    job_id = submitted.json()["id"]
    assert submitted.json()["segments"]["total"] == 5
    events = events_of((await farm.http.get(f"/api/v1/jobs/{job_id}/events")).text)
    names = [event["event"] for event in events if event["event"] != "progress"]
    assert (names[0], names[-2], names[-1]) == ("job_submitted", "job_published", "end")
    assert names.count("attempt_succeeded") == 5
    assert json.loads(events[-1]["data"]) == {"type": "end", "status": "succeeded"}

    summary = (await farm.http.get(f"/api/v1/jobs/{job_id}")).json()
    assert (summary["status"], summary["progress"], summary["num_frames"]) == ("succeeded", 1.0, 24)

    video = await farm.http.get(f"/api/v1/jobs/{job_id}/artifacts/video.mp4")
    assert video.headers["content-type"] == "video/mp4"
    (tmp_path / "got.mp4").write_bytes(video.content)
    capture = cv2.VideoCapture(str(tmp_path / "got.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert np.shape(frames) == (24, 32, 32, 3)

    sheet = await farm.http.get(f"/api/v1/jobs/{job_id}/artifacts/sheet.png")
    assert sheet.headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(sheet.content, np.uint8), cv2.IMREAD_COLOR) is not None

    report = (await farm.http.get(f"/api/v1/jobs/{job_id}/report")).json()
    assert {s["worker_id"] for s in report["segments"]} <= {"near/cpu0", "near/cpu1"}
    assert all(s["vram_bytes"] > s["need_bytes"] for s in report["segments"])
    assert len(report["seams"]) == 4
    assert report["totals"]["wall_s"] > 0


async def test_events_continue_after_the_last_one_that_was_seen(farm: Any, photo: Path) -> None:
    address = f"/api/v1/jobs/{await farm.finished_job(photo)}/events"
    ids = [event["id"] for event in events_of((await farm.http.get(address)).text) if "id" in event]
    assert ids == sorted(ids, key=int)
    for how in ({"params": {"after": ids[3]}}, {"headers": {"Last-Event-ID": ids[3]}}):
        again = events_of((await farm.http.get(address, **how)).text)
        assert [event["id"] for event in again if "id" in event] == ids[4:]
        assert again[-1]["event"] == "end"


async def test_a_plan_is_shown_without_starting_anything(farm: Any, photo: Path) -> None:
    answer = await farm.http.post(
        "/api/v1/plans",
        data={"request": json.dumps({"model": "procedural", "num_frames": 13, "width": 64, "height": 64})},
        files=[("inputs", ("a.png", photo.read_bytes()))],
    )
    assert answer.status_code == 200
    plan = Plan.model_validate(answer.json()["plan"])
    assert [(s.start, s.end) for s in plan.segments] == [(0, 8), (5, 13)]
    quote = Quote.model_validate(answer.json()["quote"])
    assert (quote.num_segments, quote.num_frames) == (2, 13)
    assert (await farm.http.get("/api/v1/jobs")).json()["data"] == []
    assert farm.left_behind() == []


async def test_no_answer_tells_the_folders_of_the_machine(farm: Any, photo: Path) -> None:
    job_id = await farm.finished_job(photo)
    for what in ("", "/plan", "/report", "/events", "/segments", "/timeline", "/segments/s0-1/log", "/seams"):
        text = (await farm.http.get(f"/api/v1/jobs/{job_id}{what}")).text
        assert "s0-1" in text or what == ""
        assert str(farm.state_dir) not in text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("options", "param", "said"),
    [
        ({"num_frame": 8}, "num_frame", "not known"),
        ({"num_frames": "many"}, "num_frames", "many"),
        ({"mode": "sideways"}, "mode", "sideways"),
        ({"fps": "1/0"}, "fps", "1/0"),
        ({"fps": "999"}, "fps", "999"),
        ({"width": 8}, "width", "8"),
        ({"seed": -1}, "seed", "-1"),
        ({"prompts": []}, "prompts", "at least one"),
        ({"prompts": ["a", "b", "c"]}, "prompt", "3 prompts"),
        ({"num_frames": 24, "seconds": 3.0}, "frames", "one of them"),
    ],
)
async def test_a_wrong_option_is_refused_by_name(
    shared_farm: Any, photo: Path, options: dict[str, Any], param: str, said: str
) -> None:
    answer = await shared_farm.submit(photo, **options)
    error = shared_farm.error_of(answer)
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_input", param)
    assert said in error["message"]


async def test_what_this_farm_cannot_do_is_told_apart_from_what_is_wrong(farm: Any, photo: Path) -> None:
    answer = await farm.submit(photo, mode="refine")
    assert (answer.status_code, farm.error_of(answer)["code"]) == (422, "cannot_run")
    answer = await farm.submit(photo, model="no-such-model")
    assert (answer.status_code, farm.error_of(answer)["code"]) == (404, "not_found")


async def test_options_that_are_no_json_are_refused(farm: Any, photo: Path) -> None:
    answer = await farm.http.post(
        "/api/v1/jobs", data={"request": "{nonsense"}, files=[("inputs", ("a", photo.read_bytes()))]
    )
    assert answer.status_code == 400
    assert "JSON" in farm.error_of(answer)["message"]


async def test_what_is_not_there_is_not_found(farm: Any) -> None:
    for what in (
        "",
        "/report",
        "/plan",
        "/events",
        "/timeline",
        "/segments",
        "/seams",
        "/input",
        "/artifacts",
    ):
        answer = await farm.http.get(UNKNOWN + what)
        assert (answer.status_code, farm.error_of(answer)["code"]) == (404, "not_found")
    for what in ("/cancel", "/retry", "/rerender"):
        answer = await farm.http.post(UNKNOWN + what, json={"start": 0, "end": 1})
        assert (answer.status_code, farm.error_of(answer)["code"]) == (404, "not_found")
    for address in ("/nothing", "/api/v1/nothing", "/api/v1/jobs/../../etc/passwd", "/api/v1/jobs/"):
        assert farm.error_of(await farm.http.get(address))["code"] == "not_found"


async def test_a_method_that_is_not_taken_is_refused(farm: Any) -> None:
    answer = await farm.http.delete("/api/v1/jobs")
    assert (answer.status_code, farm.error_of(answer)["code"]) == (405, "method_not_allowed")
    assert "DELETE" in farm.error_of(answer)["message"]
    assert answer.headers["Allow"] == "GET, POST"


async def test_an_address_with_a_name_of_its_own_allows_what_it_takes_alone(farm: Any) -> None:
    answer = await farm.http.request("OPTIONS", "/v1/videos/edits")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


async def test_a_wrong_query_is_refused_by_name(farm: Any) -> None:
    answer = await farm.http.get(UNKNOWN + "/events", params={"after": "soon"})
    assert answer.status_code == 400
    assert farm.error_of(answer)["param"] == "after"


async def test_a_cancelled_job_goes_on_where_it_is_retried(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job_id = (await farm.submit(photo)).json()["id"]
    summary = (await farm.http.get(f"/api/v1/jobs/{job_id}")).json()
    assert "no worker is here" in summary["waiting_for"]
    cancelled = await farm.http.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await farm.http.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (again.status_code, farm.error_of(again)["code"]) == (400, "invalid_input")

    retried = await farm.http.post(f"/api/v1/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["status"]) == (200, "running")
    again = await farm.http.post(f"/api/v1/jobs/{job_id}/retry")
    assert (again.status_code, farm.error_of(again)["code"]) == (400, "invalid_input")
    farm.add_worker("late/cpu0")
    await farm.until_ended(job_id)
    assert (await farm.http.get(f"/api/v1/jobs/{job_id}")).json()["status"] == "succeeded"


async def test_the_stream_of_a_job_that_is_cancelled_ends(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job_id = (await farm.submit(photo)).json()["id"]
    following = asyncio.ensure_future(farm.http.get(f"/api/v1/jobs/{job_id}/events"))
    await farm.until(lambda: len(farm.coordinator.ledger._watchers) == 2)  # the stream, the stitcher
    await farm.http.post(f"/api/v1/jobs/{job_id}/cancel")
    events = events_of((await following).text)
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "job_submitted",
        "job_cancelled",
        "end",
    ]


async def test_a_mistake_of_the_farm_is_not_asked_for_again(farm: Any) -> None:
    async def broken() -> None:
        raise RuntimeError("secret of the farm")

    farm.app.add_api_route("/api/v1/health/broken", broken)
    answer = await farm.get("health/broken")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert farm.error_of(answer)["code"] == "internal"
    assert "secret" not in answer.text
    assert "x-should-retry" not in (await farm.get("health")).headers


async def test_what_works_beside_the_answers_begins_again_and_lets_go_at_the_end(
    farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.background.RESTART_S", 0.01)
    said: list[str] = []

    async def work() -> None:
        said.append("begun")
        raise OSError("the disk is full")

    async with beside(work, at_end=lambda: said.append("end"))(farm.app):
        await farm.until(lambda: len(said) >= 3)
    assert (said[:3], said[-1]) == (["begun"] * 3, "end")


async def test_the_doors_store_is_closed_with_the_server(farm: Any) -> None:
    async with farm.app.router.lifespan_context(farm.app):
        assert (await farm.post("keys", json={"name": "a", "scopes": ["read"]})).status_code == 201
    with pytest.raises(CannotRun, match="closed"):
        farm.app.state.keys.create("b", ["read"], None)
