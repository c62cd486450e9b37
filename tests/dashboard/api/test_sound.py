"""A sound goes with a job by the API: uploaded or in the body, kept through what is rendered again."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import Any

import av
import pytest


def wav(seconds: float = 2.0) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"\x10\x20" * int(8000 * seconds))
    return buffer.getvalue()


async def upload(farm: Any, name: str, content: bytes) -> dict[str, Any]:
    answer = await farm.http.post("/api/v1/uploads", files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def sound_of(path: Path) -> tuple[str, float]:
    with av.open(str(path)) as video:
        (track,) = video.streams.audio
        return track.codec_context.name, float(track.duration * track.time_base)


async def test_a_sound_is_in_the_video_also_after_frames_were_rendered_again(farm: Any, photo: Path) -> None:
    picture, song = await upload(farm, "photo.png", photo.read_bytes()), await upload(farm, "song.wav", wav())
    assert (song["kind"], song["sound"]["codec"], song["sound"]["end_s"]) == ("audio", "pcm_s16le", 2.0)
    body = {"inputs": [picture["id"]], "audio": song["id"], "model": "procedural", "num_frames": 12, "fps": 8}
    planned = (await farm.http.post("/api/v1/plans", json=body | {"width": 32, "height": 32})).json()
    assert planned["plan"]["sound"] == {
        "sha256": planned["plan"]["sound"]["sha256"],
        "copied": False,
        "codec": "aac",
        "zero_s": None,
    }
    assert "the sound is cut at the video's end, after 1.5 of its 2.0 s" in planned["plan"]["notes"]
    assert [framed["place"] for framed in planned["framings"]] == [[0.0, 0.0, 1.0, 1.0]]

    job_id = (await farm.http.post("/api/v1/jobs", json=body | {"width": 32, "height": 32})).json()["id"]
    await farm.until_ended(job_id)
    video = farm.state_dir / "jobs" / job_id / "video.mp4"
    assert sound_of(video) == ("aac", pytest.approx(1.5, abs=0.03))
    again = await farm.http.post(f"/api/v1/jobs/{job_id}/rerender", json={"start": 0, "end": 2})
    assert again.status_code < 300, again.text
    await farm.until_ended(job_id)
    assert (await farm.http.get(f"/api/v1/jobs/{job_id}")).json()["status"] == "succeeded"
    assert sound_of(video) == ("aac", pytest.approx(1.5, abs=0.03))


async def test_a_sound_may_stand_in_the_body_and_one_that_is_none_is_refused(farm: Any, photo: Path) -> None:
    def url(content: bytes) -> str:
        return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"

    body = {"inputs": [url(photo.read_bytes())], "model": "procedural", "num_frames": 8}
    planned = await farm.http.post("/api/v1/plans", json=body | {"audio": url(wav())})
    assert planned.json()["plan"]["sound"]["codec"] == "aac"
    silent = await farm.http.post("/api/v1/plans", json=body | {"audio": url(photo.read_bytes())})
    assert (silent.status_code, silent.json()["error"]["param"]) == (400, "audio")
    reversed_ = await farm.http.post("/api/v1/plans", json=body | {"inputs": [url(wav())]})
    assert (reversed_.status_code, reversed_.json()["error"]["param"]) == (400, "inputs")
    song = await upload(farm, "song.wav", wav())
    asked = await farm.http.get("/api/v1/models/procedural/choices", params={"upload_id": song["id"]})
    assert asked.status_code == 400
