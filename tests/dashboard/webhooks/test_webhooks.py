"""Other programs are told in order, signed, again until they take it; never at addresses of the cloud."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from dashboard.doors_store import open_store
from dashboard.webhooks import sending
from dashboard.webhooks.routes import EVENT_TYPES
from dashboard.webhooks.sending import (
    GIVE_UP_S,
    RETRY_AFTER_S,
    Answer,
    Webhooks,
    after_delivery,
    check_url,
    next_delivery,
    refused_address,
)
from dashboard.webhooks.store import KEPT_DELIVERIES, Delivery, Webhook, WebhookStore
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun, InvalidInput
from farm.state.events import Event, WorkerJoined, WorkerLeft
from farm.state.journal import Journal
from farm.state.ledger import Ledger

# What is decided.


@pytest.mark.parametrize(
    ("attempts", "failing_for_s", "wait_s"),
    [
        (1, 0.0, RETRY_AFTER_S[0]),
        (2, 5.0, RETRY_AFTER_S[1]),
        (len(RETRY_AFTER_S), 6000.0, RETRY_AFTER_S[-1]),
        (50, 100_000.0, RETRY_AFTER_S[-1]),
        (75, GIVE_UP_S - 1, RETRY_AFTER_S[-1]),
        (75, GIVE_UP_S, None),
    ],
)
def test_a_failing_receiver_is_asked_less_and_less_often_and_then_never(
    attempts: int, failing_for_s: float, wait_s: float | None
) -> None:
    now = 1_000_000.0
    found = next_delivery(attempts, now - failing_for_s, now)
    assert found == (None if wait_s is None else now + wait_s)


WEBHOOK = Webhook(id="wh_1", url="http://a/", events=("job_failed",), description="", created_at=0, cursor=7)


def test_a_taken_message_moves_the_place_and_forgives_the_failures() -> None:
    failing = replace(WEBHOOK, attempts=3, failing_since=50.0, next_at=90.0)
    assert after_delivery(failing, 9, Answer(204, "", 0.1), 100.0) == replace(WEBHOOK, cursor=9)


@pytest.mark.parametrize(
    "answer", [Answer(500, "no", 0.1), Answer(None, "refused", 0.1), Answer(302, "no", 0)]
)
def test_a_message_that_was_not_taken_stays_the_next(answer: Answer) -> None:
    found = after_delivery(WEBHOOK, 9, answer, 100.0)
    assert found == replace(WEBHOOK, attempts=1, failing_since=100.0, next_at=105.0)


def test_a_webhook_is_disabled_by_gone_and_by_days_of_failure() -> None:
    assert "410" in (after_delivery(WEBHOOK, 9, Answer(410, "gone", 0.1), 100.0).disabled_because or "")
    failing = replace(WEBHOOK, attempts=90, failing_since=1.0)
    said = after_delivery(failing, 9, Answer(500, "the receiver answered 500", 0.1), GIVE_UP_S + 2)
    assert said.disabled_because == "91 attempts failed over 3 days; the last: the receiver answered 500"
    assert said.cursor == 7


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
    ],
)
def test_nothing_is_sent_to_link_local_or_metadata_addresses(address: str) -> None:
    assert refused_address(address)
    if "%" not in address:
        host = f"[{address}]" if ":" in address else address
        with pytest.raises(InvalidInput, match="no address for a receiver"):
            check_url(f"http://{host}/hook")


@pytest.mark.parametrize("address", ["127.0.0.1", "192.168.1.20", "10.0.0.2", "8.8.8.8", "::1", "fd12::1"])
def test_receivers_of_this_network_are_fine(address: str) -> None:
    assert refused_address(address) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a/",
        "file:///etc/passwd",
        "http://",
        "http://u:p@a/",
        "https://a/#x",
        "http://a:0/",
        "http://[x",
        "http://a b/",
        "http://a/\nx",
        "javascript:alert(1)",
        "http://a:99999/",
        "http://ä/",
        # Read as 127.0.0.1 by some, and by others not at all.
        "http://0177.0.0.1/",
        "http://0x7f.0.0.1/",
        "http://2130706433/",
        "http://127.1/",
        "http://1.2.3.4.5/",
        "http://receiver.0x10/",
        "http://999.1.1.1/",
        "http://a..b/",
        "http://-a.example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 130 + "example/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="url: "):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example./x",
        "http://receiver_1:8080/",
        "http://a/",
        "http://[::1]:80/",
        "http://7up.example/",
    ],
)
def test_a_name_or_an_address_is_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize("url", ["http://0177.0.0.1:1/", "http://" + "a" * 64 + ".example/"])
async def test_an_address_that_nobody_can_read_is_a_failed_delivery(url: str) -> None:
    answer = await sending._timed(lambda: sending._post(url, {}, b""))
    assert answer.status is None
    assert answer.error


def test_every_event_of_the_farm_can_be_asked_for() -> None:
    events = get_args(get_args(Event)[0])
    assert {event.model_fields["type"].default for event in events} == set(EVENT_TYPES)


# A real receiver.


@dataclass
class Receiver:
    """Takes messages on loopback; ``answers`` are given first, then 204."""

    url: str = ""
    answers: list[bytes] = field(default_factory=list)
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.messages]

    def seqs(self) -> list[int]:
        return [json.loads(body)["data"]["seq"] for _, body in self.messages]


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            # What is signed is not lower case.
            headers["webhook-signature"] = next(
                line.split(": ", 1)[1] for line in head if line.lower().startswith("webhook-signature")
            )
            body = await reader.readexactly(int(headers["content-length"]))
            receiver.messages.append((headers, body))
            answer = receiver.answers.pop(0) if receiver.answers else b"HTTP/1.1 204 No Content\r\n\r\n"
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", port)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield receiver


def verify(secret: str, headers: dict[str, str], body: bytes) -> None:
    """As a receiver does it, by the text of the specification."""
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    digest = hmac.new(base64.b64decode(secret.split("_", 1)[1]), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@dataclass
class Here:
    ledger: Ledger
    webhooks: Webhooks

    def happen(self, times: int = 1) -> None:
        """Two events each time."""
        worker = Worker(id="a/0", node="a", kind="cpu", device_name="CPU", vram_bytes=GIB)
        for _ in range(times):
            self.ledger.record(WorkerJoined(worker=worker))
            self.ledger.record(WorkerLeft(worker_id="a/0", reason="again"))


@asynccontextmanager
async def delivering(folder: Path) -> AsyncIterator[Here]:
    journal = Journal(folder / "journal.sqlite")
    db = open_store(folder / "doors.sqlite")
    ledger = Ledger(journal)
    ledger.replay()
    webhooks = Webhooks(WebhookStore(db), ledger)
    running = asyncio.ensure_future(webhooks.run())
    try:
        yield Here(ledger, webhooks)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        journal.close()
        db.close()


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not fact():
            await asyncio.sleep(0.01)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of minutes would take minutes."""
    monkeypatch.setattr(sending, "POLL_S", 0.01)
    monkeypatch.setattr(sending, "RETRY_AFTER_S", (0.01,))


@pytest.mark.usefixtures("soon")
async def test_what_was_asked_for_arrives_in_order_signed_and_nothing_else(tmp_path: Path) -> None:
    async with receiving() as receiver, delivering(tmp_path) as here:
        here.happen()
        _, secret = here.webhooks.create(receiver.url, ("worker_left",), "")
        here.happen(3)
        await until(lambda: len(receiver.messages) >= 3)
        assert receiver.seqs() == [4, 6, 8]
        for headers, body in receiver.messages:
            verify(secret, headers, body)
            message = json.loads(body)
            assert set(message) == {"type", "timestamp", "data"}
            assert message["type"] == message["data"]["type"] == "worker_left"
            assert message["timestamp"].endswith("Z")
            assert headers["content-type"] == "application/json"


@pytest.mark.usefixtures("soon")
async def test_a_message_that_is_refused_comes_again_with_the_same_id_before_the_next(tmp_path: Path) -> None:
    async with receiving() as receiver, delivering(tmp_path) as here:
        receiver.answers = [
            b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            b"",  # hangs up
        ]
        webhook, _ = here.webhooks.create(receiver.url, ("worker_left",), "")
        here.happen(2)
        await until(lambda: here.webhooks.store.get(webhook.id).cursor == 4)
        assert receiver.seqs() == [2, 2, 2, 2, 4]
        assert len(set(receiver.ids())) == 2
        found = here.webhooks.store.deliveries(webhook.id, 50)
        assert [d.status for d in found] == [204, 204, None, 302, 500]
        assert [d.attempt for d in found] == [1, 4, 3, 2, 1]
        assert [bool(d.error) for d in found] == [False, False, True, True, True]


@pytest.mark.usefixtures("soon")
async def test_what_was_not_delivered_is_delivered_after_a_restart(tmp_path: Path) -> None:
    async with receiving() as receiver:
        port = int(receiver.url.split(":")[2].split("/")[0])
    async with delivering(tmp_path) as here:  # nobody listens
        webhook, secret = here.webhooks.create(receiver.url, ("worker_left",), "")
        here.happen(2)
        await until(lambda: here.webhooks.store.get(webhook.id).attempts >= 2)
    async with receiving(port) as receiver, delivering(tmp_path) as here:
        here.happen()
        await until(lambda: here.webhooks.store.get(webhook.id).cursor == 6)
        assert receiver.seqs() == [2, 4, 6]
        verify(secret, *receiver.messages[0])
    async with receiving(port) as receiver, delivering(tmp_path) as here:
        here.happen()
        await until(lambda: receiver.messages)
        assert receiver.seqs() == [8], "what was taken does not come again"


@pytest.mark.usefixtures("soon")
async def test_the_store_is_not_closed_while_a_delivery_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_end = threading.Event(), threading.Event()

    def slow_note(self: WebhookStore, webhook_id: str, delivery: Delivery) -> None:
        writing.set()
        may_end.wait(20)

    monkeypatch.setattr(WebhookStore, "note", slow_note)
    async with receiving() as receiver, delivering(tmp_path) as here:
        here.webhooks.create(receiver.url, ("worker_left",), "")
        here.happen()
        await asyncio.to_thread(writing.wait, 20)
        running = next(task for task in asyncio.all_tasks() if "Webhooks.run" in str(task.get_coro()))
        running.cancel()
        ended, _ = await asyncio.wait({running}, timeout=0.2)
        assert not ended, "it waits for what is being written"
        may_end.set()
        await asyncio.wait({running}, timeout=20)
        assert running.done()


@pytest.mark.usefixtures("soon")
async def test_a_full_disk_does_not_flood_the_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise CannotRun("doors.sqlite cannot be written (disk full)")

    async with receiving() as receiver, delivering(tmp_path) as here:
        here.webhooks.create(receiver.url, ("worker_left",), "")
        monkeypatch.setattr(here.webhooks.store, "note", full)
        here.happen()
        await until(lambda: receiver.messages)
        await asyncio.sleep(0.3)  # time for some thirty more
        assert len(receiver.messages) == 1


@pytest.mark.usefixtures("soon")
async def test_a_receiver_that_hangs_or_talks_without_end_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.2)

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)
        writer.close()  # Python 3.13 closes it as soon as nobody has it any more

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}/"
    async with receiving() as receiver, delivering(tmp_path) as here:
        receiver.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(100_000)]
        slow, _ = here.webhooks.create(url, ("worker_left",), "")
        here.webhooks.create(receiver.url, ("worker_left",), "")
        here.happen(2)
        await until(lambda: len(receiver.messages) == 2)
        await until(lambda: here.webhooks.store.deliveries(slow.id, 1))
        assert "no answer within" in here.webhooks.store.deliveries(slow.id, 1)[0].error
    hanging.close()


@pytest.mark.usefixtures("soon")
async def test_a_name_that_leads_to_a_refused_address_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with delivering(tmp_path) as here:

        async def rebound(host: str, port: int, **_: Any) -> Any:
            return [(2, 1, 6, "", ("169.254.169.254", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
        webhook, _ = here.webhooks.create("http://innocent.example/", ("worker_left",), "")
        delivery = await here.webhooks.test(webhook.id)
        assert delivery.status is None
        assert "no address for a receiver" in delivery.error


@pytest.mark.usefixtures("soon")
async def test_a_disabled_webhook_is_silent_until_it_is_enabled_and_then_misses_nothing(
    tmp_path: Path,
) -> None:
    async with receiving() as receiver, delivering(tmp_path) as here:
        receiver.answers = [b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"]
        webhook, _ = here.webhooks.create(receiver.url, ("worker_left",), "")
        here.happen(2)
        await until(lambda: here.webhooks.store.get(webhook.id).disabled_because)
        await asyncio.sleep(0.1)
        assert receiver.seqs() == [2]
        here.webhooks.enable(webhook.id)
        await until(lambda: len(receiver.messages) >= 3)
        assert receiver.seqs() == [2, 2, 4]


def test_old_deliveries_are_forgotten(tmp_path: Path) -> None:
    db = open_store(tmp_path / "doors.sqlite")
    store = WebhookStore(db)
    store.add(WEBHOOK, "whsec_AA==")
    for number in range(KEPT_DELIVERIES + 10):
        store.note("wh_1", Delivery("m", "test", number, 1, 0.0, 204, "", 0.1))
    found = store.deliveries("wh_1", 1000)
    assert [d.seq for d in found] == list(range(KEPT_DELIVERIES + 9, 9, -1))
    db.close()


# The routes.


async def test_a_webhook_is_made_tried_listed_and_removed(farm: Any) -> None:
    async with receiving() as receiver:
        wanted = {"url": receiver.url, "events": ["job_published", "job_published"], "description": "mine"}
        made = await farm.http.post("/api/v1/webhooks", json=wanted)
        assert made.status_code == 201, made.text
        webhook = made.json()
        secret = webhook.pop("secret")
        assert webhook["events"] == ["job_published"]
        address = f"/api/v1/webhooks/{webhook['id']}"
        listed = await farm.http.get("/api/v1/webhooks")
        assert listed.json() == {"data": [webhook], "next_cursor": None}
        assert secret not in listed.text
        tried = (await farm.http.post(f"{address}/test")).json()
        assert (tried["status"], tried["type"], tried["error"]) == (204, "test", "")
        verify(secret, *receiver.messages[0])
        assert (await farm.http.get(f"{address}/deliveries")).json()["data"] == [tried]
        assert (await farm.http.delete(address)).status_code == 204
        for what in ("", "/deliveries"):
            assert (await farm.http.get(address + what)).status_code == 404
        assert (await farm.http.delete(address)).status_code == 404


@pytest.mark.parametrize(
    "wanted",
    [
        {"url": "http://169.254.169.254/latest"},
        {"url": "gopher://a"},
        {"url": "http://a/", "events": ["job_exploded"]},
        {"url": "http://a/", "events": []},
        {},
    ],
)
async def test_a_webhook_that_cannot_be_is_refused(farm: Any, wanted: dict[str, Any]) -> None:
    answer = await farm.http.post("/api/v1/webhooks", json=wanted)
    assert answer.status_code == 400
    assert (await farm.http.get("/api/v1/webhooks")).json()["data"] == []
