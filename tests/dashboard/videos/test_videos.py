"""``/v1/videos`` on the wire, without a client that forgives. The official clients: ``clients/``."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from dashboard.access.decisions import OWNER
from dashboard.videos import intake
from dashboard.videos.intake import PAINTED_SIDE
from farm.state.events import AttemptFailed, TaskAssigned

SMALL = {"model": "procedural", "size": "32x32", "num_frames": 24, "fps": 8}
KNOWN_FIELDS = {
    "id": str,
    "object": str,
    "model": str,
    "status": str,
    "progress": int,
    "created_at": int,
    "size": str,
    "seconds": str,
}


async def create(farm: Any, *, expected: int = 200, **wishes: Any) -> dict[str, Any]:
    answer = await farm.http.post("/v1/videos", json={"prompt": "a boat", **SMALL, **wishes})
    assert answer.status_code == expected, answer.text
    body: dict[str, Any] = answer.json()
    return body["error"] if expected >= 400 else body


async def completed(farm: Any, **wishes: Any) -> dict[str, Any]:
    made = await create(farm, **wishes)
    await farm.until_ended(made["job_id"])
    video: dict[str, Any] = (await farm.http.get(f"/v1/videos/{made['id']}")).json()
    assert video["status"] == "completed", video
    return video


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def form(farm: Any, file: tuple[str, bytes, str] | None = None, **fields: str) -> httpx2.Response:
    files = {} if file is None else {"input_reference": file}
    texts = {"prompt": "a boat", **{name: str(value) for name, value in SMALL.items()}, **fields}
    # A file's field with a name of its own: with text alone httpx would not send a form of many parts.
    return await farm.http.post("/v1/videos", data=texts, files=files or {"seed": (None, "0")})


async def test_a_video_is_made_from_a_photo_and_downloaded(farm: Any, photo: Path) -> None:
    answer = await form(farm, ("photo.png", photo.read_bytes(), "image/png"), seed="3")
    made = answer.json()
    assert answer.status_code == 200
    assert {name: type(made[name]) for name in KNOWN_FIELDS} == KNOWN_FIELDS
    assert (made["object"], made["model"], made["size"], made["seconds"]) == (
        "video",
        "procedural",
        "32x32",
        "3",
    )
    assert (made["prompt"], made["seed"], made["start_picture"]) == ("a boat", 3, "given")
    assert made["status"] in ("queued", "in_progress")
    assert made["completed_at"] is made["expires_at"] is made["error"] is None
    await farm.until_ended(made["job_id"])
    done = (await farm.http.get(f"/v1/videos/{made['id']}")).json()
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["completed_at"] >= done["created_at"]
    video = await farm.http.get(f"/v1/videos/{made['id']}/content")
    assert (video.headers["content-type"], video.content[4:8]) == ("video/mp4", b"ftyp")
    part = await farm.http.get(f"/v1/videos/{made['id']}/content", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")


async def test_thumbnail_and_spritesheet_are_webp_pictures(farm: Any) -> None:
    made = await completed(farm)
    sizes = {}
    for variant in ("thumbnail", "spritesheet"):
        got = await farm.http.get(f"/v1/videos/{made['id']}/content", params={"variant": variant})
        assert got.headers["content-type"] == "image/webp"
        sizes[variant] = Image.open(io.BytesIO(got.content)).size
    assert sizes["thumbnail"] == (32, 32)
    assert sizes["spritesheet"][0] > 32
    wrong = await farm.http.get(f"/v1/videos/{made['id']}/content", params={"variant": "gif"})
    assert (wrong.status_code, error_of(wrong)["param"]) == (400, "variant")


async def test_without_a_picture_one_is_painted_from_the_prompt(
    start_farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = await start_farm(workers=())
    made = await create(farm, prompt="a lake at dawn")
    assert made["start_picture"] == "painted"
    assert (await farm.http.get(f"/v1/videos/{made['id']}")).json()["start_picture"] == "painted"
    again, other = [await create(farm, prompt=p) for p in ("a lake at dawn", "a city at night")]
    monkeypatch.setattr(intake, "PAINTED_SIDE", PAINTED_SIDE)
    large = await create(farm, prompt="a lake at dawn")
    videos = (made, again, other, large)
    pictures = [farm.coordinator.ledger.job(v["job_id"]).request.inputs[0] for v in videos]
    assert pictures[0].sha256 == pictures[1].sha256 != pictures[2].sha256
    assert (pictures[3].width, pictures[3].height) == (1024, 1024)


async def test_a_model_that_makes_videos_of_words_is_given_no_painted_picture(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm, prompt="a lake at dawn", model="instant")
    assert made["start_picture"] == "none"
    assert farm.coordinator.ledger.job(made["job_id"]).request.inputs == ()
    listed = (await farm.http.get("/v1/videos")).json()["data"]
    assert [video["start_picture"] for video in listed] == ["none"]


async def test_a_job_and_its_video_are_one(farm: Any) -> None:
    made = await create(farm)
    assert made["job_id"].removeprefix("job-") == made["id"].removeprefix("video_")
    assert (await farm.http.get(f"/api/v1/jobs/{made['job_id']}")).json()["prompt"] == "a boat"


async def test_the_default_is_four_seconds_of_the_farms_own_model(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = (await farm.http.post("/v1/videos", json={"prompt": "x", "model": "sora-2-pro"})).json()
    assert (made["model"], made["seconds"]) == ("tiny_wan", "4")
    spec = farm.coordinator.spec_of("tiny_wan")
    assert made["size"] == f"{spec.native_width}x{spec.native_height}"


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("as_form", [True, False])
async def test_a_picture_may_come_as_a_data_url(farm: Any, photo: Path, as_form: bool) -> None:
    url = data_url(photo.read_bytes(), "application/octet-stream")
    if as_form:
        answer = await form(farm, **{"input_reference[image_url]": url})
    else:
        wishes = {"prompt": "a boat", **SMALL, "input_reference": {"image_url": url}}
        answer = await farm.http.post("/v1/videos", json=wishes)
    assert answer.status_code == 200, answer.text
    assert answer.json()["start_picture"] == "given"
    assert farm.left_behind() == []


async def test_a_large_picture_in_json_is_taken_and_a_larger_one_refused(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    noise = Image.frombytes("RGB", (1200, 1200), random.Random(0).randbytes(1200 * 1200 * 3))
    noise.save(written := io.BytesIO(), format="PNG")
    await create(farm, input_reference={"image_url": data_url(written.getvalue())})
    error = await create(farm, expected=413, input_reference={"image_url": data_url(bytes(25 << 20))})
    assert (error["type"], error["code"]) == ("invalid_request_error", "too_large")
    small = await farm.http.post(f"/v1/videos/video_{'0' * 12}/remix", json={"prompt": "x" * (2 << 20)})
    assert small.status_code in (404, 413)


async def test_a_picture_may_be_an_upload_of_the_farm(farm: Any, photo: Path) -> None:
    kept = await farm.http.post("/api/v1/uploads", files={"file": ("a.png", photo.read_bytes())})
    made = await create(farm, input_reference={"file_id": kept.json()["id"]})
    assert made["start_picture"] == "given"
    error = await create(farm, expected=404, input_reference={"file_id": "upload-000000000000"})
    assert error["param"] == "input_reference"


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large, with pixels for 64 x 64 of noise."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(random.Random(0).randbytes(64 * (3 * 64 + 1))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"hello",
        b"#EXTM3U\nhttp://10.0.0.1/",
        png_of(100_000, 100_000),
        png_of(64, 64)[:2000],
    ],
    ids=["nothing", "head-only", "text", "playlist", "bomb", "cut"],
)
@pytest.mark.parametrize("as_form", [True, False])
async def test_what_is_no_picture_is_an_invalid_image(
    shared_farm: Any, content: bytes, as_form: bool
) -> None:
    if as_form:
        answer = await form(shared_farm, ("photo.png", content, "image/png"))
    else:
        wishes = {"prompt": "x", **SMALL, "input_reference": {"image_url": data_url(content)}}
        answer = await shared_farm.http.post("/v1/videos", json=wishes)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_image", "input_reference")
    assert error["type"] == "invalid_request_error"
    assert shared_farm.left_behind() == []
    assert shared_farm.coordinator.ledger.state.jobs == {}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "reference",
    ["https://example.com/a.png", "HTTP://169.254.169.254/latest", {"image_url": "http://127.0.0.1/"}],
)
async def test_no_address_is_fetched(shared_farm: Any, reference: Any) -> None:
    error = await create(shared_farm, expected=400, input_reference=reference)
    assert (error["code"], error["param"]) == ("unsupported", "input_reference")


async def test_ten_gigabytes_are_refused_when_they_are_announced(start_farm: Any, serve: Any) -> None:
    farm = await start_farm()
    url = httpx2.URL(await serve(farm.app))
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /v1/videos HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10737418240\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Authorization: Bearer %s\r\n\r\n--b\r\n" % farm.token.encode()
    )
    status = await asyncio.wait_for(reader.readline(), 20)
    rest = await asyncio.wait_for(reader.readuntil(b"}}"), 20)
    writer.close()
    assert status.startswith(b"HTTP/1.1 400")
    assert b'"invalid_image"' in rest


@pytest.mark.asyncio(loop_scope="module")
async def test_a_field_that_is_not_known_is_named(shared_farm: Any) -> None:
    assert (await create(shared_farm, expected=400, sede=3))["param"] == "sede"
    answer = await form(shared_farm, **{"metadata[user]": "7"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "metadata")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("wishes", "status", "param"),
    [
        ({"num_frames": 0}, 400, "num_frames"),
        ({"overlap_frames": 7, "window_frames": 8}, 400, "overlap_frames"),
        ({"seconds": 4}, 400, "num_frames"),
        ({"size": "63x63"}, 400, "size"),
        ({"size": "1x999999"}, 400, None),
        ({"width": 64}, 400, "size"),
        ({"model": "no-such-model"}, 404, "model"),
        ({"mode": "chain", "window_frames": 1}, 400, "window_frames"),
        ({"mode": "infill"}, 422, "mode"),
        ({"prompt": "x" * 4001}, 400, "prompt"),
        ({"prompt": "\ud800"}, 400, None),
        ({"priority": 101}, 400, "priority"),
    ],
)
async def test_a_wish_that_cannot_be_met_is_named_as_it_is_called_here(
    shared_farm: Any, wishes: dict[str, Any], status: int, param: str | None
) -> None:
    body = {"prompt": "a boat", **SMALL, **wishes}
    if "width" in wishes:
        del body["size"]
    text = json.dumps(body)
    answer = await shared_farm.http.post(
        "/v1/videos", content=text, headers={"Content-Type": "application/json"}
    )
    error = error_of(answer)
    assert answer.status_code == status, answer.text
    assert param is None or error["param"] == param
    assert shared_farm.left_behind() == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_of_another_kind_is_refused(shared_farm: Any, kind: str) -> None:
    answer = await shared_farm.http.post("/v1/videos", content=b"prompt=x", headers={"Content-Type": kind})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_input")


async def test_a_video_without_workers_waits_and_says_when_to_look_again(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm)
    answer = await farm.http.get(f"/v1/videos/{made['id']}")
    assert (answer.json()["status"], answer.json()["progress"]) == ("queued", 0)
    assert 250 <= int(answer.headers["openai-poll-after-ms"]) <= 5000


async def test_a_video_that_runs_is_in_progress(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm)
    ledger = farm.coordinator.ledger
    task_id = ledger.job(made["job_id"]).order[0]
    common = {"job_id": made["job_id"], "task_id": task_id, "attempt_id": f"{made['job_id']}/{task_id}/1"}
    ledger.record(
        TaskAssigned(**common, worker_id="w", rung="resident", need_bytes=1, predicted_s=1.0, why="")
    )
    shown = (await farm.http.get(f"/v1/videos/{made['id']}")).json()
    assert shown["status"] == "in_progress"
    ledger.record(AttemptFailed(**common, kind="lost", message="gone"))


async def test_a_failed_video_says_why(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm)
    farm.coordinator.stop(farm.coordinator.ledger.job(made["job_id"]), "segment 3 failed on three workers")
    shown = (await farm.http.get(f"/v1/videos/{made['id']}")).json()
    assert shown["status"] == "failed"
    assert shown["error"] == {"code": "job_failed", "message": "segment 3 failed on three workers"}
    assert shown["progress"] < 100


async def test_a_cancelled_video_has_failed(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm)
    await farm.http.post(f"/api/v1/jobs/{made['job_id']}/cancel")
    shown = await farm.http.get(f"/v1/videos/{made['id']}")
    assert (shown.json()["status"], shown.json()["error"]["code"]) == ("failed", "cancelled")
    assert "openai-poll-after-ms" not in shown.headers


async def test_content_is_not_ready_until_it_is(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm)
    for variant in ("video", "thumbnail", "spritesheet"):
        answer = await farm.http.get(f"/v1/videos/{made['id']}/content", params={"variant": variant})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_ready")


async def test_a_remix_has_the_same_input_and_settings_with_another_prompt(farm: Any) -> None:
    made = await completed(farm, seed=5, prompt="a lake")
    answer = await farm.http.post(f"/v1/videos/{made['id']}/remix", json={"prompt": "a storm"})
    remixed = answer.json()
    assert answer.status_code == 200, answer.text
    assert (remixed["remixed_from_video_id"], remixed["prompt"]) == (made["id"], "a storm")
    assert [remixed[k] for k in ("seed", "size", "seconds", "start_picture")] == [5, "32x32", "3", "painted"]
    first, second = (farm.coordinator.ledger.job(v["job_id"]).request for v in (made, remixed))
    assert second == first.model_copy(update={"prompts": ("a storm",)})
    await farm.until_ended(remixed["job_id"])
    assert (await farm.http.get(f"/v1/videos/{remixed['id']}")).json()["status"] == "completed"
    wrong = await farm.http.post(f"/v1/videos/{made['id']}/remix", json={"prompt": "x", "seed": 3})
    assert (wrong.status_code, error_of(wrong)["param"]) == (400, "seed")


async def test_a_finished_video_is_edited_by_its_id(farm: Any) -> None:
    made = await completed(farm)
    wishes = {"prompt": "a pencil drawing", "video": {"id": made["id"]}}
    answer = await farm.http.post("/v1/videos/edits", json=wishes)
    edited = answer.json()
    assert answer.status_code == 200, answer.text
    assert (edited["model"], edited["mode"], edited["num_frames"]) == ("procedural", "refine", 24)
    assert edited["remixed_from_video_id"] == made["id"]
    await farm.until_ended(edited["job_id"])
    assert (await farm.http.get(f"/v1/videos/{edited['id']}")).json()["status"] == "completed"
    assert farm.left_behind() == []


async def test_an_edit_wants_a_video(farm: Any, photo: Path) -> None:
    for wishes, status in (
        ({"prompt": "x"}, 400),
        ({"prompt": "x", "video": {"id": "video_000000000000"}}, 404),
    ):
        answer = await farm.http.post("/v1/videos/edits", json=wishes)
        assert answer.status_code == status
    picture = {"video": ("a.mp4", photo.read_bytes(), "video/mp4")}
    answer = await farm.http.post("/v1/videos/edits", data={"prompt": "x"}, files=picture)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "video")


async def test_a_video_that_is_made_cannot_be_edited_yet(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = await create(farm)
    answer = await farm.http.post("/v1/videos/edits", json={"prompt": "x", "video": {"id": made["id"]}})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_ready")


async def test_a_deleted_video_is_gone(farm: Any) -> None:
    made = await completed(farm)
    answer = await farm.http.delete(f"/v1/videos/{made['id']}")
    assert answer.json() == {"id": made["id"], "object": "video.deleted", "deleted": True}
    for gone in (
        farm.http.delete(f"/v1/videos/{made['id']}"),
        farm.http.get(f"/v1/videos/{made['id']}"),
        farm.http.get(f"/v1/videos/{made['id']}/content"),
        farm.http.get(f"/api/v1/jobs/{made['job_id']}"),
    ):
        assert (await gone).status_code == 404


async def test_deleting_a_video_that_is_made_stops_it(farm: Any) -> None:
    made = await create(farm, num_frames=4000)
    job = farm.coordinator.ledger.job(made["job_id"])
    await farm.until(lambda: job.num_done > 0 and job.num_running > 0)
    assert (await farm.http.delete(f"/v1/videos/{made['id']}")).status_code == 200
    assert farm.coordinator.ledger.state.jobs == {}
    await completed(farm)


async def test_a_list_without_videos_says_so(farm: Any) -> None:
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert (await farm.http.get("/v1/videos")).json() == empty


async def test_videos_are_listed_in_pages(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    ids = [(await create(farm))["id"] for _ in range(5)]
    page = (await farm.http.get("/v1/videos", params={"limit": 2})).json()
    assert [v["id"] for v in page["data"]] == ids[:2:-1] == [page["first_id"], page["last_id"]]
    assert page["has_more"]
    after = {"limit": 2, "order": "asc", "after": ids[2]}
    page = (await farm.http.get("/v1/videos", params=after)).json()
    assert ([v["id"] for v in page["data"]], page["has_more"]) == (ids[3:], False)


async def test_paging_goes_on_after_a_video_that_was_deleted_meanwhile(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    ids = [(await create(farm))["id"] for _ in range(5)]
    await farm.http.delete(f"/v1/videos/{ids[2]}")
    for order, rest in (("asc", ids[3:]), ("desc", [ids[1], ids[0]])):
        page = await farm.http.get("/v1/videos", params={"after": ids[2], "order": order})
        assert [v["id"] for v in page.json()["data"]] == rest


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        ({"limit": 0}, 400, "limit"),
        ({"limit": 101}, 400, "limit"),
        ({"limit": "many"}, 400, "limit"),
        ({"order": "random"}, 400, "order"),
        ({"after": "video_000000000000"}, 404, "after"),
        ({"after": "../x"}, 404, "after"),
    ],
)
async def test_a_wrong_page_is_refused_by_name(
    shared_farm: Any, asked: dict[str, Any], status: int, param: str
) -> None:
    answer = await shared_farm.http.get("/v1/videos", params=asked)
    assert (answer.status_code, error_of(answer)["param"]) == (status, param)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("wrong", ["video_000000000000", "job-000000000000", "a%2F..%2Fb", "edits", "%00"])
async def test_what_is_no_id_finds_nothing(shared_farm: Any, wrong: str) -> None:
    for method, rest in (("GET", ""), ("GET", "/content"), ("DELETE", ""), ("POST", "/remix")):
        body = {"json": {"prompt": "x"}} if method == "POST" else {}
        answer = await shared_farm.http.request(method, f"/v1/videos/{wrong}{rest}", **body)
        assert answer.status_code in (404, 405), (method, rest)


@pytest.mark.asyncio(loop_scope="module")
async def test_extensions_and_characters_are_refused_as_unsupported(shared_farm: Any) -> None:
    for answer in (
        await shared_farm.http.post("/v1/videos/extensions", json={"prompt": "x", "seconds": "4"}),
        await shared_farm.http.post("/v1/videos/characters", json={}),
        await shared_farm.http.get("/v1/videos/characters/char_1"),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (400, "unsupported")


async def test_a_request_that_is_sent_again_finds_its_job(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    made = [
        await farm.http.post(
            "/v1/videos", json={"prompt": "x", **SMALL}, headers={"x-stainless-retry-count": str(n)}
        )
        for n in (0, 1, 2)
    ]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in made] == [None, "true", "true"]
    assert (await create(farm, prompt="x"))["id"] != made[0].json()["id"]
    assert OWNER.name == farm.coordinator.ledger.job(made[0].json()["job_id"]).submitted_by


async def test_a_key_of_the_clients_choice_is_one_job(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    headers = {"Idempotency-Key": "order 66"}
    made = [
        await farm.http.post("/v1/videos", json={"prompt": prompt, **SMALL}, headers=headers)
        for prompt in ("x", "x", "y")
    ]
    assert made[0].json()["id"] == made[1].json()["id"]
    assert (made[2].status_code, error_of(made[2])["code"]) == (422, "idempotency_key_reused")


async def test_front_ends_find_the_models_where_openai_lists_its_own(farm: Any) -> None:
    answer = await farm.http.get("/v1/models")
    assert answer.status_code == 200
    models = (await farm.get("models")).json()["data"]
    assert answer.json() == {
        "object": "list",
        "data": [
            {"id": model["model"], "object": "model", "created": 0, "owned_by": "reelfarm"}
            for model in models
        ],
    }


async def test_a_remix_of_a_video_that_is_deleted_meanwhile_says_so(
    farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await create(farm, prompt="x")
    await farm.until_ended(source["job_id"])
    plan = farm.coordinator.plan

    def slow(request: Any) -> Any:
        made = plan(request)
        deleting = asyncio.run_coroutine_threadsafe(farm.http.delete(f"/v1/videos/{source['id']}"), loop)
        assert deleting.result(20).status_code == 200
        while list((farm.state_dir / "blobs").glob("*/*")):
            time.sleep(0.01)
        return made

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(farm.coordinator, "plan", slow)
    answer = await farm.http.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "y"})
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (404, "not_found"), error
    assert "deleted" in error["message"]
