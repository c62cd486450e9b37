"""What 200 watchers of a working farm cost its server, and how soon an event reaches them.

    python benchmarks/serving/watchers.py [--watchers 200] [--jobs-per-second 6] [--out ...json]

A server process coordinates small jobs of the ``instant`` engine without end and serves them with
uvicorn on loopback. The same load is measured four times: with nobody watching; with watchers of ``GET
/api/v1/events`` in another process, of which some dawdle and some break off and come back; and, as the
named alternatives, with as many streams that have a queue each and write every event for themselves, and
with as many clients that ask ``GET /api/v1/jobs`` twice a second. Latency is from ``Ledger.record``,
whose time is in the event, to the client's socket: one machine, one clock. Segments are rendered and
stored. They are not joined, which is no part of the question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

#: Of the owner, for the clients.
TOKEN = "the-benchmarks-token"
BEARER = b"Authorization: Bearer %s\r\n" % TOKEN.encode()
SIDE = 64
SEGMENTS = 4
WORKERS = 8
POLL_S = 0.5
#: Of the watchers: one in so many reads slowly, one in so many breaks off every few seconds.
ONE_SLOW_IN, ONE_BREAKING_IN = 20, 10
FARM, EACH = "/api/v1/events", "/api/v1/events/each-for-itself"
_EVENT = re.compile(rb'id: (\d+)\nevent: \w+\ndata: {"at": ?([0-9.e+]+),')


# The server's process.


def serve(port: int, state: Path, jobs_per_second: float) -> None:
    from fastapi.responses import StreamingResponse

    from dashboard.access.limits import Limits, Rate
    from dashboard.app import create_app
    from dashboard.http.schemas import shown_event
    from dashboard.server import serve as serve_app
    from farm.capabilities.worker import GIB, Worker
    from farm.request.job import JobRequest
    from farm.running.cluster import Blob, Published, StitchOrder
    from farm.running.membership import ClusterAccess, Membership
    from nodes.engines.table import known_models
    from nodes.hosting.host import coordinating, take_in, workers_up
    from nodes.hosting.keep_up import media_tools
    from nodes.work.local_cluster import LocalCluster

    class UnjoinedSession:
        """Takes every segment and joins none."""

        async def start(self, segment: Blob, num_frames: int) -> None: ...

        async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
            return {"failed_gates": [], "mae_ratio": 1.0, "lab_step": 0.1}

        async def accept(self) -> None: ...

        async def finish(self) -> Published:
            return Published(num_frames=0, frames_sha256="0" * 64, size_bytes=0, sha256="0" * 64)

        async def close(self) -> None: ...

    class Cluster(LocalCluster):
        async def open_stitcher(self, order: StitchOrder) -> Any:
            return UnjoinedSession()

    # Streams that write without a pause notice late that their reader has gone.
    logging.getLogger("asyncio").setLevel(logging.ERROR)

    async def run() -> None:
        image = state / "gradient.png"
        cv2.imwrite(str(image), np.tile(np.arange(SIDE, dtype=np.uint8) * 3 + 20, (SIDE, 1)))
        workers = [
            Worker(id=f"here/cpu{i}", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
            for i in range(WORKERS)
        ]
        async with coordinating(state, Cluster(workers)) as coordinator:
            await workers_up(coordinator, WORKERS)
            membership = Membership(
                coordinator, cluster=lambda: ClusterAccess("", ""), secret="", versions={}
            )
            # All clients of the benchmark are one caller to the farm.
            app = create_app(
                coordinator=coordinator,
                membership=membership,
                tools=media_tools(),
                state=state,
                access=TOKEN,
                models=known_models,
                limits=Limits(read=Rate(100_000, 100_000)),
            )

            async def each() -> AsyncIterator[bytes]:
                with coordinator.ledger.watch() as queue:
                    while True:
                        seq, at, event = await queue.get()
                        data = json.dumps({"at": at, **shown_event(event)})
                        yield f"id: {seq}\nevent: {event.type}\ndata: {data}\n\n".encode()

            @app.get(EACH)
            async def each_for_itself() -> StreamingResponse:
                return StreamingResponse(each(), media_type="text/event-stream")

            serving = asyncio.ensure_future(serve_app(app, "127.0.0.1", port))
            request = JobRequest(
                inputs=take_in([image], state),
                model="instant",
                num_frames=8 + 5 * (SEGMENTS - 1),
                width=SIDE,
                height=SIDE,
            )
            while not serving.done():
                coordinator.submit(request)
                await asyncio.sleep(random.expovariate(jobs_per_second))
            serving.result()

    asyncio.run(run())


# The clients' process.


class Watcher:
    """One connection to the event stream, read as bytes."""

    def __init__(self, port: int, path: str, *, slow: bool = False, breaks: bool = False) -> None:
        self._path = path.encode()
        self._port, self._slow, self._breaks = port, slow, breaks
        self.seqs: list[int] = []
        #: (latency in seconds) of every event of a watcher that neither dawdles nor breaks off.
        self.latencies: list[float] = []
        self.connections = 0
        self.reads = 0

    async def run(self, after: int) -> None:
        last = after
        while True:
            self.connections += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 16)
            try:
                writer.write(
                    b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sLast-Event-ID: %d\r\n\r\n"
                    % (self._path, self._port, BEARER, last)
                )
                until = time.monotonic() + (random.uniform(1, 4) if self._breaks else 1e9)
                rest = b""
                while time.monotonic() < until:
                    got = await reader.read(1 << 16)
                    if not got:
                        raise SystemExit("the server ended a stream")
                    now = time.time()
                    self.reads += 1
                    whole, _, rest = (rest + got).rpartition(b"\n\n")
                    for seq, at in _EVENT.findall(whole + b"\n\n"):
                        last = int(seq)
                        self.seqs.append(last)
                        if not self._slow and not self._breaks:
                            self.latencies.append(now - float(at))
                    if self._slow:
                        await asyncio.sleep(random.uniform(0.2, 1.0))
            finally:
                writer.close()


class Asker:
    """One client that asks for the list of jobs again and again."""

    def __init__(self, port: int) -> None:
        self._port = port
        #: (when the answer was here, the newest event it tells of)
        self.answers: list[tuple[float, int]] = []

    async def run(self, after: int) -> None:
        await asyncio.sleep(random.uniform(0, POLL_S))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        try:
            while True:
                asked_at = time.monotonic()
                writer.write(
                    b"GET /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n" % (self._port, BEARER)
                )
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                if not head.startswith(b"HTTP/1.1 200") or length is None:
                    raise SystemExit(f"the server answered {head.splitlines()[0]!r}")
                body = await reader.readexactly(int(length[1]))
                self.answers.append((time.time(), int(body.rpartition(b":")[2].rstrip(b"}"))))
                await asyncio.sleep(max(0.0, POLL_S - (time.monotonic() - asked_at)))
        finally:
            writer.close()


async def beside(
    clients: list[Any], server: psutil.Process, newest: Callable[[], int], seconds: float
) -> tuple[float, int, int]:
    """Run the clients; returns cores the server used, and the numbers of the first and last event meant for
    every client."""
    first = newest()
    running = [asyncio.ensure_future(client.run(first)) for client in clients]
    await asyncio.sleep(2.0)  # connections are made
    before, started = server.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after, wall_s = server.cpu_times(), time.monotonic() - started
    last = newest()
    await asyncio.sleep(3.0)  # who dawdles may catch up
    for task in running:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    used = after.user + after.system - before.user - before.system
    return used / wall_s, first, last


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


async def measure(
    arguments: argparse.Namespace, port: int, server: psutil.Process, state: Path
) -> dict[str, Any]:
    journal = sqlite3.connect(f"{(state / 'journal.sqlite').as_uri()}?mode=ro", uri=True)

    def newest() -> int:
        return int(journal.execute("SELECT max(seq) FROM events").fetchone()[0])

    idle, first, last = await beside([], server, newest, arguments.seconds)
    events_per_second = (last - first) / (arguments.seconds + 2)

    watchers = [
        Watcher(port, FARM, slow=i % ONE_SLOW_IN == 0, breaks=i % ONE_BREAKING_IN == 1)
        for i in range(arguments.watchers)
    ]
    watched, first, last = await beside(watchers, server, newest, arguments.seconds)
    wanted = list(range(first + 1, last + 1))
    lost = sum(len(set(wanted) - set(watcher.seqs)) for watcher in watchers)
    twice = sum(len(watcher.seqs) - len(set(watcher.seqs)) for watcher in watchers)
    unordered = sum(watcher.seqs != sorted(watcher.seqs) for watcher in watchers)
    latencies = [s for watcher in watchers for s in watcher.latencies]

    eaches = [Watcher(port, EACH) for _ in range(arguments.watchers)]
    each, _, _ = await beside(eaches, server, newest, arguments.seconds)
    each_latencies = [s for watcher in eaches for s in watcher.latencies]

    askers = [Asker(port) for _ in range(arguments.watchers)]
    asked, first, last = await beside(askers, server, newest, arguments.seconds)
    times = dict(journal.execute("SELECT seq, at FROM events WHERE seq > ? AND seq <= ?", (first, last)))
    ask_latencies = []
    for asker in askers:
        known = first
        for here_at, told in asker.answers:
            ask_latencies += [here_at - times[s] for s in range(known + 1, min(told, last) + 1)]
            known = max(known, told)
    journal.close()
    own, for_itself, others = watched - idle, each - idle, asked - idle
    return {
        "watchers": arguments.watchers,
        "slow_watchers": sum(watcher._slow for watcher in watchers),
        "messages_read_per_second": round(sum(w.reads for w in watchers) / (arguments.seconds + 5)),
        "reconnections": sum(watcher.connections - 1 for watcher in watchers),
        "events_per_second": round(events_per_second, 1),
        "events_for_each_watcher": len(wanted),
        "events_lost": lost,
        "events_twice": twice,
        "watchers_out_of_order": unordered,
        "server_cores_unwatched": round(idle, 3),
        "server_cores_watched": round(watched, 3),
        "watchers_cores": round(own, 3),
        "latency_p50_ms": round(1000 * percentile(latencies, 50), 1),
        "latency_p95_ms": round(1000 * percentile(latencies, 95), 1),
        "latency_p99_ms": round(1000 * percentile(latencies, 99), 1),
        "each_for_itself_cores": round(for_itself, 3),
        "each_for_itself_latency_p95_ms": round(1000 * percentile(each_latencies, 95), 1),
        "asking": f"GET /api/v1/jobs every {POLL_S} s",
        "asking_answers_per_second": round(sum(len(a.answers) for a in askers) / (arguments.seconds + 5), 1),
        "asking_cores": round(others, 3),
        "asking_latency_p50_ms": round(1000 * percentile(ask_latencies, 50), 1),
        "asking_latency_p95_ms": round(1000 * percentile(ask_latencies, 95), 1),
        "cores_ratio_to_each_for_itself": round(own / for_itself, 3),
        "cores_ratio_to_asking": round(own / others, 3),
        "latency_p95_ratio_to_asking": round(percentile(latencies, 95) / percentile(ask_latencies, 95), 3),
        "cores_of_the_machine": os.cpu_count(),
        "load_of_the_machine": round(os.getloadavg()[0], 2),
    }


async def until_up(port: int) -> None:
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise SystemExit("the server does not come up")


async def main(arguments: argparse.Namespace, run: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="watchers-") as folder:
        rate = str(arguments.jobs_per_second)
        command = [
            sys.executable,
            __file__,
            "--serve",
            str(port),
            "--state",
            folder,
            "--jobs-per-second",
            rate,
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, env=environment)
        try:
            await until_up(port)
            result = await run(arguments, port, psutil.Process(process.pid), Path(folder))
        finally:
            process.kill()
            process.wait()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()
    if result["events_lost"] or result["events_twice"] or result["watchers_out_of_order"]:
        raise SystemExit("events were lost, doubled or out of order")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--jobs-per-second", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/watchers.json")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.state, given.jobs_per_second)
    else:
        asyncio.run(main(given, measure))
