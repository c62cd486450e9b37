"""Both ends of a worker's connection, and guests who misbehave: nobody but the worker that is expected is let
in, and nothing that it was not given can be answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.model_files import Manifest, ModelFile, ModelHeld, Source
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from farm.planning.render_task import RenderTask
from farm.running.cluster import Blob, Failed, Finished, Order, Progress
from farm.state.workers import Telemetry
from nodes.link import frames, listener
from nodes.link.frames import framed, new_nonce, proof
from nodes.link.listener import Connection, LinkBroken, Listener, Misbehaved
from nodes.link.messages import SaidBring, SaidModels, max_content_bytes, max_handover_bytes
from nodes.link.worker_end import WorkerEnd, connect

WORKER = Worker(id="attic/cpu0", node="attic", kind="cpu", device_name="CPU", vram_bytes=GIB)
TASK = RenderTask(
    model="m", frame_indices=(0, 1), shot_start=0, shot_end=2, height=16, width=16, fps=8,
    num_inference_steps=1, guidance_scale=1, seed=1,
)  # fmt: skip
ATTEMPT = "job-1/s0/1"
HASH = "0" * 64
FINISHED: dict[str, Any] = {
    "type": "finished", "attempt_id": ATTEMPT, "content_bytes": 3, "handover_bytes": None, "num_frames": 2,
    "frames_sha256": HASH, "content_sha256": HASH, "handover_sha256": None,
    "wall_s": 1.0, "load_s": 0.0, "peak_bytes": None, "log": "",
}  # fmt: skip


def order(**inputs: Blob) -> Order:
    return Order(
        attempt_id=ATTEMPT, worker_id=WORKER.id, task=TASK, rung="resident", need_bytes=1, inputs=dict(inputs)
    )


@pytest.fixture
async def door() -> AsyncIterator[Listener]:
    door = Listener()
    await door.open("127.0.0.1")
    yield door
    await door.close()


class Guest:
    """Speaks the protocol byte by byte, and then says what it likes."""

    def __init__(self, door: Listener, secret: str) -> None:
        self.connection = socket.create_connection((door.host, door.port), 10)
        nonce = json.loads(self.read())["nonce"]
        ours = new_nonce()
        shown = proof(secret, "worker", WORKER.id, nonce, ours)
        self.say({"worker_id": WORKER.id, "nonce": ours, "proof": shown})
        self.read()

    def introduce(self) -> None:
        self.say({"type": "worker", "worker": WORKER.model_dump()})

    def say(self, message: Any, payload: bytes = b"") -> None:
        self.raw(framed(json.dumps(message).encode()) + payload)

    def raw(self, content: bytes) -> None:
        self.connection.sendall(content)

    def read(self) -> bytes:
        length = int.from_bytes(self.connection.recv(4, socket.MSG_WAITALL), "big")
        return self.connection.recv(length, socket.MSG_WAITALL)


async def guest_of(door: Listener) -> tuple[Guest, Connection]:
    secret, connected = door.expect(WORKER.id, same_machine=True)
    guest = await asyncio.to_thread(Guest, door, secret)
    return guest, await connected


async def end_of(connection: Connection) -> tuple[list[Any], LinkBroken]:
    """What was heard, and how the connection ended."""
    heard = []
    try:
        async for message in connection.heard():
            heard.append(message)
    except LinkBroken as ended:
        connection.close()
        return heard, ended
    raise AssertionError("it has no end")


async def served(
    door: Listener, begin: Callable[[WorkerEnd, Order], None], *, same_machine: bool = True
) -> tuple[WorkerEnd, Connection, list[str]]:
    """A real worker's end in a thread, which introduces itself and hands its orders to ``begin``."""
    secret, connected = door.expect(WORKER.id, same_machine=same_machine)
    end = await asyncio.to_thread(connect, door.host, door.port, WORKER.id, secret)
    cancelled: list[str] = []
    end.introduce(WORKER)
    threading.Thread(target=end.serve, args=(lambda o: begin(end, o), cancelled.append), daemon=True).start()
    return end, await connected, cancelled


async def test_an_order_goes_out_and_progress_device_and_result_come_back(door: Listener) -> None:
    content, handover = b"v" * 1500, b"h" * 40
    finished = Finished(
        ATTEMPT,
        memoryview(content),
        memoryview(handover),
        2,
        HASH,
        content_sha256="c" * 64,
        handover_sha256="d" * 64,
        wall_s=2.0,
        load_s=0.5,
        peak_bytes=7,
        log="l",
    )
    wanted = order().model_copy(update={"task": TASK.model_copy(update={"handover_index": 1})})

    def begin(end: WorkerEnd, given: Order) -> None:
        assert given == wanted
        assert end.telemetry_interval_s == 10.0, "as the coordinator of ten thousand says"
        end.tell(Progress(ATTEMPT, "denoise", 1, 4))
        end.tell(Progress(ATTEMPT, "denoise", 2, 4))  # a moment later, which nobody needs of ten thousand
        end.tell(Progress(ATTEMPT, "decode", 0, 1))
        end.tell_device(Telemetry(WORKER.id, load=0.5, memory_used_bytes=9))
        end.tell(finished)
        end.tell(Failed(ATTEMPT, "error", "again", "log"))
        end.close()

    _, connection, _ = await served(door, begin)
    connection.order(wanted, num_workers=10_000)
    heard, _ = await end_of(connection)
    assert heard == [
        WORKER,
        Progress(ATTEMPT, "denoise", 1, 4),
        Progress(ATTEMPT, "decode", 0, 1),
        Telemetry(WORKER.id, load=0.5, memory_used_bytes=9),
        finished,
        Failed(ATTEMPT, "error", "again", "log"),
    ]


async def test_an_input_is_fetched_by_a_worker_elsewhere_and_a_cancel_reaches_it(
    door: Listener, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 10_000
    path = tmp_path / "blob"
    path.write_bytes(content)
    blob = Blob(sha256=hashlib.sha256(content).hexdigest(), path=path)
    missing = Blob(sha256=HASH, path=tmp_path / "gone")

    def begin(end: WorkerEnd, given: Order) -> None:
        def work() -> None:
            assert not end.same_machine
            assert bytes(end.fetch(blob.sha256)) == content
            with pytest.raises(OSError, match="no more"):
                end.fetch(HASH)
            assert bytes(end.fetch(blob.sha256)) == content
            end.tell(Failed(ATTEMPT, "cancelled", "fetched"))

        threading.Thread(target=work, daemon=True).start()

    _, connection, cancelled = await served(door, begin, same_machine=False)
    connection.order(order(image=blob, video=missing))
    connection.cancel("job-1/s0/9")
    heard = connection.heard()
    assert await anext(heard) == WORKER
    assert await anext(heard) == Failed(ATTEMPT, "cancelled", "fetched")
    assert cancelled == ["job-1/s0/9"]
    connection.close()


async def test_a_worker_learns_what_its_orders_model_is_made_of_and_who_gives_it(
    door: Listener,
) -> None:
    file = ModelFile(path="unet/w.safetensors", size_bytes=3, pieces=(HASH,))
    manifest, source = Manifest(key="m@c0ffee", files=(file,)), Source(host="10.0.0.1", port=8479)
    secrets: list[str] = []

    def begin(end: WorkerEnd, given: Order) -> None:
        def work() -> None:
            end.on_secret = secrets.append
            end.tell_models([ModelHeld(model="m", size_bytes=3)], [HASH], 8479)
            assert end.model_of(ATTEMPT) == (manifest,)
            assert end.sources == {manifest.id: (source,)}
            with pytest.raises(CannotRun, match="it is not here"):
                end.model_of(ATTEMPT)
            end.tell(Failed(ATTEMPT, "cancelled", f"{end.secret} {secrets}"))

        threading.Thread(target=work, daemon=True).start()

    _, connection, _ = await served(door, begin, same_machine=False)
    wanted = order()
    connection.order(wanted)
    heard = connection.heard()
    assert await anext(heard) == WORKER
    told = await anext(heard)
    assert isinstance(told, SaidModels)
    assert (told.message(WORKER.id).held, told.manifests, told.port) == (
        (ModelHeld(model="m", size_bytes=3),), (HASH,), 8479,
    )  # fmt: skip
    asked = await anext(heard)
    assert isinstance(asked, SaidBring)
    assert connection.order_of(asked.attempt_id) == wanted
    connection.give_secret("s3")
    connection.give_sources(manifest.id, (source,))
    connection.give_model(ATTEMPT, (manifest,))
    assert await anext(heard) == asked
    connection.give_model(ATTEMPT, (), "it is not here")
    assert await anext(heard) == Failed(ATTEMPT, "cancelled", "s3 ['s3']")
    connection.close()


async def test_nobody_is_let_in_without_the_secret_or_a_second_time(door: Listener) -> None:
    secret, connected = door.expect(WORKER.id, same_machine=True)
    for wrong in ("", "0" * 64):
        with pytest.raises(OSError, match="closed it"):
            await asyncio.to_thread(connect, door.host, door.port, WORKER.id, wrong)
    with pytest.raises(OSError, match="closed it"):
        await asyncio.to_thread(connect, door.host, door.port, "attic/cpu1", secret)
    assert not connected.done()
    end = await asyncio.to_thread(connect, door.host, door.port, WORKER.id, secret)
    with pytest.raises(OSError, match="closed it"):
        await asyncio.to_thread(connect, door.host, door.port, WORKER.id, secret)
    (await connected).close()
    end.close()


async def test_a_worker_serves_nobody_who_does_not_know_its_secret() -> None:
    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(framed(json.dumps({"nonce": new_nonce()}).encode()))
        writer.write(framed(json.dumps({"proof": HASH, "same_machine": True}).encode()))
        await writer.drain()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    with pytest.raises(ConnectionError, match="not this worker's coordinator"):
        await asyncio.to_thread(connect, host, port, WORKER.id, "secret")
    server.close()


async def test_strangers_are_few_and_have_little_time(
    door: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MAX_STRANGERS", 2)
    monkeypatch.setattr(listener, "GREETING_TIMEOUT_S", 0.2)
    opened = [await asyncio.open_connection(door.host, door.port) for _ in range(5)]
    for reader, _ in opened:
        await asyncio.wait_for(reader.read(), 10)  # to its end
    secret, connected = door.expect(WORKER.id, same_machine=True)
    end = await asyncio.to_thread(connect, door.host, door.port, WORKER.id, secret)
    (await connected).close()
    end.close()
    for _, writer in opened:
        writer.close()


async def test_a_stranger_cannot_make_the_coordinator_hold_memory(door: Listener) -> None:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write((2**32 - 1).to_bytes(4, "big") + b"x" * 100)
    assert await asyncio.wait_for(reader.read(), 10)  # the challenge, and then the end
    writer.close()


HOSTILE: dict[str, tuple[Any, bytes]] = {
    "another's attempt": ({**FINISHED, "attempt_id": "job-2/s0/1"}, b"abc"),
    "more frames than ordered": ({**FINISHED, "num_frames": 3}, b"abc"),
    "a video larger than its frames": ({**FINISHED, "content_bytes": max_content_bytes(TASK) + 1}, b""),
    "a hand-over nobody ordered": ({**FINISHED, "handover_bytes": 1, "handover_sha256": HASH}, b"abcd"),
    "an infinite time": ({**FINISHED, "wall_s": float("inf")}, b"abc"),
    "a time that is no number": ({**FINISHED, "load_s": float("nan")}, b"abc"),
    "a negative size": ({**FINISHED, "content_bytes": -1}, b""),
    "a hash that is a path": ({**FINISHED, "frames_sha256": "../../etc/passwd"}, b"abc"),
    "a log without end": ({**FINISHED, "log": "x" * 70_000}, b"abc"),
    "a lone surrogate": ({**FINISHED, "log": "\ud800"}, b"abc"),
    "an unknown field": ({**FINISHED, "pickle": "gASV"}, b"abc"),
    "progress of another's": (
        {"type": "progress", "attempt_id": "job-2/s0/1", "phase": "load", "done": 0, "total": 1}, b"",
    ),
    "an unknown phase": (
        {"type": "progress", "attempt_id": ATTEMPT, "phase": "__class__", "done": 0, "total": 1}, b"",
    ),
    "a failure of another's": (
        {"type": "failed", "attempt_id": "job-2/s0/1", "kind": "error", "message": "", "log": ""}, b"",
    ),
    "a file it was not given": ({"type": "fetch", "sha256": HASH}, b""),
    "a second introduction": ({"type": "worker", "worker": WORKER.model_dump()}, b""),
    "an unknown message": ({"type": "exec", "code": "1"}, b""),
    "no object": ([1, 2], b""),
    "the model of another's order": ({"type": "bring", "attempt_id": "job-2/s0/1"}, b""),
    "a model of less than nothing": (
        {"type": "models", "held": [{"model": "m", "size_bytes": -1}], "manifests": [], "port": None}, b"",
    ),
    "models at no port": ({"type": "models", "held": [], "manifests": [], "port": 70_000}, b""),
    "a load of 200 %": ({"type": "telemetry", "load": 2.0}, b""),
}  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE)
async def test_what_a_worker_may_not_say_ends_its_connection_and_nothing_else(
    door: Listener, message: str
) -> None:
    guest, connection = await guest_of(door)
    connection.order(order())
    guest.introduce()
    guest.say(*HOSTILE[message])
    heard, ended = await end_of(connection)
    assert heard == [WORKER]
    assert isinstance(ended, Misbehaved)
    guest.connection.close()


@pytest.mark.parametrize(
    "raw",
    [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", framed(b"\x80\x04\x95"), framed(b"[" * 100_000), framed(b"{")],
)
async def test_bytes_that_are_no_message_end_the_connection(door: Listener, raw: bytes) -> None:
    guest, connection = await guest_of(door)
    guest.introduce()
    guest.raw(raw)
    heard, ended = await end_of(connection)
    assert heard == [WORKER]
    assert isinstance(ended, Misbehaved)
    guest.connection.close()


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "head/cpu0"},
        {"node": "head"},
        {"device_name": "\x1b[2J"},
        {"device_name": "x" * 201},
        {"vram_bytes": 0},
        {"price_per_hour": -1.0},
    ],
)
async def test_a_worker_that_is_not_itself_is_refused(door: Listener, changed: dict[str, Any]) -> None:
    guest, connection = await guest_of(door)
    guest.say({"type": "worker", "worker": WORKER.model_dump() | changed})
    heard, ended = await end_of(connection)
    assert heard == []
    assert isinstance(ended, Misbehaved)
    guest.connection.close()


async def test_a_worker_that_asks_and_takes_nothing_is_let_go(door: Listener, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(bytes(8 * 2**20))
    guest, connection = await guest_of(door)
    connection.order(order(image=Blob(sha256=HASH, path=tmp_path / "blob")))
    guest.introduce()
    for _ in range(listener.MAX_FETCHES + 2):
        guest.say({"type": "fetch", "sha256": HASH})
    _, ended = await end_of(connection)
    assert isinstance(ended, Misbehaved)
    guest.connection.close()


async def test_a_result_cut_short_is_no_result(door: Listener) -> None:
    guest, connection = await guest_of(door)
    connection.order(order())
    guest.introduce()
    guest.say({**FINISHED, "content_bytes": 1000}, b"x" * 999)
    guest.connection.close()
    heard, ended = await end_of(connection)
    assert heard == [WORKER]
    assert not isinstance(ended, Misbehaved)


async def test_what_steers_a_terminal_does_not_cross(door: Listener) -> None:
    guest, connection = await guest_of(door)
    connection.order(order())
    guest.introduce()
    guest.say(
        {
            "type": "failed",
            "attempt_id": ATTEMPT,
            "kind": "error",
            "message": "\x1b]0;owned\x07",
            "log": "a\nb",
        }
    )
    guest.connection.close()
    heard, _ = await end_of(connection)
    assert heard[1] == Failed(ATTEMPT, "error", "�]0;owned�", "a\nb")


def test_the_largest_result_is_a_little_more_than_its_frames() -> None:
    raw = 2 * 16 * 16 * 3
    assert raw * 1.25 <= max_content_bytes(TASK) <= raw * 1.25 + 2**20
    assert max_handover_bytes(TASK) >= 16 * 16 * 3 + 4 * 16 * 16


def test_a_peer_that_is_cut_off_is_noticed_in_some_seconds() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as each,
    ):
        frames.watch_peer(each)
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 8000
