"""What one caller can take of the farm at most."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dashboard.access.limits import MAX_STREAMS, MAX_STREAMS_OF_ONE, Streams, is_stream
from dashboard.files import picture_cache
from dashboard.files.large_json import large_json
from dashboard.files.picture_cache import PictureCache
from dashboard.intake.kept_uploads import MIN_COUNTED_BYTES, KeptUploads
from dashboard.intake.specs import Specs
from dashboard.intake.uploads import MAX_JSON_VALUES
from dashboard.live import job_stream
from dashboard.live.job_stream import job_events
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun, TooManyRequests
from farm.reporting.report import job_report, report_parts
from farm.request.media import MediaInfo
from farm.state.events import WorkerEnabled, WorkerJoined
from farm.state.journal import Journal
from farm.state.ledger import Ledger

Usage = namedtuple("Usage", "total used free")


def test_two_hundred_watchers_of_one_principal_are_fine_and_too_many_are_refused() -> None:
    assert 200 < MAX_STREAMS_OF_ONE < MAX_STREAMS
    streams = Streams()
    held = [streams.one_more("ann") for _ in range(MAX_STREAMS_OF_ONE)]
    for stream in held:
        stream.__enter__()
    with pytest.raises(TooManyRequests, match="you have 300 event streams"), streams.one_more("ann"):
        pass
    others = [streams.one_more(f"{i}") for i in range(MAX_STREAMS - MAX_STREAMS_OF_ONE)]
    for stream in others:
        stream.__enter__()
    with pytest.raises(TooManyRequests, match="there are 600 event streams"), streams.one_more("bob"):
        pass
    for stream in (*held, *others):
        stream.__exit__(None, None, None)
    with streams.one_more("ann"):
        pass


def test_which_requests_hold_a_stream() -> None:
    assert is_stream("GET", "/api/v1/events")
    assert is_stream("GET", "/api/v1/jobs/job-000000000000/events")
    for method, path in (
        ("POST", "/api/v1/events"),
        ("GET", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/a/b/events"),
        ("GET", "/jobs/a/events"),
    ):
        assert not is_stream(method, path)


async def test_a_stream_too_many_is_refused_until_one_ends(
    farm: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.access.limits.MAX_STREAMS_OF_ONE", 1)
    url = f"{await serve(farm.app)}/api/v1/events"
    async with httpx2.AsyncClient(headers=farm.bearer, trust_env=False) as http:
        async with http.stream("GET", url) as answer:
            messages = answer.aiter_bytes()
            await anext(messages)
            refused = await asyncio.wait_for(http.get(url), 20)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            assert farm.error_of(refused)["code"] == "rate_limited"
        await farm.until(lambda: farm.app.state.feed.num_watchers == 0)
        async with http.stream("GET", url) as answer:
            assert answer.status_code == 200


def checked(folder: Path, num_bytes: int) -> MediaInfo:
    path = folder / "checked.png"
    path.write_bytes(b"\0" * num_bytes)
    return MediaInfo(kind="image", width=1, height=1, num_frames=1, sha256="0" * 64, path=path)


def test_uploads_hold_so_many_bytes_together_and_no_more(tmp_path: Path) -> None:
    root, most = tmp_path / "uploads", 3 * MIN_COUNTED_BYTES
    uploads = KeptUploads(root, max_bytes=most)
    first = uploads.keep(checked(tmp_path, 2 * MIN_COUNTED_BYTES), "a.png")
    with pytest.raises(CannotRun, match="delete some"):
        uploads.keep(checked(tmp_path, MIN_COUNTED_BYTES + 1), "b.png")
    uploads.keep(checked(tmp_path, 1), "small, and counted as more")
    with pytest.raises(CannotRun):
        uploads.check_room(0)
    again = KeptUploads(root, max_bytes=most)
    with pytest.raises(CannotRun):
        again.keep(checked(tmp_path, 1), "c.png")
    again.delete(first.id)
    again.keep(checked(tmp_path, 1), "c.png")


async def test_an_upload_is_refused_before_it_is_read_when_there_is_no_room(
    farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeptUploads, "check_room", lambda self, n: (_ for _ in ()).throw(CannotRun("full")))
    answer = await farm.post("uploads", files={"file": ("a.png", photo.read_bytes())})
    assert (answer.status_code, farm.error_of(answer)["message"]) == (422, "full")
    assert farm.left_behind() == []


async def test_an_upload_leaves_the_disk_the_room_that_the_journal_needs(
    farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 1 << 40, 1 << 20))
    answer = await farm.post("uploads", files={"file": ("a.png", photo.read_bytes())})
    assert (answer.status_code, farm.error_of(answer)["code"]) == (422, "cannot_run")
    assert "disk is all but full" in answer.text
    assert farm.left_behind() == []


async def test_a_form_of_very_many_empty_fields_is_refused(farm: Any) -> None:
    fields = {f"f{i}": "" for i in range(7000)}
    answer = await farm.http.post(
        "/v1/videos", data={"prompt": "x", **fields}, files={"input_reference": ("a", b"")}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


async def test_a_picture_may_come_in_a_field_as_long_as_openai_takes_it(farm: Any) -> None:
    url = "data:image/png;base64," + "A" * 20_971_500
    answer = await farm.http.post(
        "/v1/videos",
        headers={"content-type": "multipart/form-data; boundary=b"},
        content=(
            b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n'
            b'--b\r\ncontent-disposition: form-data; name="input_reference[image_url]"\r\n\r\n'
            + url.encode()
            + b"\r\n--b--\r\n"
        ),
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_image", "input_reference")


@pytest.mark.parametrize("where", ["/api/v1/jobs", "/api/v1/plans", "/v1/videos"])
async def test_a_body_of_very_many_values_is_not_read(farm: Any, where: str) -> None:
    content = b'{"num_frames": [' + b"0," * MAX_JSON_VALUES + b"0]}"
    answer = await farm.http.post(where, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


async def test_pictures_that_nobody_waits_for_hold_up_others_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(picture_cache, "MAX_WAITING", 3)
    pictures, go = PictureCache(), threading.Event()

    def make() -> bytes:
        go.wait(20)
        return b"picture"

    asked = [asyncio.ensure_future(pictures.get(str(i), make)) for i in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await pictures.get("another", make)
    joining = asyncio.ensure_future(pictures.get("0", make))
    go.set()
    assert await asyncio.gather(*asked, joining) == [b"picture"] * 4
    assert await pictures.get("another", make) == b"picture"


async def test_one_model_whose_files_are_fetched_takes_one_thread() -> None:
    go, asked = threading.Event(), []

    def spec_of(model: str, given: object) -> Any:
        asked.append(model)
        if model == "far":
            go.wait(20)
        return model

    specs = Specs(spec_of)
    waiting = [asyncio.ensure_future(specs.get("far")) for _ in range(40)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(specs.get("here"), 10) == "here"
    assert asked.count("far") == 1
    go.set()
    assert await asyncio.gather(*waiting) == ["far"] * 40


async def test_one_that_reads_a_jobs_events_slowly_misses_none_and_holds_few(
    start_farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_stream, "WAITING_EVENTS", 4)
    farm = await start_farm()
    ledger = farm.coordinator.ledger
    job_id = (await farm.submit(photo)).json()["id"]
    before = set(ledger._watchers)
    folder = farm.coordinator.storage.job_path(job_id)
    stream = job_events(ledger, ledger.job(job_id), folder, after=0)
    text = (await anext(stream)).decode()
    # Others, such as the one who joins, take all of them.
    (queue,) = (q for q in ledger._watchers - before if q.maxsize)
    await farm.until_ended(job_id)
    assert queue.qsize() == 4
    async for chunk in stream:
        text += chunk.decode()
    wanted = [seq for seq, _, _ in ledger.journal.events(job_id=job_id)]
    assert [int(line[4:]) for line in text.split("\n") if line.startswith("id: ")] == wanted


def test_a_queue_of_the_newest_keeps_the_newest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    ledger = Ledger(journal)
    worker = Worker(id="a/0", node="a", kind="cpu", device_name="CPU", vram_bytes=GIB)
    with ledger.watch(newest=3) as few, ledger.watch() as every:
        ledger.record(WorkerJoined(worker=worker))
        for _ in range(9):
            ledger.record(WorkerEnabled(worker_id="a/0"))
        assert [few.get_nowait()[0] for _ in range(few.qsize())] == [8, 9, 10]
        assert every.qsize() == 10
    journal.close()


async def test_a_long_report_is_the_same_when_it_is_written_in_slices(farm: Any, photo: Path) -> None:
    job_id = await farm.finished_job(photo)
    job = farm.coordinator.ledger.job(job_id)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(others())
    text = await large_json({**report_parts(job, {}), "many": iter(range(1000))})
    beside.cancel()
    assert json.loads(text) == {**job_report(job, {}), "many": list(range(1000))}
    assert turns > 10
    assert (await farm.get(f"jobs/{job_id}/report")).json()["segments"]
