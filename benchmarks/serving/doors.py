"""What the API costs while the farm works: lists, a large download, an upload that is too large.

    python benchmarks/serving/doors.py [--requests-per-second 100] [--seconds 20] [--out ...json]

A server process coordinates, renders and joins small jobs of the ``procedural`` engine on two workers, a new
one every so often, and serves the real app behind its login. A client in another process asks

* ``GET /api/v1/jobs`` at a fixed rate, whatever the answers take; latency is from when one was due. In the
  same run, the same list through a route that lets FastAPI validate its answer (``response_model``), and
  each of its jobs by ``GET /api/v1/jobs/{id}``, as programs do that keep ids, at the same rate;
* for a published video of 1 GB: at full speed, and with a reader that stops, by how much the server grows;
* to take an upload without a length that never ends: by how much the client comes past the cap, at the pace
  of a fast network, and without a pace, where the kernel's buffers of a connection on loopback count too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

CAP_BYTES = 8 << 20
VIDEO_BYTES = 10**9
TOKEN = "the owner's token of this benchmark"
#: Jobs there are when the asking begins, and how often another comes.
JOBS, JOB_EVERY_S = 60, 1.0
CONNECTIONS = 16
ROUNDS = 5
#: 1 Gbit/s.
NETWORK_BYTES_PER_S = 125e6
VALIDATED = "/api/v1/jobs/all/validated"


# The server's process.


def serve(port: int, state: Path) -> None:
    from dashboard.access.limits import Limits, Rate
    from dashboard.api.jobs import JobList
    from dashboard.app import create_app
    from dashboard.server import serve as serve_app
    from farm.capabilities.worker import GIB, Worker
    from farm.reporting.report import job_summary
    from farm.request.job import JobRequest
    from farm.running.membership import ClusterAccess, Membership
    from nodes.engines.table import known_models
    from nodes.hosting.host import coordinating, take_in, workers_up
    from nodes.hosting.keep_up import media_tools
    from nodes.work.local_cluster import LocalCluster

    cv2.setNumThreads(1)

    async def run() -> None:
        photo = state / "photo.png"
        noise = np.random.default_rng(3).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        cv2.imwrite(str(photo), cv2.resize(noise, (192, 192), interpolation=cv2.INTER_CUBIC))
        workers = [
            Worker(id=f"here/cpu{i}", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
            for i in range(2)
        ]
        async with coordinating(state, LocalCluster(workers)) as coordinator:
            await workers_up(coordinator, len(workers))
            app = create_app(
                coordinator=coordinator,
                membership=Membership(
                    coordinator, cluster=lambda: ClusterAccess("", ""), secret="", versions={}
                ),
                tools=media_tools(),
                state=state,
                access=TOKEN,
                models=known_models,
                max_upload_bytes=CAP_BYTES,
                limits=Limits(read=Rate(10_000, 10_000)),
            )

            @app.get(VALIDATED, response_model=JobList)
            async def validated() -> dict[str, Any]:
                ledger, now = coordinator.ledger, coordinator.ledger.monotonic()
                newest = sorted(ledger.state.jobs.values(), key=lambda job: -job.submitted_at)[:50]
                return {
                    "data": [job_summary(job, ledger.state, now) for job in newest],
                    "next_cursor": None,
                    "last_event_id": ledger.last_seq,
                }

            serving = asyncio.ensure_future(serve_app(app, "127.0.0.1", port))
            request = JobRequest(
                inputs=take_in([photo], state),
                prompts=("a walk along the quay",),
                model="procedural",
                num_frames=43,
                width=96,
                height=96,
            )
            for number in range(JOBS):
                job_id = coordinator.submit(request)
                if number % 4 == 3:
                    await ended(coordinator, job_id)
            (state / "ready").touch()
            while not serving.done():
                if not (state / "rest").exists():
                    coordinator.submit(request)
                await asyncio.sleep(JOB_EVERY_S)
            serving.result()

    async def ended(coordinator: Any, job_id: str) -> None:
        async for _ in coordinator.ledger.follow(job_id):
            pass

    asyncio.run(run())


# The clients' process.


def request_head(path: str, port: int, method: str = "GET", more: str = "") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n{more}\r\n"
    ).encode()


async def at_rate(port: int, paths: list[str], per_second: float, seconds: float) -> list[float]:
    """Seconds from when each request was due to the last byte of its answer."""
    free: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port, limit=1 << 22))
    took: list[float] = []

    async def ask(due: float, path: str) -> None:
        reader, writer = connection = await free.get()
        writer.write(request_head(path, port))
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise SystemExit(f"{path} was answered with {head[:200]!r}")
        await reader.readexactly(int(length[1]))
        took.append(time.perf_counter() - due)
        free.put_nowait(connection)

    begin = time.perf_counter()
    asking = []
    for number in range(round(per_second * seconds)):
        due = begin + number / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asking.append(asyncio.ensure_future(ask(due, paths[number % len(paths)])))
    await asyncio.gather(*asking)
    while not free.empty():
        free.get_nowait()[1].close()
    return took


def quantiles(took: list[float]) -> dict[str, float]:
    p50, p95, p99 = (round(1000 * float(np.percentile(took, share)), 2) for share in (50, 95, 99))
    return {"requests": len(took), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


class Growth:
    """The most that a process grew by while a block ran."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.mib = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        before, done = self._process.memory_info().rss, threading.Event()

        def watch() -> None:
            while not done.wait(0.005):
                self.mib = max(self.mib, (self._process.memory_info().rss - before) / 2**20)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()
            self.mib = round(self.mib, 2)


def download(
    port: int, path: str, server: psutil.Process, stops_after: int | None = None
) -> dict[str, float]:
    """Read a file to its end, or so many bytes and then nothing for a while."""
    growth = Growth(server)
    with growth.watched(), socket.create_connection(("127.0.0.1", port)) as connection:
        started = time.perf_counter()
        connection.sendall(request_head(path, port))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        head, _, rest = head.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise SystemExit(f"{path} was answered with {head[:200]!r}")
        received, wanted = len(rest), stops_after or int(length[1])
        buffer = bytearray(1 << 20)
        while received < wanted:
            received += connection.recv_into(buffer)
        wall_s = time.perf_counter() - started
        if stops_after is not None:
            time.sleep(3.0)
    return {"bytes": received, "seconds": round(wall_s, 2), "server_grew_by_mib": growth.mib}


def upload_without_end(port: int, bytes_per_s: float = float("inf")) -> dict[str, Any]:
    """Send a picture that never ends until the server closes the connection, or 30 s are over."""
    head = request_head(
        "/api/v1/uploads",
        port,
        "POST",
        "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n",
    )
    opening = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\x89PNG\r\n\x1a\n'
    piece = os.urandom(16 << 10)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(opening), opening))
        sent = len(opening)
        connection.setblocking(False)
        answer = b""
        waiting = memoryview(b"%x\r\n%s\r\n" % (len(piece), piece))
        left = waiting
        refused_at = None
        began = time.monotonic()
        while (lasted := time.monotonic() - began) < 30:
            try:
                answer += connection.recv(4096)
            except BlockingIOError:
                pass
            except ConnectionError:
                break
            if answer and refused_at is None:
                refused_at = sent
            if sent > lasted * bytes_per_s:
                continue
            try:
                count = connection.send(left)
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            except ConnectionError:
                break
            sent += count
            left = left[count:] or waiting
    return {
        "cap_bytes": CAP_BYTES,
        "status": int(answer.split()[1]) if answer else None,
        "bytes_past_the_cap_when_refused": None if refused_at is None else refused_at - CAP_BYTES,
        "bytes_past_the_cap_when_closed": sent - CAP_BYTES,
    }


def upload_with_a_length(port: int) -> dict[str, Any]:
    """Bytes of its body that a client has sent when it is refused for its length."""
    more = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {CAP_BYTES + 1}\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request_head("/api/v1/uploads", port, "POST", more))
        return {"status": int(connection.recv(4096).split()[1]), "bytes_of_its_body": 0}


def busy_cores(process: psutil.Process, during: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and how many cores the process used meanwhile."""
    before, started = process.cpu_times(), time.monotonic()
    result = during()
    after, wall_s = process.cpu_times(), time.monotonic() - started
    return result, round((after.user + after.system - before.user - before.system) / wall_s, 2)


def ask_json(port: int, path: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def measure(given: argparse.Namespace, port: int, state: Path, server: psutil.Process) -> dict[str, Any]:
    jobs = ask_json(port, "/api/v1/jobs")["data"]
    _, unasked_cores = busy_cores(server, lambda: time.sleep(min(given.seconds, 10)))
    asked = {
        "list": ["/api/v1/jobs"],
        "list_validated": [VALIDATED],
        "each_job": [f"/api/v1/jobs/{job['id']}" for job in jobs],
    }
    took: dict[str, list[float]] = {name: [] for name in asked}
    cores: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(ROUNDS):  # in turns: what else the machine does is shared fairly
        for name, paths in asked.items():
            asking = at_rate(port, paths, given.requests_per_second, given.seconds / ROUNDS)
            waited, used = busy_cores(server, partial(asyncio.run, asking))
            took[name] += waited
            cores[name].append(used)
    answered = {
        name: {**quantiles(took[name]), "server_cores": round(float(np.mean(cores[name])), 2)}
        for name in asked
    }
    running = [ask_json(port, f"/api/v1/jobs?status={s}&limit=200")["data"] for s in ("running", "ended")]
    (state / "rest").touch()
    while ask_json(port, "/api/v1/jobs?status=running")["data"]:
        time.sleep(0.2)
    video = next((state / "jobs").glob("*/video.mp4"))
    os.truncate(video, VIDEO_BYTES)
    path = f"/api/v1/jobs/{video.parent.name}/artifacts/video.mp4"
    return {
        "requests_per_second": given.requests_per_second,
        "jobs_in_a_list": len(jobs),
        "jobs_meanwhile": sum(map(len, running)) - JOBS,
        "server_cores_unasked": unasked_cores,
        **answered,
        "p95_ratio_to_validated": round(answered["list"]["p95_ms"] / answered["list_validated"]["p95_ms"], 3),
        "first_download": download(port, path, server),
        "download": download(port, path, server),
        "download_of_a_reader_that_stops": download(port, path, server, stops_after=50_000_000),
        "upload_without_length": upload_without_end(port, NETWORK_BYTES_PER_S),
        "upload_without_length_or_pace": upload_without_end(port),
        "upload_with_length": upload_with_a_length(port),
        "cores_of_the_machine": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests-per-second", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/doors.json")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.state)
        return
    load = [round(os.getloadavg()[0], 2)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="doors-") as folder:
        state = Path(folder)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, __file__, "--serve", str(port), "--state", folder]
        process = subprocess.Popen(command, env=environment)
        try:
            while not (state / "ready").exists():
                if process.poll() is not None:
                    raise SystemExit("the server ended while it came up")
                time.sleep(0.1)
            result = measure(given, port, state, psutil.Process(process.pid))
        finally:
            process.kill()
            process.wait()
    result["load_of_the_machine"] = [*load, round(os.getloadavg()[0], 2)]
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
