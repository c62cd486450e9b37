"""A job's keyframes over the API: looked at, made again, replaced and approved before the windows."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from farm.capabilities.engine_spec import EngineSpec
from farm.capabilities.frame_rule import FrameRule
from farm.capabilities.weights import Weights
from farm.cli.main import app
from nodes.engines.table import spec_of


def both_ends(model: str, weights: Weights) -> EngineSpec:
    """The procedural engine as a model that renders between two pictures."""
    return spec_of(model, weights).model_copy(
        update={
            "takes": frozenset({"image", "last_image", "text"}),
            "random_access": False,
            "frames": FrameRule.causal(4, max_frames=33),
            "window_frames": 9,
            "min_fps": 0.5,
        }
    )


@pytest.fixture
async def farm(start_farm: Any) -> Any:
    return await start_farm(spec_of=both_ends)


@pytest.fixture
async def job(farm: Any, photo: Path) -> str:
    """A job that waits for its user."""
    answer = await farm.submit(photo, mode="infill", overlap_frames=1, review=True)
    assert answer.status_code == 201, answer.text
    job_id = answer.json()["id"]
    job = farm.coordinator.ledger.job(job_id)
    await farm.until(lambda: job.awaits_review)
    return f"jobs/{job_id}"


async def listed(farm: Any, job: str) -> Any:
    return (await farm.get(f"{job}/keyframes")).json()


def png(colour: tuple[int, int, int]) -> bytes:
    return cv2.imencode(".png", np.full((48, 96, 3), colour, np.uint8))[1].tobytes()


async def test_keyframes_are_listed_in_order_with_their_pictures(farm: Any, job: str) -> None:
    found = await listed(farm, job)
    assert found["review"] == "waiting"
    assert [(k["number"], k["frame"], k["time_s"]) for k in found["data"]] == [(1, 8, 1.0), (2, 16, 2.0)]
    assert [k["made_again_with"] for k in found["data"]] == [[2], [1]]
    assert {(k["status"], k["seed"], k["replaced"], k["replaceable"]) for k in found["data"]} == {
        ("done", 0, False, True)
    }
    picture = await farm.get(f"{job}/keyframes/2/picture")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    summary = (await farm.get(job)).json()
    assert (summary["review"], summary["queue_position"], summary["eta_s"]) == ("waiting", None, None)
    assert summary["waiting_for"].startswith("its 2 keyframes wait for you; `farm review job-")
    assert summary["can_retry"] is False


async def test_a_keyframe_is_made_again_replaced_taken_back_and_the_video_rendered(
    farm: Any, job: str
) -> None:
    job_id = job.removeprefix("jobs/")
    before = (await listed(farm, job))["data"]
    again = (await farm.post(f"{job}/keyframes/1/remake", json={"seed": 7})).json()
    assert [k["seed"] for k in again["data"]] == [7, 7]
    assert again["review"] == "rendering"
    early = await farm.post(f"{job}/approve")
    assert (early.status_code, farm.error_of(early)["code"]) == (404, "not_ready")
    await farm.until(lambda: farm.coordinator.ledger.job(job_id).awaits_review)
    assert [k["sha256"] for k in (await listed(farm, job))["data"]] != [k["sha256"] for k in before]
    assert (await farm.post(f"{job}/keyframes/1/remake")).json()["data"][0]["seed"] == 8
    await farm.until(lambda: farm.coordinator.ledger.job(job_id).awaits_review)

    red = png((0, 0, 255))
    answer = await farm.http.put(f"/api/v1/{job}/keyframes/2/picture", files={"picture": ("red.png", red)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["keyframe"]["replaced"] is True
    assert answer.json()["notes"] == ["the picture loses 50%, half of it each left and right"]
    url = "data:image/png;base64," + base64.b64encode(png((0, 255, 0))).decode()
    answer = await farm.http.put(f"/api/v1/{job}/keyframes/1/picture", json={"picture": url})
    assert answer.status_code == 200, answer.text
    shown = await farm.get(f"{job}/keyframes/1/picture")
    seen = cv2.imdecode(np.frombuffer(shown.content, np.uint8), cv2.IMREAD_COLOR)
    assert seen.shape == (48, 96, 3)
    assert seen[..., 1].min() > 200
    taken_back = await farm.http.delete(f"/api/v1/{job}/keyframes/1/picture")
    assert taken_back.json()["keyframe"]["replaced"] is False
    assert [k["made_again_with"] for k in (await listed(farm, job))["data"]] == [[], [1]]
    assert farm.left_behind() == []

    approved = await farm.post(f"{job}/approve")
    assert (approved.status_code, approved.json()["review"]) == (200, "approved")
    await farm.until_ended(job_id)
    assert (await farm.get(job)).json()["status"] == "succeeded"
    events = [e["type"] for e in await told(farm, job)]
    assert "keyframes_ready" in events
    changes = [e for e in events if e.startswith(("keyframe", "review")) and e != "keyframes_ready"]
    assert changes == [
        *("keyframes_remade", "keyframes_remade"),
        *("keyframe_replaced", "keyframe_replaced", "keyframe_replaced"),
        "review_approved",
    ]
    log = (await farm.get(f"{job}/segments/d0-0/log")).text
    assert "take 1 is rendered next, with seed 7" in log
    assert "a picture stands for its frame 2" in log


async def told(farm: Any, job: str) -> list[Any]:
    """The job's events, which name no folder of this machine."""
    text = (await farm.get(f"{job}/events")).text
    assert str(farm.state_dir) not in text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("method", "where", "body", "status", "said"),
    [
        ("POST", "keyframes/3/remake", {}, 404, "has keyframes 1 to 2, and no 3"),
        ("POST", "keyframes/1/remake", {"seed": -1}, 400, "seed"),
        ("PUT", "keyframes/1/picture", {"picture": "upload-000000000000"}, 404, "there is no upload"),
        ("PUT", "keyframes/1/picture", {"picture": "photo.jpg"}, 400, "picture"),
        ("DELETE", "keyframes/1/picture", None, 400, "was not replaced"),
        ("GET", "keyframes/9/picture", None, 404, "no 9"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    farm: Any, job: str, method: str, where: str, body: Any, status: int, said: str
) -> None:
    answer = await farm.http.request(method, f"/api/v1/{job}/{where}", json=body)
    assert answer.status_code == status
    assert said in farm.error_of(answer)["message"]


async def test_a_video_is_no_keyframe_and_an_approved_job_has_nothing_left_to_review(
    farm: Any, job: str, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 8, (64, 64))
    for _ in range(4):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    refused = await farm.http.put(
        f"/api/v1/{job}/keyframes/1/picture", files={"picture": (clip.name, clip.read_bytes())}
    )
    assert farm.error_of(refused)["message"] == "a keyframe is replaced by a picture; the file is none"
    await farm.post(f"{job}/approve")
    refused = await farm.post(f"{job}/keyframes/1/remake")
    assert refused.status_code == 400
    assert "are approved; `farm rerender" in farm.error_of(refused)["message"]


async def test_a_review_of_a_mode_without_keyframes_is_refused(farm: Any, photo: Path) -> None:
    answer = await farm.submit(photo, mode="chain", review=True)
    assert (answer.status_code, farm.error_of(answer)["param"]) == (422, "review")


async def test_the_command_shows_keyframes_and_carries_out_what_is_typed(
    farm: Any, job: str, serve: Any, tmp_path: Path
) -> None:
    job_id, held = job.removeprefix("jobs/"), farm.coordinator.ledger.job(job.removeprefix("jobs/"))
    at = ("--farm", await serve(farm.app), "--token", farm.token, "--pictures", str(tmp_path / "pictures"))
    (tmp_path / "red.png").write_bytes(png((0, 0, 255)))

    async def review(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["review", job_id, *arguments, *at])
        assert result.exception is None, result.output
        return result.output

    said = await review()
    assert f"`farm review {job_id} --approve --farm" in said
    assert [p.name[:3] for p in sorted((tmp_path / "pictures").iterdir())] == ["01-", "02-"]
    assert json.loads(await review("--json")) == (await listed(farm, job))["data"]
    said = await review("--remake", "1", "--seed", "7")
    assert "keyframe 1 is made again, and with it 2: they come of the same draft" in said
    await farm.until(lambda: held.awaits_review)
    said = await review("--replace", f"2={tmp_path / 'red.png'}")
    assert "keyframe 2 is red.png now; the picture loses 50%, half of it each left and right" in said
    assert " a picture " in await review()
    await review("--take-back", "2", "--replace", f"1={tmp_path / 'red.png'}")
    assert [k["replaced"] for k in (await listed(farm, job))["data"]] == [True, False]
    said = await review("--approve", "-o", "my video.mp4")
    assert f"renders its video; `farm watch {job_id} -o 'my video.mp4'" in said
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["review", job_id, "--remake", "1", *at])
    assert "are approved" in str(refused.exception)
    assert "is made again" not in refused.output
    await farm.until_ended(job_id)
    assert held.status == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "3"], "--seed goes with --remake N"),
        (["--remake", "1", "--approve"], "look at what is made again first"),
        (["--replace", "photo.jpg"], "expected N=FILE such as 3=photo.jpg"),
    ],
)
def test_what_makes_no_sense_together_is_refused(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["review", "job-000000000000", *arguments])
    assert said in str(result.exception)


async def test_pictures_are_keyframes_themselves_with_prompts_between_them(farm: Any) -> None:
    pictures = [base64.b64encode(png((0, 0, red))).decode() for red in (0, 90, 180)]
    body = {
        "inputs": [f"data:image/png;base64,{picture}" for picture in pictures],
        "prompts": ["it dawns", "it is noon"],
        **{"model": "procedural", "mode": "infill", "width": 64, "height": 64, "num_frames": 17, "fps": "8"},
    }
    plan = (await farm.post("plans", json=body)).json()["plan"]
    shots = [(s["start"], s["end"], s["prompt"]) for s in plan["shots"]]
    assert shots == [(0, 9, "it dawns"), (8, 17, "it is noon")]
    three = (await farm.post("plans", json={**body, "prompts": ["a", "b", "c"]})).json()["plan"]
    assert "the last of 3 prompts is not used: between 3 pictures there is room for 2" in three["notes"]
    refused = await farm.post("plans", json={**body, "review": True})
    assert "the 3 pictures given are the keyframes" in farm.error_of(refused)["message"]
    drafted = await farm.post("plans", json={**body, "num_frames": 65, "review": True})
    assert drafted.status_code == 200, drafted.text
    assert drafted.json()["plan"]["review"] is True
