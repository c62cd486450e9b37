"""What happens on the farm reaches everybody who watches: in order, each event once, whatever happens."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dashboard.live import feed as feed_module
from dashboard.live import snapshots
from dashboard.live.event_stream import event_message, stored_events
from dashboard.live.feed import Feed
from dashboard.server import serve as serve_farm
from farm.capabilities.worker import GIB, Worker
from farm.state.events import JobSubmitted, WorkerJoined, WorkerLeft
from farm.state.journal import Journal
from farm.state.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield Ledger(journal)
    journal.close()


def come_and_go(ledger: Ledger, times: int) -> None:
    """Record two events for each time."""
    worker = Worker(id="a/0", node="a", kind="cpu", device_name="CPU", vram_bytes=GIB)
    for _ in range(times):
        ledger.record(WorkerJoined(worker=worker))
        ledger.record(WorkerLeft(worker_id="a/0", reason="again"))


def parsed(text: str) -> list[dict[str, Any]]:
    """Messages as {"event", "id", "data"}; comments and bare ids are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
        message: dict[str, Any] = {name: value for name, value in lines}
        if "data" in message:
            found.append({**message, "data": json.loads(message["data"])})
    return found


def ids(messages: list[dict[str, Any]]) -> list[int]:
    return [int(message["id"]) for message in messages if "id" in message]


async def begun(stream: Any) -> Any:
    """The stream, past its greeting: from here on it hears everything."""
    assert (await anext(stream)).startswith(b"retry: ")
    return stream


async def read(stream: AsyncIterator[bytes], until: Callable[[list[dict[str, Any]]], bool]) -> Any:
    """The messages of a stream up to the one with which ``until`` is content."""
    text = ""
    async for chunk in stream:
        text += chunk.decode()
        if until(messages := parsed(text)):
            return messages
    return parsed(text)


async def read_to(stream: AsyncIterator[bytes], last_id: int) -> Any:
    return await asyncio.wait_for(read(stream, lambda seen: last_id in ids(seen)), 20)


async def test_a_watcher_hears_what_comes_once_each_and_in_order(ledger: Ledger) -> None:
    come_and_go(ledger, 3)
    stream = await begun(Feed(ledger).messages())
    come_and_go(ledger, 10)
    messages = await read_to(stream, 26)
    assert ids(messages) == list(range(7, 27))
    assert messages[0]["event"] == "worker_joined"
    assert messages[0]["data"]["worker"]["id"] == "a/0"
    assert isinstance(messages[0]["data"]["at"], float)


async def test_a_watcher_that_comes_back_gets_what_it_missed_and_nothing_twice(ledger: Ledger) -> None:
    feed = Feed(ledger)
    come_and_go(ledger, 800)  # more than is read of the journal at a time
    async with aclosing(await begun(feed.messages())):  # keeps frames
        come_and_go(ledger, 5)
        watching = asyncio.ensure_future(read_to(feed.messages(after=3), 1620))
        await asyncio.sleep(0.15)
        come_and_go(ledger, 5)
        assert ids(await watching) == list(range(4, 1621))


async def test_an_event_known_from_elsewhere_is_not_said_again(ledger: Ledger) -> None:
    feed = Feed(ledger)
    async with aclosing(await begun(feed.messages())):
        come_and_go(ledger, 2)
        # The page has loaded 3 of the 4 events, none of which was sent yet.
        stream = await begun(feed.messages(after=3))
        come_and_go(ledger, 1)
        assert ids(await read_to(stream, 6)) == [4, 5, 6]


async def test_a_watcher_too_slow_for_the_kept_frames_loses_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 2000)
    monkeypatch.setattr(feed_module, "FRAME_INTERVAL_S", 0.01)
    feed = Feed(ledger)
    async with aclosing(feed.messages()) as slow:
        text = (await anext(slow)).decode()
        for _ in range(20):
            come_and_go(ledger, 5)
            await asyncio.sleep(0.02)
        async for chunk in slow:
            text += chunk.decode()
            if 200 in ids(parsed(text)):
                break
        assert ids(parsed(text)) == list(range(1, 201))


async def test_all_watchers_are_sent_the_same_bytes(ledger: Ledger) -> None:
    feed = Feed(ledger)
    async with aclosing(await begun(feed.messages())) as one, aclosing(await begun(feed.messages())) as other:
        waiting = [asyncio.ensure_future(anext(stream)) for stream in (one, other)]
        await asyncio.sleep(0.05)
        come_and_go(ledger, 1)
        assert await waiting[0] is await waiting[1]


async def test_a_number_of_another_journal_is_answered_with_reset(ledger: Ledger) -> None:
    come_and_go(ledger, 1)
    stream = await begun(Feed(ledger).messages(after=700))
    come_and_go(ledger, 1)
    messages = await read_to(stream, 4)
    assert messages[0]["event"] == "reset"
    assert ids(messages) == [3, 4]


def forget(ledger: Ledger, up_to: int) -> None:
    """As a compaction does."""
    ledger.journal.compact(up_to, up_to, {})
    ledger.journal.forget(range(1, up_to + 1))


async def test_a_number_that_is_too_old_for_all_to_be_told_is_answered_with_reset(ledger: Ledger) -> None:
    come_and_go(ledger, 10)
    forget(ledger, 12)
    feed = Feed(ledger)
    assert ids(await read_to(await begun(feed.messages(after=12)), 20)) == list(range(13, 21))
    stream = await begun(feed.messages(after=11))
    come_and_go(ledger, 1)
    messages = await read_to(stream, 22)
    assert messages[0]["event"] == "reset"
    assert ids(messages) == [21, 22], "it goes on from now: everything is loaded anew"


async def test_a_slow_watcher_is_told_that_what_it_has_not_read_is_gone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 2000)
    monkeypatch.setattr(feed_module, "FRAME_INTERVAL_S", 0.01)
    feed = Feed(ledger)
    async with aclosing(feed.messages()) as slow:
        await anext(slow)
        for _ in range(20):
            come_and_go(ledger, 5)
            await asyncio.sleep(0.02)
        forget(ledger, 50)
        assert parsed((await anext(slow)).decode())[0]["event"] == "reset"
        come_and_go(ledger, 1)
        assert ids(await read_to(slow, 202)) == [201, 202], "it goes on: everything is loaded anew"


async def test_a_stored_event_reads_the_same_as_a_fresh_one(farm: Any, photo: Path) -> None:
    job_id = (await farm.submit(photo)).json()["id"]
    await farm.until_ended(job_id)
    ledger = farm.coordinator.ledger
    job, journal = ledger.job(job_id), ledger.journal
    beside = dict.fromkeys(("audio", "mask"), job.request.inputs[0]) | {"references": job.request.inputs}
    request = job.request.model_copy(update=beside)
    assert str(farm.state_dir) in request.model_dump_json()
    ledger.record(JobSubmitted(job_id="job-0123456789ab", request=request, plan=job.plan))
    stored = stored_events(journal.path, after=0, until=10_000, limit=10_000)
    for event, (seq, at, value) in zip(stored, journal.events(), strict=True):
        assert event.message() == event_message(seq, at, value)
    text = b"".join(event.message() for event in stored).decode()
    assert str(farm.state_dir) not in text
    submitted = next(m for m in parsed(text) if m["event"] == "job_submitted")
    assert "plan" not in submitted["data"]
    assert submitted["data"]["request"]["num_frames"] == 24


async def test_jobs_and_workers_are_shown_as_they_change_and_go(
    farm: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FRAME_INTERVAL_S", 0.0)
    monkeypatch.setattr(snapshots, "INTERVAL_S", 0.0)
    feed = farm.app.state.feed

    def over(seen: list[dict[str, Any]]) -> bool:
        ended = any(m["event"] == "job" and m["data"]["status"] == "succeeded" for m in seen)
        return ended and any(m["event"] == "worker_gone" for m in seen)

    watching = asyncio.ensure_future(read(await begun(feed.messages()), over))
    job_id = (await farm.submit(photo, num_frames=48)).json()["id"]
    await farm.until_ended(job_id)
    await farm.cluster.release("near/cpu1")
    messages = await asyncio.wait_for(watching, 20)
    jobs = [m["data"] for m in messages if m["event"] == "job"]
    assert {job["id"] for job in jobs} == {job_id}
    assert jobs[-1] == (await farm.http.get(f"/api/v1/jobs/{job_id}")).json()
    workers = [m for m in messages if m["event"] == "worker"]
    assert {m["data"]["id"] for m in workers} == {"near/cpu0", "near/cpu1"}
    assert any(m["data"]["tasks"] for m in workers)
    assert [m["data"] for m in messages if m["event"] == "worker_gone"] == [{"id": "near/cpu1"}]
    assert all("id" not in m for m in messages if m["event"] in ("job", "worker", "worker_gone"))


async def test_a_watcher_of_one_job_hears_of_no_other(farm: Any, photo: Path) -> None:
    feed = farm.app.state.feed
    wanted = (await farm.submit(photo, seed=1)).json()["id"]
    await farm.until_ended(wanted)
    other = (await farm.submit(photo, seed=2)).json()["id"]
    await farm.until_ended(other)
    ledger = farm.coordinator.ledger
    numbers = [seq for seq, _, _ in ledger.journal.events(job_id=wanted)]
    messages = await read_to(feed.messages(after=0, job_id=wanted), numbers[-1])
    assert ids(messages) == numbers
    answer = await farm.http.get("/api/v1/events", params={"job_id": "job-000000000000"})
    assert answer.status_code == 404


async def test_who_comes_back_is_shown_how_a_job_ended_meanwhile(farm: Any, photo: Path) -> None:
    ledger, feed = farm.coordinator.ledger, farm.app.state.feed
    before = ledger.last_seq
    job_id = (await farm.submit(photo)).json()["id"]
    await farm.until_ended(job_id)

    def shown(seen: list[dict[str, Any]]) -> bool:
        return any(m["event"] == "job" and m["data"]["status"] == "succeeded" for m in seen)

    async with aclosing(feed.messages(after=before)) as from_the_journal:
        await asyncio.wait_for(read(from_the_journal, shown), 20)
        async with aclosing(feed.messages(after=before)) as again:
            await asyncio.wait_for(read(again, shown), 20)


async def test_without_watchers_the_feed_does_not_work(ledger: Ledger) -> None:
    feed = Feed(ledger)
    async with aclosing(await begun(feed.messages())):
        assert (feed.num_watchers, len(ledger._watchers)) == (1, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (feed.num_watchers, len(ledger._watchers)) == (0, 0)


async def test_silence_is_broken_now_and_then(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "HEARTBEAT_S", 0.01)
    async with aclosing(Feed(ledger).messages(job_id="any")) as stream:
        assert (await anext(stream)).startswith(b"retry: 1000\nid: 0\n")
        assert await asyncio.wait_for(anext(stream), 5) == b": still here\n\n"


# Over a real connection.


@asynccontextmanager
async def served(farm: Any) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """The farm's own server on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = asyncio.ensure_future(serve_farm(farm.app, "127.0.0.1", port))
    url = f"http://127.0.0.1:{port}/api/v1"
    async with httpx2.AsyncClient(trust_env=False) as http:
        while True:
            try:
                await http.get(f"{url}/health")
                break
            except httpx2.ConnectError:
                await asyncio.sleep(0.02)
    try:
        yield url, serving
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def test_open_streams_end_with_the_server_and_go_on_with_the_next(farm: Any, photo: Path) -> None:
    ledger = farm.coordinator.ledger
    first = ledger.last_seq
    async with httpx2.AsyncClient(headers=farm.bearer, trust_env=False, timeout=20) as http:
        async with served(farm) as (url, serving), http.stream("GET", f"{url}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            stream = answer.aiter_bytes()
            await anext(stream)
            await farm.until_ended((await farm.submit(photo)).json()["id"])
            middle = ledger.last_seq
            before = await read_to(stream, middle)
            serving.cancel()
            await asyncio.wait_for(asyncio.wait({serving}), 10)
            async for _ in stream:  # ends, and is not cut off
                pass
        await farm.until_ended((await farm.submit(photo, seed=5)).json()["id"])
        farm.app.state.feed.__init__(ledger)  # another server
        last = ledger.last_seq
        async with (
            served(farm) as (url, _),
            http.stream("GET", f"{url}/events?after=1", headers={"Last-Event-ID": str(middle)}) as answer,
        ):
            after = await read_to(answer.aiter_bytes(), last)
    assert ids(before) == list(range(first + 1, middle + 1))
    assert ids(after) == list(range(middle + 1, last + 1))


async def test_a_stream_of_a_reader_that_went_away_is_let_go(farm: Any) -> None:
    feed = farm.app.state.feed
    async with served(farm) as (url, _):
        async with (
            httpx2.AsyncClient(headers=farm.bearer, trust_env=False) as http,
            http.stream("GET", f"{url}/events") as answer,
        ):
            await anext(answer.aiter_bytes())
            assert feed.num_watchers == 1
        await farm.until(lambda: feed.num_watchers == 0)
