"""What a farm answers in a crowd: 2,000 silent connections, and eight plans as large as they may be.

    python benchmarks/serving/crowd.py [--connections 2000] [--plans 8] [--out ...json]

A server process coordinates, renders and joins jobs of the ``procedural`` engine on two workers, and serves
the real app behind its login. From another process ``GET /api/v1/health`` is asked ten times a second, on a
new connection each time, while a job runs

* undisturbed;
* beside so many connections that send nothing, each opened again three seconds after the server has ended it;
* beside so many ``POST /api/v1/plans`` of 49,749 segments, each with a key of its own;
* beside both.

Reach: every answer within a second, every job finished. The ratio is of the slowest answer to that of a farm
undisturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import psutil

TOKEN = "the owner's token of this benchmark"
OWNER = {"Authorization": f"Bearer {TOKEN}"}
ASKED_EVERY_S = 0.1
OPENED_AGAIN_S = 3.0
#: Each part lasts as long as its job and its plans, and no shorter than this.
LEAST_S = 15.0
#: Windows of 8 frames that share 4: 49,749 segments.
LARGE = {"num_frames": 199_000, "window_frames": 8, "overlap_frames": 4, "width": 64, "height": 64}
JOB = {"num_frames": 240, "width": 128, "height": 128}


# The server's process.


def serve(port: int, state: Path) -> None:
    from dashboard.app import create_app
    from dashboard.server import serve as serve_app
    from farm.capabilities.worker import GIB, Worker
    from farm.running.membership import ClusterAccess, Membership
    from nodes.engines.table import known_models
    from nodes.hosting.host import coordinating, workers_up
    from nodes.hosting.keep_up import media_tools
    from nodes.work.local_cluster import LocalCluster

    cv2.setNumThreads(1)

    async def run() -> None:
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
            )
            await serve_app(app, "127.0.0.1", port)

    asyncio.run(run())


# The clients' process.


class Farm:
    """The farm as its clients see it."""

    def __init__(self, port: int, server: psutil.Process) -> None:
        self.port = port
        self.server = server
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.http = httpx2.AsyncClient(headers=OWNER, timeout=1200, trust_env=False)
        self.open = 0
        self.upload = ""

    async def up(self) -> None:
        """Wait until it answers, and give it a picture."""
        while True:
            with suppress(httpx2.TransportError):
                await self.http.get(f"{self.url}/health")
                break
            await asyncio.sleep(0.1)
        noise = np.random.default_rng(3).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        picture = cv2.imencode(".png", cv2.resize(noise, (192, 192), interpolation=cv2.INTER_CUBIC))[1]
        made = await self.http.post(f"{self.url}/uploads", files={"file": ("a.png", picture.tobytes())})
        self.upload = made.raise_for_status().json()["id"]

    async def job(self) -> float:
        """Seconds from submitting a job to its video."""
        began = time.monotonic()
        body = {"inputs": [self.upload], "model": "procedural", **JOB}
        made = (await self.http.post(f"{self.url}/jobs", json=body)).raise_for_status().json()
        while made["status"] == "running":
            await asyncio.sleep(0.5)
            made = (await self.http.get(f"{self.url}/jobs/{made['id']}")).raise_for_status().json()
        if made["status"] != "succeeded":
            raise SystemExit(f"the job {made['status']}: {made['reason']}")
        return time.monotonic() - began

    async def plan(self) -> float:
        """Seconds that a large plan takes, of a caller with a key of its own."""
        named = {"name": "crowd", "scopes": ["submit"]}
        key = (await self.http.post(f"{self.url}/keys", json=named)).raise_for_status().json()["key"]
        began = time.monotonic()
        body = {"inputs": [self.upload], "model": "procedural", **LARGE}
        headers = {"Authorization": f"Bearer {key}"}
        told = await self.http.post(f"{self.url}/plans?brief=true", json=body, headers=headers)
        assert told.raise_for_status().json()["quote"]["num_segments"] > 49_000
        return time.monotonic() - began

    async def be_silent(self) -> None:
        """Hold a connection that says nothing, for good."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.open += 1
                try:
                    await reader.read()
                finally:
                    self.open -= 1
                    writer.close()
            await asyncio.sleep(OPENED_AGAIN_S)

    def health(self) -> float:
        """Seconds to an answer, on a new connection. Blocks: the loop here is as busy as the crowd."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % self.port)
            head = connection.recv(4096)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the farm answered {head[:200]!r}")
        return time.monotonic() - began


async def part(farm: Farm, connections: int, plans: int) -> dict[str, Any]:
    """What the farm answers while a job runs beside these."""
    silent = [asyncio.ensure_future(farm.be_silent()) for _ in range(connections)]
    began = time.monotonic()
    while farm.open < 0.6 * connections:  # of one address it keeps three quarters of its own most
        await asyncio.sleep(0.1)
    work: list[Coroutine[Any, Any, float]] = [farm.job(), *(farm.plan() for _ in range(plans))]
    working = asyncio.ensure_future(asyncio.gather(*work))
    answers, held, most_bytes = [], [], 0
    while not working.done() or time.monotonic() - began < LEAST_S:
        answers.append(await asyncio.to_thread(farm.health))
        held.append(farm.open)
        most_bytes = max(most_bytes, farm.server.memory_info().rss)
        await asyncio.sleep(ASKED_EVERY_S)
    job_s, *plans_s = await working
    for one in silent:
        one.cancel()
    await asyncio.gather(*silent, return_exceptions=True)
    p50, p95 = (round(float(np.percentile(answers, share)), 3) for share in (50, 95))
    return {
        "answers": len(answers),
        "p50_s": p50,
        "p95_s": p95,
        "slowest_s": round(max(answers), 3),
        "silent_connections_open": int(np.median(held)),
        "job_s": round(job_s, 1),
        "plans_s": [round(plan_s, 1) for plan_s in sorted(plans_s)],
        "server_gb": round(most_bytes / 1e9, 2),
    }


async def measure(given: argparse.Namespace, port: int, server: psutil.Process) -> dict[str, Any]:
    farm = Farm(port, server)
    await farm.up()
    parts = {
        "undisturbed": (0, 0),
        "silent_connections": (given.connections, 0),
        "plans": (0, given.plans),
        "both": (given.connections, given.plans),
    }
    found = {name: await part(farm, *counts) for name, counts in parts.items()}
    await farm.http.aclose()
    return {
        "connections_meanwhile": given.connections,
        "plans_meanwhile": given.plans,
        **found,
        "slowest_ratio_to_undisturbed": round(
            found["both"]["slowest_s"] / found["undisturbed"]["slowest_s"], 1
        ),
        "reached": max(each["slowest_s"] for each in found.values()) <= 1.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--plans", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/crowd.json")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.state)
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load = [round(os.getloadavg()[0], 2)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        command = [sys.executable, __file__, "--serve", str(port), "--state", folder]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, env=environment)
        try:
            result = asyncio.run(measure(given, port, psutil.Process(process.pid)))
        finally:
            process.kill()
            process.wait()
    result["cores_of_the_machine"] = os.cpu_count()
    result["load_of_the_machine"] = [*load, round(os.getloadavg()[0], 2)]
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
