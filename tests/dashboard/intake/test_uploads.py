"""What comes in: forms, JSON, uploads that are kept, and all that is refused on the way."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dashboard.intake.kept_uploads import KEEP_S, KeptUploads
from farm.errors import NotFound
from farm.request import MediaInfo, OnLook
from nodes.hosting.keep_up import media_tools

OPTIONS = {"model": "procedural", "num_frames": 8, "width": 32, "height": 32}


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def uploaded(farm: Any, photo: Path) -> dict[str, Any]:
    answer = await farm.post("uploads", files={"file": ("holiday.png", photo.read_bytes())})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_pictures_that_decode_slowly_keep_nobody_elses_waiting(
    start_farm: Any, photo: Path, until: Any
) -> None:
    end, begun = threading.Event(), 0

    def normalise(path: Path, folder: Path, on_look: OnLook) -> MediaInfo:
        nonlocal begun
        if path.read_bytes().endswith(b"slow"):
            begun += 1
            end.wait(60)
        return media_tools().normalise(path, folder, on_look)

    farm = await start_farm(tools=replace(media_tools(), normalise=normalise), workers=(), access="owner's")
    owner = {"Authorization": "Bearer owner's"}

    async def key() -> dict[str, str]:
        made = await farm.post("keys", json={"name": "x", "scopes": ["submit"]}, headers=owner)
        return {"Authorization": f"Bearer {made.json()['key']}"}

    slow, other = await key(), await key()

    def upload(content: bytes, headers: dict[str, str]) -> Any:
        return farm.post("uploads", files={"file": ("a.png", content)}, headers=headers)

    uploads = [asyncio.ensure_future(upload(photo.read_bytes() + b"slow", slow)) for _ in range(4)]

    async def one_is_decoded() -> bool:
        return begun == 1

    try:
        await until(one_is_decoded)
        for _ in range(3):
            assert (await asyncio.wait_for(upload(photo.read_bytes(), other), 60)).status_code == 201
        assert begun == 1
    finally:
        end.set()
    assert {answer.status_code for answer in await asyncio.gather(*uploads)} == {201}


@pytest.mark.parametrize("worked_out", ["outline", "simulate", "longest_path"])
async def test_a_plan_whose_price_takes_long_keeps_nobody_waiting(
    farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch, worked_out: str
) -> None:
    begun, end, waited = threading.Event(), threading.Event(), []
    where = "dashboard.intake.submitting" if worked_out == "outline" else "farm.scheduling.forecast"
    quickly = getattr(importlib.import_module(where), worked_out)

    def slowly(*given: Any) -> Any:
        begun.set()
        waited.append(end.wait(10))
        return quickly(*given)

    monkeypatch.setattr(f"{where}.{worked_out}", slowly)
    body = {**OPTIONS, "inputs": [data_url(photo.read_bytes())]}
    plan = asyncio.ensure_future(farm.post("plans?brief=true", json=body))
    await farm.until(begun.is_set)
    assert (await farm.get("health")).status_code == 200
    end.set()
    assert (await plan).status_code == 200
    assert waited == [True]


async def test_uploads_may_not_have_the_disk_that_the_farm_needs(
    farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.intake.upload_space.MAX_SHARE", 0.0)
    answer = await farm.post("uploads", files={"file": ("a.png", photo.read_bytes())})
    assert (answer.status_code, farm.error_of(answer)["code"]) == (422, "cannot_run")
    assert "free disk space" in farm.error_of(answer)["message"]
    assert farm.left_behind() == []


async def test_a_file_is_uploaded_once_and_named_by_plans_and_jobs(farm: Any, photo: Path) -> None:
    upload = await uploaded(farm, photo)
    shown = {name: upload[name] for name in ("kind", "width", "height", "num_frames", "fps", "name")}
    assert shown == {
        "kind": "image",
        "width": 96,
        "height": 96,
        "num_frames": 1,
        "fps": None,
        "name": "holiday.png",
    }
    assert (await farm.get(f"uploads/{upload['id']}")).json() == upload
    picture = await farm.get(f"uploads/{upload['id']}/picture")
    assert (picture.headers["content-type"], picture.content[8:12]) == ("image/webp", b"WEBP")

    body = {**OPTIONS, "inputs": [upload["id"], upload["id"]]}
    planned = await farm.post("plans", json=body)
    assert planned.status_code == 200, planned.text
    brief = await farm.post("plans?brief=true", json=body)
    assert "segments" not in brief.json()["plan"]
    assert brief.json()["quote"]["num_segments"] == len(planned.json()["plan"]["segments"])
    job = await farm.post("jobs", json=body)
    assert job.status_code == 201, job.text
    await farm.until_ended(job.json()["id"])
    assert (await farm.get(f"jobs/{job.json()['id']}")).json()["status"] == "succeeded"
    assert farm.left_behind() == []


async def test_an_upload_that_was_deleted_is_gone_and_its_jobs_go_on(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=())
    upload = await uploaded(farm, photo)
    job_id = (await farm.post("jobs", json={**OPTIONS, "inputs": [upload["id"]]})).json()["id"]
    assert (await farm.http.delete(f"/api/v1/uploads/{upload['id']}")).status_code == 204
    assert list((farm.state_dir / "uploads").iterdir()) == []
    for answer in (
        await farm.get(f"uploads/{upload['id']}"),
        await farm.http.delete(f"/api/v1/uploads/{upload['id']}"),
        await farm.post("jobs", json={**OPTIONS, "inputs": [upload["id"]]}),
    ):
        assert (answer.status_code, farm.error_of(answer)["param"]) == (404, "upload_id")
    farm.add_worker("late/cpu0")
    await farm.until_ended(job_id)
    assert (await farm.get(f"jobs/{job_id}")).json()["status"] == "succeeded"


def test_an_upload_is_kept_for_a_day(tmp_path: Path) -> None:
    now = [1000.0]
    uploads = KeptUploads(tmp_path / "uploads", clock=lambda: now[0])
    checked = tmp_path / "checked.png"
    checked.write_bytes(b"pixels")
    media = MediaInfo(kind="image", width=1, height=1, num_frames=1, sha256="0" * 64, path=checked)
    kept = uploads.keep(media, "a.png")
    assert kept.expires_at == 1000.0 + KEEP_S
    assert (uploads.get(kept.id).media.path.read_bytes(), checked.exists()) == (b"pixels", False)
    now[0] += KEEP_S - 1
    uploads.sweep()
    assert uploads.get(kept.id) == kept
    now[0] += 1
    with pytest.raises(NotFound):
        uploads.get(kept.id)
    uploads.sweep()
    assert list((tmp_path / "uploads").iterdir()) == []
    for name in ("upload-../../x", "", "../checked"):
        with pytest.raises(NotFound):
            uploads.get(name)


async def test_a_job_in_json_may_hold_its_picture(farm: Any, photo: Path) -> None:
    # What a data: URL says of itself is not believed.
    body = {**OPTIONS, "inputs": [data_url(photo.read_bytes(), "text/html;charset=utf-8")]}
    answer = await farm.post("jobs", json=body)
    assert answer.status_code == 201, answer.text
    again = await farm.post("plans", json={**OPTIONS, "inputs": [data_url(photo.read_bytes(), "")]})
    assert again.status_code == 200
    assert farm.left_behind() == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "no input, and no prompt"),
        (["photo.png"], "neither the id of an upload nor a data: URL"),
        (["data:image/png,hello"], "neither the id of an upload nor a data: URL"),
        (["data:image/png;base64,!!"], "not base64"),
        ([data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>")], "input-1"),
        ([data_url(b"\x89PNG\r\n\x1a\n" + bytes(100))], "input-1"),
        (["file:///etc/passwd"], "neither"),
        (["https://example.com/a.png"], "neither"),
        ([3], "expected text"),
        ("photo", "inputs"),
    ],
)
async def test_a_wrong_input_in_json_is_refused(shared_farm: Any, inputs: Any, said: str) -> None:
    answer = await shared_farm.post("jobs", json={**OPTIONS, "inputs": inputs})
    error = shared_farm.error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_input")
    assert error["param"].startswith("inputs")
    assert said in error["message"]
    assert shared_farm.left_behind() == []


async def test_a_preset_sets_what_is_not_said(farm: Any, photo: Path) -> None:
    upload = await uploaded(farm, photo)
    tiny = {"model": "tiny_wan", "seconds": 2, "inputs": [upload["id"]]}
    steps = []
    for options in ({}, {"preset": "preview"}, {"preset": "preview", "num_inference_steps": 7}):
        answer = await farm.post("plans?brief=true", json={**tiny, **options})
        assert answer.status_code == 200, answer.text
        steps.append(answer.json()["plan"]["num_inference_steps"])
    assert steps[0] > steps[1] == 1
    assert steps[2] == 7
    answer = await farm.post("plans", json={**tiny, "preset": "blurry"})
    assert (answer.status_code, farm.error_of(answer)["param"]) == (400, "preset")


async def test_an_upload_leaves_nothing_behind_whatever_comes_of_it(
    farm: Any, photo: Path, tmp_path: Path
) -> None:
    await farm.finished_job(photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:200])
    assert (await farm.submit(broken)).status_code == 400
    assert (await farm.submit(photo, num_frames=-1)).status_code == 400
    assert (await farm.post("uploads", files={"file": ("a", broken.read_bytes())})).status_code == 400
    assert farm.left_behind() == []
    assert list((farm.state_dir / "uploads").iterdir()) == []


async def test_a_broken_image_is_refused_by_the_name_the_user_gave_it(
    farm: Any, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "holiday.png"
    broken.write_bytes(photo.read_bytes()[:200])
    error = farm.error_of(await farm.submit(broken))
    assert (error["code"], error["param"]) == ("invalid_input", "inputs")
    assert "holiday.png" in error["message"]


async def test_the_name_of_an_upload_chooses_no_path(farm: Any, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "stolen.png"
    answer = await farm.post(
        "jobs",
        data={"request": json.dumps(OPTIONS)},
        files=[("inputs", (str(target), photo.read_bytes())), ("inputs", ("../../x", photo.read_bytes()))],
    )
    assert answer.status_code == 201, answer.text
    kept = await farm.post("uploads", files={"file": ("../../../x", photo.read_bytes())})
    assert kept.json()["name"] == "../../../x"
    assert not target.exists()
    assert not (farm.state_dir / "x").exists()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("text/plain", b"{}", "multipart/form-data"),
        ("application/json", b"{}", "missing"),
        ("application/json", b"[]", "expected names with values"),
        ("application/json", b"", "JSON"),
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
            "model is missing",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="inputs"; filename="a"\r\n\r\n'
            b"\xff\xd8\xff\xe0 seventeen bytes \r\n--b--\r\n",
            "request is missing",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="inputs"; filename="a"\r\n\r\nx\r\n--b--\r\n',
            "a: ",
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
    shared_farm: Any, content_type: str, body: bytes, said: str
) -> None:
    answer = await shared_farm.post("jobs", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert said in shared_farm.error_of(answer)["message"]
    assert shared_farm.left_behind() == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("where", "field"), [("jobs", "inputs"), ("uploads", "file")])
async def test_a_file_of_no_known_kind_is_refused_by_its_first_bytes(
    shared_farm: Any, where: str, field: str
) -> None:
    num_sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_sent
        yield f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'.encode()
        for _ in range(640):
            num_sent += 1 << 16
            yield b"MZ" * (1 << 15)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await shared_farm.post(where, content=body(), headers=headers)
    error = shared_farm.error_of(answer)
    assert (answer.status_code, error["param"]) == (400, field)
    assert "a.png" in error["message"]
    assert num_sent <= 2 << 20
    assert shared_farm.left_behind() == []


@pytest.mark.parametrize("length_is_known", [True, False])
async def test_an_upload_over_the_cap_is_stopped(start_farm: Any, photo: Path, length_is_known: bool) -> None:
    farm = await start_farm(max_upload_bytes=100_000)
    head = photo.read_bytes()[:64]
    num_sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_sent
        yield b'--b\r\nContent-Disposition: form-data; name="inputs"; filename="a"\r\n\r\n' + head
        for _ in range(100):
            num_sent += 10_000
            yield bytes(10_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if length_is_known:
        headers["Content-Length"] = "1000000"
    answer = await farm.post("jobs", content=body(), headers=headers)
    assert (answer.status_code, farm.error_of(answer)["code"]) == (413, "too_large")
    assert "larger than 100000 bytes" in farm.error_of(answer)["message"]
    assert num_sent <= (10_000 if length_is_known else 110_000)
    assert farm.left_behind() == []


async def test_json_over_the_cap_is_stopped(farm: Any) -> None:
    body = json.dumps({**OPTIONS, "inputs": ["data:;base64," + "A" * (33 << 20)]}).encode()

    async def unannounced() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    for content in (body, unannounced()):
        answer = await farm.post("jobs", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, farm.error_of(answer)["code"]) == (413, "too_large")
    assert farm.left_behind() == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("options", [{"file": 2}, {"other": 1}])
async def test_an_upload_is_one_file(shared_farm: Any, photo: Path, options: dict[str, int]) -> None:
    files = [(name, ("a.png", photo.read_bytes())) for name, count in options.items() for _ in range(count)]
    assert (await shared_farm.post("uploads", files=files)).status_code == 400
    assert shared_farm.left_behind() == []


async def test_a_mistake_of_the_farm_shows_no_traceback(start_farm: Any, photo: Path) -> None:
    def normalise(path: Path, folder: Path, on_look: OnLook) -> Any:
        raise ZeroDivisionError("secret")

    farm = await start_farm(tools=replace(media_tools(), normalise=normalise))
    answer = await farm.submit(photo)
    assert (answer.status_code, farm.error_of(answer)["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert farm.left_behind() == []


async def test_how_far_a_check_is_can_be_asked_by_whoever_sent_the_file(
    start_farm: Any, photo: Path, until: Any
) -> None:
    end = threading.Event()

    def normalise(path: Path, folder: Path, on_look: OnLook) -> MediaInfo:
        on_look(5400, 0.3)
        end.wait(60)
        return media_tools().normalise(path, folder, on_look)

    farm = await start_farm(tools=replace(media_tools(), normalise=normalise), workers=())
    upload = asyncio.ensure_future(farm.post("uploads", files={"file": ("a.png", photo.read_bytes())}))

    async def told() -> Any:
        return (await farm.http.get("/api/v1/uploads")).json()["data"]

    async def one_is_told() -> bool:
        return await told() == [{"name": "a.png", "num_frames": 5400, "share": 0.3}]

    try:
        await until(one_is_told)
    finally:
        end.set()
    assert (await upload).status_code == 201
    assert await told() == []


def animation() -> bytes:
    first, *others = (Image.new("RGB", (64, 64), (level,) * 3) for level in (20, 90, 160))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=100)
    return buffer.getvalue()


async def test_an_animation_is_a_picture_or_by_its_word_a_video(start_farm: Any) -> None:
    farm = await start_farm()
    asked = {"model": "procedural", "width": 64, "height": 64}
    for word, kind, status in (("false", "image", 201), ("true", "video", 201), ("yes", None, 400)):
        answer = await farm.post("uploads", files={"file": ("a.gif", animation())}, data={"clip": word})
        assert answer.status_code == status, answer.text
        assert answer.json().get("kind") == kind
    form = {"request": json.dumps(asked | {"clip": True})}
    planned = await farm.post("plans", files={"inputs": ("a.gif", animation())}, data=form)
    assert planned.status_code == 200, planned.text
    assert planned.json()["plan"]["num_frames"] == 3
    assert "a.gif is animated: its 3 pictures are read as a video" in planned.json()["plan"]["notes"][0]
    body = asked | {"clip": True, "inputs": [data_url(animation(), "image/gif")]}
    assert (await farm.post("plans", json=body)).json()["plan"]["num_frames"] == 3
