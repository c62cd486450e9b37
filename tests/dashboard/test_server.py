"""The server that `farm up` runs, against connections that want to keep it from working."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.responses import StreamingResponse

from dashboard.server import SWITCH_INTERVAL_S, serve

pytestmark = pytest.mark.slow  # serves a whole farm on a socket

ROOT = Path(__file__).parents[2]
#: Of the farm's process; a usual limit, which cannot be raised.
DESCRIPTORS = 1024
NUM_SILENT = 2000


@asynccontextmanager
async def served(farm: Any, **options: Any) -> AsyncIterator[int]:
    """The farm's own server on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving = asyncio.ensure_future(serve(farm.app, "127.0.0.1", port, **options))
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            break
        except OSError:
            await asyncio.sleep(0.02)
    try:
        yield port
    finally:
        serving.cancel()
        await asyncio.wait({serving})


HEAD = b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "said", [b"", b"GET /api/v1/he", HEAD[:-2]], ids=["nothing", "a word", "half a head"]
)
async def test_a_connection_that_sends_no_whole_request_is_closed(said: bytes, farm: Any) -> None:
    async with served(farm, head_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 20)
        writer.close()


async def test_threads_that_plan_and_decode_do_not_hold_the_loop_at_every_connection(
    farm: Any,
) -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(10 * SWITCH_INTERVAL_S)  # as Python has it
    try:
        async with served(farm):
            assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    finally:
        sys.setswitchinterval(usual)


async def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_one_that_does_not_come(
    farm: Any,
) -> None:
    async with served(farm, head_s=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def drip() -> None:
            for byte in HEAD:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 20)
        dripping.cancel()
        writer.close()


async def test_a_request_that_is_answered_slowly_is_not_given_up_and_the_next_one_is_taken(farm: Any) -> None:
    asked = asyncio.Event()

    @farm.app.get("/api/v1/health/slow")
    async def slow() -> str:
        await asked.wait()
        return "done"

    async with served(farm, head_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/health/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        other, other_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(other.read(), 20) == b"", "the silent one went; the other waits on"
        other_writer.close()
        asked.set()
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 20)
        await reader.readuntil(b'"done"')
        writer.write(HEAD)
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 20)
        writer.close()


async def test_a_reader_that_takes_nothing_of_an_answer_is_let_go_and_a_slow_one_is_not(farm: Any) -> None:
    num_bytes = 20 << 20

    @farm.app.get("/api/v1/health/large")
    async def large() -> StreamingResponse:
        return StreamingResponse(iter([bytes(1 << 20)] * (num_bytes >> 20)))

    async def asks(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(b"GET /api/v1/health/large HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return reader, writer

    async with served(farm, stall_s=0.5) as port:
        (idle, idle_writer), (slow, slow_writer) = await asks(port), await asks(port)
        taken = 0
        while chunk := await asyncio.wait_for(slow.read(1 << 16), 20):
            taken += len(chunk)
            await asyncio.sleep(0.002)
        assert taken > num_bytes
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(idle.readexactly(num_bytes), 20)
        idle_writer.close()
        slow_writer.close()


@asynccontextmanager
async def farm_process(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A farm that may open no more than ``DESCRIPTORS`` files (``tests/browser/farm_process.py``)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"workers": {"near/cpu0": 4.0}, "access": "a token"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "tests" / "browser" / "farm_process.py"),
        str(port),
        str(folder),
        json.dumps(settings),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
    )
    assert process.stdin is not None
    try:
        yield process, port
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest.mark.slow
async def test_silent_connections_keep_neither_the_api_nor_a_job_from_working(
    tmp_path: Path, photo: Path, until: Callable[..., Any]
) -> None:
    own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    headers = {"Authorization": "Bearer a token"}
    silent: list[asyncio.StreamWriter] = []
    (tmp_path / "state").mkdir()
    async with (
        farm_process(tmp_path / "state") as (process, port),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=30) as http,
    ):
        assert process.stdin is not None

        async def answers() -> bool:
            assert process.returncode is None
            try:
                return bool((await http.get("/health")).is_success)
            except httpx2.TransportError:
                return False

        await until(answers)
        job = await http.post(
            "/jobs",
            data={"request": json.dumps({"model": "procedural", "num_frames": 24, "fps": "8"})},
            files=[("inputs", ("photo.png", photo.read_bytes()))],
        )
        job_id = job.json()["id"]
        try:
            for _ in range(min(NUM_SILENT, own - 200)):
                silent.append((await asyncio.open_connection("127.0.0.1", port))[1])
            async with httpx2.AsyncClient(trust_env=False, timeout=30) as stranger:
                assert (await stranger.get(f"http://127.0.0.1:{port}/api/v1/health")).is_success
            process.stdin.write(b"let all\n")

            async def ended() -> bool:
                return (await http.get(f"/jobs/{job_id}")).json()["status"] != "running"

            await until(ended)
            assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "succeeded"
        finally:
            for writer in silent:
                writer.transport.abort()
