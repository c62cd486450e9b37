"""Videos made by the official openai clients, with nothing changed but ``base_url`` and ``api_key``."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.clients

OPTIONS = {"model": "procedural", "size": "64x64", "extra_body": {"num_frames": 24, "fps": 8}}


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def content_of(download: dict[str, Any]) -> bytes:
    assert download["status"] == 200
    return base64.b64decode(download["content"])


async def completed(served: Any, **options: Any) -> dict[str, Any]:
    video: dict[str, Any] = await served.client.create_and_poll(prompt="a boat", **{**OPTIONS, **options})
    assert video["status"] == "completed", video
    return video


@pytest.mark.asyncio(loop_scope="module")
async def test_a_video_is_created_polled_and_downloaded(served: Any, tmp_path: Path) -> None:
    video = await completed(served, seconds="2", extra_body={"fps": 8, "seed": 7})
    assert (video["object"], video["model"], video["size"], video["seconds"]) == (
        "video",
        "procedural",
        "64x64",
        "2",
    )
    assert (video["progress"], video["error"], video["seed"], video["start_picture"]) == (
        100,
        None,
        7,
        "painted",
    )
    first = next(headers for headers in served.wire.headers if "x-stainless-lang" in headers)
    assert first["content-type"].startswith(
        "multipart/form-data" if served.client.major > 2 else "application/json"
    )
    assert first["authorization"].startswith("Bearer ")

    download = await served.client.download_content(video_id=video["id"])
    content = content_of(download)
    assert download["headers"]["content-type"] == "video/mp4"
    path = tmp_path / "streamed.mp4"
    await served.client.streamed(path=str(path), video_id=video["id"])
    assert path.read_bytes() == content
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 16

    part = await served.client.download_content(video_id=video["id"], extra_headers={"Range": "bytes=4-7"})
    assert (part["status"], base64.b64decode(part["content"])) == (206, b"ftyp")
    for variant in ("thumbnail", "spritesheet"):
        picture = await served.client.download_content(video_id=video["id"], variant=variant)
        assert picture["headers"]["content-type"] == "image/webp"
        assert Image.open(io.BytesIO(content_of(picture))).format == "WEBP"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_photo_is_taken_in_whatever_way_it_is_given(served: Any, photo: Path, tmp_path: Path) -> None:
    content = text(photo.read_bytes())
    url = f"data:image/jpeg;base64,{content}"
    given: list[dict[str, Any]] = [
        {"input_reference": {"$tuple": ["photo.png", {"$bytes": content}, "image/png"]}},
        {"input_reference": {"$tuple": ["photo.txt", {"$bytes": content}, "text/plain"]}},
        {"input_reference": {"$bytes": content}},
        {"input_reference": {"$file": content}},
        {"input_reference": {"$path": str(photo)}},
        {"extra_body": {**OPTIONS["extra_body"], "input_reference": {"image_url": url}}},
    ]
    inputs = set()
    for way in given:
        video = await served.client.create(prompt="a boat", **{**OPTIONS, **way})
        assert video["start_picture"] == "given", way
        assert (video["size"], video["num_frames"]) == ("64x64", 24)
        inputs.add(served.farm.coordinator.ledger.job(video["job_id"]).request.inputs[0].sha256)
    assert len(inputs) == 1


def bomb() -> bytes:
    """A PNG of 100,000 x 100,000 pixels, it says."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"hello", bomb()], ids=["nothing", "text", "bomb"])
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_picture_is_a_bad_request(served: Any, content: bytes) -> None:
    reference = {"$tuple": ["photo.png", {"$bytes": text(content)}, "image/png"]}
    refused = await served.client.refused("create", prompt="x", **OPTIONS, input_reference=reference)
    assert (refused["error"], refused["status"]) == ("BadRequestError", 400)
    assert (refused["code"], refused["param"]) == ("invalid_image", "input_reference")
    assert len(served.wire.asked) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_extensions_of_the_farm_go_in_extra_body(served: Any) -> None:
    wishes = {
        "num_frames": 16,
        "fps": 8,
        "seed": 3,
        "overlap_frames": 2,
        "num_inference_steps": 2,
        "guidance_scale": 1.5,
        "negative_prompt": "blur",
        "priority": 80,
        "preset": "preview",
        "mode": "independent",
        "width": 64,
        "height": 48,
    }
    video = await served.client.create(prompt="x", model="procedural", extra_body=wishes)
    request = served.farm.coordinator.ledger.job(video["job_id"]).request
    assert {name: getattr(request, name) for name in wishes if name != "preset"} == {
        name: value for name, value in wishes.items() if name != "preset"
    }


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"sede": 3}, "sede"),
        ({"seed": True}, "seed"),
        ({"metadata": {"user": {"id": 7}}}, "metadata"),
        ({"tags": ["a", "b"]}, "tags"),
        ({"num_frames": "many"}, "num_frames"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_extension_is_a_bad_request_that_names_it(
    served: Any, extra: dict[str, Any], param: str
) -> None:
    refused = await served.client.refused("create", prompt="x", model="procedural", extra_body=extra)
    assert (refused["error"], refused["param"]) == ("BadRequestError", param)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_remix_keeps_input_settings_and_seed(served: Any, photo: Path) -> None:
    reference = {"$path": str(photo)}
    extra = {**OPTIONS["extra_body"], "seed": 5}
    video = await served.client.create(
        prompt="x", **{**OPTIONS, "extra_body": extra}, input_reference=reference
    )
    remixed = await served.client.remix(video_id=video["id"], prompt="a storm")
    assert remixed["remixed_from_video_id"] == video["id"]
    same = ("size", "seconds", "num_frames", "seed", "model", "start_picture")
    assert [remixed[name] for name in same] == [video[name] for name in same]
    assert (await served.client.retrieve(video_id=remixed["id"]))["status"] != "failed"


@asynccontextmanager
async def losing_first_answer(port: int) -> AsyncIterator[int]:
    """A proxy that carries the first request to the farm, waits for the answer, and hangs up instead."""
    lost = False

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        loses, lost = not lost, True
        farm_reader, farm_writer = await asyncio.open_connection("127.0.0.1", port)

        async def up() -> None:
            while data := await reader.read(65536):
                farm_writer.write(data)

        asking = asyncio.ensure_future(up())
        while data := await farm_reader.read(65536):
            if loses:
                break
            writer.write(data)
        asking.cancel()
        farm_writer.close()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_an_answer_that_is_lost_on_its_way_makes_no_second_job(start_served: Any) -> None:
    served = await start_served(workers=())
    async with losing_first_answer(int(served.url.rpartition(":")[2])) as port:
        served.client.base_url = f"http://127.0.0.1:{port}/v1"
        video = await served.client.create(prompt="x", **OPTIONS)
    assert [method for method, _ in served.wire.asked] == ["POST", "POST"]
    assert list(served.farm.coordinator.ledger.state.jobs) == [video["job_id"]]


def clip(path: Path) -> Path:
    """Two seconds of 64 x 64."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 8, (64, 64))
    for i in range(16):
        writer.write(np.full((64, 64, 3), i * 10, np.uint8))
    writer.release()
    return path


@pytest.mark.asyncio(loop_scope="module")
async def test_edits_and_what_is_not_supported(served: Any, tmp_path: Path) -> None:
    if served.client.major < 3:
        # These clients have no such calls; they must not be taken for a missing method of ours.
        refused = await served.client.refused("edit", prompt="x")
        assert refused["error"] == "AttributeError"
        return
    path = {"$path": str(clip(tmp_path / "clip.mp4"))}
    wishes = {"extra_body": {"model": "procedural"}}
    edited = await served.client.edit(prompt="a pencil drawing", video=path, **wishes)
    assert (edited["mode"], edited["num_frames"], edited["seconds"]) == ("refine", 16, "2")
    done = await served.client.poll(video_id=edited["id"])
    assert done["status"] == "completed"
    for method, arguments in (
        ("extend", {"prompt": "x", "seconds": "8", "video": path}),
        ("create_character", {"name": "Ann", "video": path}),
        ("get_character", {"character_id": "char_1"}),
    ):
        refused = await served.client.refused(method, **arguments)
        assert (refused["error"], refused["code"]) == ("BadRequestError", "unsupported")


@pytest.mark.parametrize("driver", ["3.52.0"], indirect=True)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_farms_own_model_makes_a_video_from_a_prompt_alone(served: Any) -> None:
    extra = {"num_frames": 8, "num_inference_steps": 2, "width": 64, "height": 64}
    video = await served.client.create_and_poll(prompt="a lake at dawn", model="sora-2", extra_body=extra)
    assert (video["status"], video["model"]) == ("completed", "tiny_wan")
