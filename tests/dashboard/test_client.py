"""The client against a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import wave
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
import pytest

from farm.client import FarmClient
from farm.errors import (
    CannotRun,
    Conflict,
    FarmError,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotReady,
    TooLarge,
)
from farm.state.events import event_adapter

pytestmark = pytest.mark.slow  # serves a whole farm on a socket

OPTIONS = {"model": "procedural", "num_frames": 24, "width": 32, "height": 32, "fps": Fraction(30000, 1001)}


async def test_a_job_goes_through_the_client_from_submit_to_download(
    farm: Any, serve: Any, photo: Path, tmp_path: Path
) -> None:
    client = FarmClient(await serve(farm.app), farm.token)

    def use() -> None:
        planned = client.plan([photo], OPTIONS)
        assert planned["plan"]["fps"] == "30000/1001"
        assert planned["quote"]["num_segments"] == len(planned["plan"]["segments"])
        job_id = client.submit([photo], OPTIONS, idempotency_key="one")["id"]
        assert client.submit([photo], OPTIONS, idempotency_key="one")["id"] == job_id
        events = [(seq, event) for seq, event in client.events(job_id) if event["type"] != "progress"]
        numbers = [seq for seq, _ in events]
        assert numbers == sorted(set(numbers), key=lambda n: n or 0)
        assert (events[0][1]["type"], events[-1][1]["type"]) == ("job_submitted", "job_published")
        for _, event in events:
            assert event.pop("at") > 0
            event_adapter.validate_python(event)
        assert list(client.events(job_id, after=numbers[-1] or 0)) == []
        assert client.job(job_id)["status"] == "succeeded"
        assert [job["id"] for job in client.jobs()] == [job_id]
        assert client.report(job_id)["settings"]["fps"] == "30000/1001"
        client.download(job_id, "video.mp4", tmp_path / "got.mp4")
        (tmp_path / "got.png").write_bytes(b"the user's own")
        assert client.download(job_id, "sheet.png", tmp_path / "got.png") == tmp_path / "got-2.png"
        assert (tmp_path / "got.png").read_bytes() == b"the user's own"
        assert (
            client.download(job_id, "sheet.png", tmp_path / "got.png", replace=True) == tmp_path / "got.png"
        )
        assert (tmp_path / "got.mp4").read_bytes()[4:8] == b"ftyp"
        assert (tmp_path / "got.png").read_bytes()[:4] == b"\x89PNG"
        (node,) = client.nodes()
        assert [worker["id"] for worker in node["workers"]] == ["near/cpu0", "near/cpu1"]
        client.drain("near/cpu1")
        client.enable("near/cpu1")
        assert client.rerender(job_id, 0, 5) == ["s0-0"]
        assert [event["type"] for _, event in client.events(job_id)][-1] == "job_published"
        client.delete(job_id)
        assert list(client.jobs()) == []
        client.close()

    await asyncio.to_thread(use)
    assert {p.name for p in tmp_path.iterdir()} == {"state", "got.mp4", "got.png", "got-2.png"}


async def test_a_job_of_words_alone_is_rendered_and_told_without_an_input(
    farm: Any, serve: Any, tmp_path: Path
) -> None:
    client = FarmClient(await serve(farm.app), farm.token)
    words = {"model": "instant", "prompts": ["a ship sails", "a harbour"], "num_frames": 20, "seed": 3}

    def use() -> None:
        planned = client.plan([], words)["plan"]
        assert [shot["media"] for shot in planned["shots"]] == [None, None]
        job_id = client.submit([], words, idempotency_key="words")["id"]
        assert client.submit([], words, idempotency_key="words")["id"] == job_id
        assert [event["type"] for _, event in client.events(job_id)][-1] == "job_published"
        assert [shot["media"] for shot in client.report(job_id)["shots"]] == [None, None]
        client.download(job_id, "video.mp4", tmp_path / "got.mp4")
        with pytest.raises(CannotRun, match="procedural makes no video of words alone"):
            client.submit([], words | {"model": "procedural"})
        client.close()

    await asyncio.to_thread(use)


async def test_progress_is_heard_while_a_job_runs(
    farm: Any, serve: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.live.job_stream.PROGRESS_INTERVAL_S", 0.01)
    client = FarmClient(await serve(farm.app), farm.token)

    def use() -> list[dict[str, Any]]:
        job_id = client.submit([photo], OPTIONS)["id"]
        heard = [event for seq, event in client.events(job_id) if seq is None]
        client.close()
        return heard

    heard = await asyncio.to_thread(use)
    assert heard
    assert [h["progress"] for h in heard] == sorted(h["progress"] for h in heard)
    assert heard[-1]["progress"] > 0
    for running in (r for h in heard for r in h["running"]):
        assert set(running) == {"task_id", "attempt_id", "worker_id", "phase", "done_fraction"}


async def test_a_quiet_stream_is_kept_alive_and_let_go_when_the_listener_is_gone(
    start_farm: Any, serve: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.live.job_stream.PROGRESS_INTERVAL_S", 0.01)
    monkeypatch.setattr("dashboard.live.job_stream.HEARTBEAT_S", 0.02)
    farm = await start_farm(workers=())
    client = FarmClient(await serve(farm.app), farm.token)
    watchers = farm.coordinator.ledger._watchers
    servers = len(watchers)
    job_id = (await asyncio.to_thread(client.submit, [photo], OPTIONS))["id"]
    await farm.until(lambda: len(watchers) == servers + 1)  # the job's own stitcher

    def listen() -> str:
        heard = ""
        address = f"{client.url}/api/v1/jobs/{job_id}/events"
        with httpx2.stream("GET", address, headers=farm.bearer, trust_env=False) as answer:
            for text in answer.iter_text():
                heard += text
                if heard.count(": still here\n\n") == 3:
                    assert len(watchers) == servers + 2
                    return heard
        return heard

    heard = await asyncio.to_thread(listen)
    assert heard.startswith("id: ")
    await farm.until(lambda: len(watchers) == servers + 1)
    client.close()


@contextlib.asynccontextmanager
async def cutting_proxy(url: str, *, cuts: int, after_bytes: int) -> AsyncIterator[str]:
    """Passes connections on, and cuts the first ``cuts`` of them after some bytes of the answer."""
    port = int(url.rsplit(":", 1)[1])
    left = cuts

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: float = float("inf")
    ) -> None:
        passed = 0
        while passed < limit and (data := await reader.read(512)):
            passed += len(data)
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        limit = after_bytes if left > 0 else float("inf")
        left -= 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pump(reader, far_writer), pump(far_reader, writer, limit), return_exceptions=True
        )

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_events_are_taken_up_where_the_connection_broke(farm: Any, serve: Any, photo: Path) -> None:
    url = await serve(farm.app)
    direct = FarmClient(url, farm.token)
    job_id = (await asyncio.to_thread(direct.submit, [photo], OPTIONS))["id"]
    await farm.until_ended(job_id)
    wanted = await asyncio.to_thread(lambda: list(direct.events(job_id)))
    async with cutting_proxy(url, cuts=2, after_bytes=7000) as flaky_url:
        flaky = FarmClient(flaky_url, farm.token)
        assert await asyncio.to_thread(lambda: list(flaky.events(job_id))) == wanted
        flaky.close()
    direct.close()
    assert len(wanted) > 15


async def test_a_stream_that_breaks_again_and_again_is_given_up(
    farm: Any, serve: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.client.RECONNECT_S", 0.001)
    url = await serve(farm.app)
    async with cutting_proxy(url, cuts=100, after_bytes=0) as dead_url:
        client = FarmClient(dead_url, farm.token)
        with pytest.raises(CannotRun, match="was lost 6 times"):
            await asyncio.to_thread(lambda: list(client.events("job-000000000000")))
        client.close()


async def test_who_is_patient_hears_that_the_farm_is_gone_and_the_rest_when_it_is_back(
    farm: Any, serving: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.client.RECONNECT_S", 0.02)
    farm.coordinator.drain("near/cpu0")
    farm.coordinator.drain("near/cpu1")
    job_id = (await farm.submit(photo)).json()["id"]
    told: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(reason: str) -> None:
        loop.call_soon_threadsafe(told.put_nowait, reason)

    def follow(url: str) -> list[str]:
        with contextlib.closing(FarmClient(url, farm.token)) as client:
            heard = []
            for seq, event in client.events(job_id, lost=tell):
                if seq is not None:
                    heard.append(event["type"])
                    tell(event["type"])
            return heard

    async with serving(farm.app) as url:
        following = asyncio.ensure_future(asyncio.to_thread(follow, url))
        assert await told.get() == "job_submitted"
    assert await told.get() == f"the farm at {url} does not answer"
    farm.coordinator.cancel(job_id)
    async with serving(farm.app, int(url.rpartition(":")[2])):
        assert [await told.get(), await told.get()] == ["", "job_cancelled"]
        assert await following == ["job_submitted", "job_cancelled"]


async def test_a_file_whose_name_is_no_text_is_sent(
    farm: Any, serve: Any, photo: Path, tmp_path: Path
) -> None:
    named = Path(shutil.copy(photo, tmp_path / os.fsdecode(b"caf\xe9.png")))
    with contextlib.closing(FarmClient(await serve(farm.app), farm.token)) as client:
        planned = await asyncio.to_thread(client.plan, [named], OPTIONS)
    assert planned["plan"]["num_frames"] == 24


async def test_an_upload_over_the_cap_is_refused_with_its_reason(
    start_farm: Any, serve: Any, tmp_path: Path
) -> None:
    farm = await start_farm(max_upload_bytes=1 << 20)
    client = FarmClient(await serve(farm.app), farm.token)
    with (tmp_path / "large.mp4").open("wb") as file:
        file.write(b"\0\0\0\x18ftypmp42")
        file.truncate(32 << 20)
    with pytest.raises(TooLarge, match="larger than 1048576 bytes"):
        await asyncio.to_thread(client.submit, [tmp_path / "large.mp4"], OPTIONS)
    client.close()


async def test_what_the_farm_refuses_is_raised_as_its_own_error(farm: Any, serve: Any, photo: Path) -> None:
    client = FarmClient(await serve(farm.app), farm.token)

    def refused(call: Any, kind: type[FarmError]) -> FarmError:
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        return caught.value

    def use() -> None:
        assert (
            refused(lambda: client.submit([photo], {"model": "procedural", "seed": -1}), InvalidInput).param
            == "seed"
        )
        assert refused(lambda: client.plan([photo], {**OPTIONS, "mode": "refine"}), CannotRun).exit_code == 3
        assert refused(lambda: client.job("job-000000000000"), NotFound).param == "job_id"
        refused(lambda: list(client.events("job-000000000000")), NotFound)
        refused(lambda: client.job("../health?x=#"), NotFound)
        refused(lambda: client.drain("nowhere"), NotFound)
        refused(lambda: client.enable("near/nothing"), NotFound)
        refused(lambda: client.delete("job-000000000000"), NotFound)
        client.submit([photo], OPTIONS, idempotency_key="k")
        other = {**OPTIONS, "seed": 1}
        assert refused(lambda: client.submit([photo], other, idempotency_key="k"), Conflict).exit_code == 2
        refused(lambda: client.submit([photo.parent / "missing.png"], OPTIONS), InvalidInput)
        refused(lambda: client.submit([photo.parent], OPTIONS), InvalidInput)
        client.close()

    await asyncio.to_thread(use)


async def test_a_download_that_is_refused_leaves_no_file(
    start_farm: Any, serve: Any, photo: Path, tmp_path: Path
) -> None:
    farm = await start_farm(workers=())
    client = FarmClient(await serve(farm.app), farm.token)

    def use() -> None:
        job_id = client.submit([photo], OPTIONS)["id"]
        with pytest.raises(NotReady):
            client.download(job_id, "video.mp4", tmp_path / "got.mp4")
        client.close()

    await asyncio.to_thread(use)
    assert {p.name for p in tmp_path.iterdir()} == {"state"}


async def test_the_client_sends_its_token_and_joins_with_a_one_time_token(
    start_farm: Any, serve: Any
) -> None:
    farm = await start_farm(access="the-right-token", workers=())
    url = await serve(farm.app)

    def use() -> None:
        with contextlib.closing(FarmClient(url, "wrong")) as stranger:
            assert stranger.is_up()
            with pytest.raises(NotAllowed):
                list(stranger.jobs())
        with contextlib.closing(FarmClient(url, "the-right-token")) as owner:
            token = owner.join_token()
        with contextlib.closing(FarmClient(url)) as machine:
            assert machine.join(token, "attic")["ray_address"] == "10.0.0.1:6379"
            with pytest.raises(NotAllowed):
                machine.join(token, "attic")

    await asyncio.to_thread(use)


def test_no_farm_at_the_url_is_said_in_one_line(tmp_path: Path) -> None:
    with contextlib.closing(FarmClient("http://127.0.0.1:9")) as client:
        assert not client.is_up()
        for call in (lambda: list(client.jobs()), lambda: list(client.events("job-000000000000"))):
            with pytest.raises(CannotRun, match=r"no farm answers at http://127\.0\.0\.1:9; start one with"):
                call()


async def test_an_address_that_is_no_farm_is_said_so(serve: Any) -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            status = 200 if scope["path"].endswith("/jobs") else 500
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>hello"})

    client = FarmClient(await serve(other))
    for call in (lambda: list(client.jobs()), client.nodes):
        with pytest.raises(CannotRun, match="not as a farm does"):
            await asyncio.to_thread(call)
    client.close()


@pytest.mark.parametrize("url", ["", "farm", "ftp://farm", "http://", "http://a:b"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FarmClient(url)
    assert caught.value.param == "url"


def test_a_token_with_foreign_characters_is_refused() -> None:
    for token in ("tök", "a\nb", "a\r\nX: y"):
        with pytest.raises(NotAllowed):
            FarmClient("http://127.0.0.1:9", token)


async def test_jobs_are_fetched_page_by_page(
    start_farm: Any, serve: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.client.PAGE_LIMIT", 2)
    farm = await start_farm(workers=())
    ids = [(await farm.submit(photo, seed=seed)).json()["id"] for seed in range(5)]
    client = FarmClient(await serve(farm.app), farm.token)
    assert [job["id"] for job in await asyncio.to_thread(lambda: list(client.jobs()))] == ids[::-1]
    client.close()


async def test_a_login_link_leads_to_the_page_of_this_farm_that_logs_in(start_farm: Any, serve: Any) -> None:
    farm = await start_farm(workers=())
    url = await serve(farm.app)
    client = FarmClient(f"{url}/", farm.token)
    page, _, key = (await asyncio.to_thread(client.login_link)).partition("#key=")
    assert page == f"{url}/login"
    elsewhere = await asyncio.to_thread(client.login_link, "https://farm.example.org/")
    assert elsewhere.startswith("https://farm.example.org/login#key=")
    assert (await farm.http.post("/api/v1/session", json={"key": key})).status_code == 200
    client.close()


async def test_a_sound_goes_with_a_job_and_names_that_are_no_text_are_sent(
    start_farm: Any, serve: Any, photo: Path, tmp_path: Path
) -> None:
    farm = await start_farm()
    client = FarmClient(await serve(farm.app), farm.token)
    named = tmp_path / os.fsdecode(b"caf\xe9.png")
    named.write_bytes(photo.read_bytes())
    song = tmp_path / os.fsdecode(b"ch\xe6ur.wav")
    with wave.open(str(song), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16_000))

    def use() -> dict[str, Any]:
        job_id = client.submit([named], OPTIONS | {"audio": song})["id"]
        told = client.report(job_id)
        client.close()
        return told

    told = await asyncio.to_thread(use)
    assert told["settings"]["sound"]["codec"] == "aac"
    assert "the sound is encoded anew as AAC, for mp4 takes no pcm_s16le" in told["notes"]


@pytest.mark.parametrize(
    ("url", "checked"),
    [("http://farm:8470", False), ("https://farm:8470", True), ("HTTPS://farm:8470", True)],
)
def test_a_certificate_is_checked_wherever_there_is_one(
    monkeypatch: pytest.MonkeyPatch, url: str, checked: bool
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr("farm.client.httpx2.Client", lambda **options: made.append(options))
    FarmClient(url)
    assert [options["verify"] for options in made] == [checked]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("192.168.1.10:8470", "http://192.168.1.10:8470"),
        ("[fd00::5]:8470", "http://[fd00::5]:8470"),
        ("http://attic.lan:8470/", "http://attic.lan:8470"),
        ("https://farm.example.org", "https://farm.example.org"),
    ],
)
def test_a_farm_is_named_by_its_url_or_by_host_and_port(address: str, url: str) -> None:
    with contextlib.closing(FarmClient(address)) as client:
        assert client.url == url
