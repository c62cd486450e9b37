from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from farm.plan import Plan

UNKNOWN = "/api/v1/jobs/job-000000000000"


def error_of(answer: Any) -> dict[str, Any]:
    """The error of an answer, known to have the one shape and nothing beside it."""
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "param"}
    assert error["message"]
    assert "\n" not in error["message"]
    return error


def events_of(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def finished_job(farm: Any, photo: Path, **options: Any) -> str:
    answer = await farm.submit(photo, **options)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    await farm.until_ended(job_id)
    return job_id


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

    video = await farm.http.get(f"/api/v1/jobs/{job_id}/video")
    assert video.headers["content-type"] == "video/mp4"
    (tmp_path / "got.mp4").write_bytes(video.content)
    capture = cv2.VideoCapture(str(tmp_path / "got.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert np.shape(frames) == (24, 64, 64, 3)

    sheet = await farm.http.get(f"/api/v1/jobs/{job_id}/sheet")
    assert sheet.headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(sheet.content, np.uint8), cv2.IMREAD_COLOR) is not None

    report = (await farm.http.get(f"/api/v1/jobs/{job_id}/report")).json()
    assert {s["worker_id"] for s in report["segments"]} <= {"near/cpu0", "near/cpu1"}
    assert all(s["vram_bytes"] > s["need_bytes"] for s in report["segments"])
    assert len(report["seams"]) == 4
    assert report["totals"]["wall_s"] > 0


async def test_a_part_of_the_video_is_served(farm: Any, photo: Path) -> None:
    address = f"/api/v1/jobs/{await finished_job(farm, photo)}/video"
    whole = (await farm.http.get(address)).content
    part = await farm.http.get(address, headers={"Range": "bytes=10-29"})
    assert part.status_code == 206
    assert part.content == whole[10:30]


async def test_jobs_are_listed_newest_first(farm: Any, photo: Path) -> None:
    ids = [(await farm.submit(photo, seed=seed)).json()["id"] for seed in range(3)]
    assert [job["id"] for job in (await farm.http.get("/api/v1/jobs")).json()] == ids[::-1]


async def test_events_continue_after_the_last_one_that_was_seen(farm: Any, photo: Path) -> None:
    address = f"/api/v1/jobs/{await finished_job(farm, photo)}/events"
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
    plan = Plan.model_validate(answer.json())
    assert [(s.start, s.end) for s in plan.segments] == [(0, 8), (5, 13)]
    assert (await farm.http.get("/api/v1/jobs")).json() == []
    assert farm.left_behind() == []


async def test_no_answer_tells_the_folders_of_the_machine(farm: Any, photo: Path) -> None:
    job_id = await finished_job(farm, photo)
    for what in ("", "/plan", "/report", "/events"):
        text = (await farm.http.get(f"/api/v1/jobs/{job_id}{what}")).text
        assert job_id in text or what == "/plan"
        assert str(farm.state_dir) not in text


async def test_an_upload_leaves_nothing_behind_whatever_comes_of_it(
    farm: Any, photo: Path, tmp_path: Path
) -> None:
    await finished_job(farm, photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:200])
    assert (await farm.submit(broken)).status_code == 400
    assert (await farm.submit(photo, num_frames=-1)).status_code == 400
    assert farm.left_behind() == []


async def test_a_broken_image_is_refused_by_the_name_the_user_gave_it(
    farm: Any, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "holiday.png"
    broken.write_bytes(photo.read_bytes()[:200])
    error = error_of(await farm.submit(broken))
    assert (error["code"], error["param"]) == ("invalid_input", "inputs")
    assert "holiday.png" in error["message"]


async def test_the_name_of_an_upload_chooses_no_path(farm: Any, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "stolen.png"
    answer = await farm.http.post(
        "/api/v1/jobs",
        data={"request": json.dumps({"model": "procedural", "num_frames": 8, "width": 64, "height": 64})},
        files=[("inputs", (str(target), photo.read_bytes())), ("inputs", ("../../x", photo.read_bytes()))],
    )
    assert answer.status_code == 201, answer.text
    assert not target.exists()
    assert not (farm.state_dir / "x").exists()


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
    farm: Any, photo: Path, options: dict[str, Any], param: str, said: str
) -> None:
    answer = await farm.submit(photo, **options)
    error = error_of(answer)
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_input", param)
    assert said in error["message"]


async def test_what_this_farm_cannot_do_is_told_apart_from_what_is_wrong(farm: Any, photo: Path) -> None:
    answer = await farm.submit(photo, mode="refine")
    assert (answer.status_code, error_of(answer)["code"]) == (422, "cannot_run")
    answer = await farm.submit(photo, model="no-such-model")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("application/json", b"{}", "multipart/form-data"),
        ("multipart/form-data", b"", "multipart/form-data"),
        ("multipart/form-data; boundary=b", b"", "ended early"),
        ("multipart/form-data; boundary=b", b"nonsense", "not a multipart form"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{',
            "ended early",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}\r\n--b--\r\n',
            "inputs is missing",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="inputs"; filename="a"\r\n\r\nx\r\n--b--\r\n',
            "request is missing",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            "'other' is not known",
        ),
        ("multipart/form-data; boundary=" + "b" * 300, b"--", "not a multipart form"),
    ],
)
async def test_a_body_that_is_no_upload_is_refused(
    farm: Any, content_type: str, body: bytes, said: str
) -> None:
    answer = await farm.http.post("/api/v1/jobs", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert said in error_of(answer)["message"]
    assert farm.left_behind() == []


async def test_options_that_are_no_json_are_refused(farm: Any, photo: Path) -> None:
    answer = await farm.http.post(
        "/api/v1/jobs", data={"request": "{nonsense"}, files=[("inputs", photo.read_bytes())]
    )
    assert answer.status_code == 400
    assert "JSON" in error_of(answer)["message"]


@pytest.mark.parametrize("length_is_known", [True, False])
async def test_an_upload_over_the_cap_is_stopped(start_farm: Any, length_is_known: bool) -> None:
    farm = await start_farm(max_upload_bytes=100_000)
    boundary = b'--b\r\nContent-Disposition: form-data; name="inputs"; filename="a"\r\n\r\n'
    num_sent = 0

    async def body() -> Any:
        nonlocal num_sent
        yield boundary
        for _ in range(100):
            num_sent += 10_000
            yield bytes(10_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if length_is_known:
        headers["Content-Length"] = "1000000"
    answer = await farm.http.post("/api/v1/jobs", content=body(), headers=headers)
    assert answer.status_code == 413
    assert "larger than 100000 bytes" in error_of(answer)["message"]
    assert num_sent <= (10_000 if length_is_known else 110_000)
    assert farm.left_behind() == []


async def test_what_is_not_there_is_not_found(farm: Any) -> None:
    for what in ("", "/report", "/plan", "/events", "/video", "/sheet"):
        answer = await farm.http.get(UNKNOWN + what)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    for what in ("/cancel", "/retry"):
        answer = await farm.http.post(UNKNOWN + what)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    for address in ("/", "/api/v1/nothing", "/api/v1/jobs/../../etc/passwd", "/api/v1/jobs/"):
        assert error_of(await farm.http.get(address))["code"] == "not_found"


async def test_a_method_that_is_not_taken_is_refused(farm: Any) -> None:
    answer = await farm.http.delete("/api/v1/jobs")
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert "DELETE" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "{}", '{"worker_id": "a/0", "node": "a"}', '{"node": 3}', '{"nodes": "a"}']
)
async def test_a_wrong_body_is_refused(farm: Any, body: str) -> None:
    answer = await farm.http.post("/api/v1/drain", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_input")


async def test_a_wrong_query_is_refused_by_name(farm: Any) -> None:
    answer = await farm.http.get(UNKNOWN + "/events", params={"after": "soon"})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "after"


async def test_a_mistake_of_the_farm_shows_no_traceback(start_farm: Any, photo: Path) -> None:
    def normalise(path: Path, folder: Path) -> Any:
        raise ZeroDivisionError("secret")

    farm = await start_farm(normalise=normalise)
    answer = await farm.submit(photo)
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert farm.left_behind() == []


async def test_a_video_is_not_there_before_it_is_published(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job_id = (await farm.submit(photo)).json()["id"]
    for what in ("video", "sheet"):
        answer = await farm.http.get(f"/api/v1/jobs/{job_id}/{what}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
        assert "it is running" in error_of(answer)["message"]


async def test_a_cancelled_job_goes_on_where_it_is_retried(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    job_id = (await farm.submit(photo)).json()["id"]
    summary = (await farm.http.get(f"/api/v1/jobs/{job_id}")).json()
    assert "no worker is here" in summary["waiting_for"]
    cancelled = await farm.http.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await farm.http.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (again.status_code, error_of(again)["code"]) == (400, "invalid_input")

    retried = await farm.http.post(f"/api/v1/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["status"]) == (200, "running")
    again = await farm.http.post(f"/api/v1/jobs/{job_id}/retry")
    assert (again.status_code, error_of(again)["code"]) == (400, "invalid_input")
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


async def test_nodes_say_what_they_are_and_why_they_idle(farm: Any, photo: Path) -> None:
    nodes = (await farm.http.get("/api/v1/nodes")).json()
    assert [(n["id"], n["node"], n["kind"]) for n in nodes] == [
        ("near/cpu0", "near", "cpu"),
        ("near/cpu1", "near", "cpu"),
    ]
    assert {n["idle_because"] for n in nodes} == {"no job is running"}
    await finished_job(farm, photo)
    learned = [n for n in (await farm.http.get("/api/v1/nodes")).json() if n["warm_model"]]
    assert learned
    assert all(n["seconds_per_mpixel_step"]["procedural"] > 0 for n in learned)


async def test_a_node_is_drained_whole_and_no_other(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0", "a/cpu1", "b/cpu0"))
    answer = await farm.http.post("/api/v1/drain", json={"node": "a"})
    assert answer.json() == {"draining": ["a/cpu0", "a/cpu1"]}
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 1)
    assert [n["id"] for n in (await farm.http.get("/api/v1/nodes")).json()] == ["b/cpu0"]
    answer = await farm.http.post("/api/v1/drain", json={"node": "a"})
    assert (answer.status_code, error_of(answer)["param"]) == (404, "node")


async def test_a_worker_is_drained_alone(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0", "a/cpu1"))
    assert (await farm.http.post("/api/v1/drain", json={"worker_id": "a/cpu1"})).status_code == 200
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 1)
    assert list(farm.coordinator.ledger.state.workers) == ["a/cpu0"]
    answer = await farm.http.post("/api/v1/drain", json={"worker_id": "a/cpu1"})
    assert (answer.status_code, error_of(answer)["param"]) == (404, "worker_id")
