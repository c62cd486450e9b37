"""A node is a guest: it has Ray's token, and still nothing of it is unpickled by the coordinator.

python tests/ray/test_guests.py HEAD MARKS     (is the guest)
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.running.cluster import WorkerUp
from nodes.machine.head import ensure_head, head_pids, stop_head
from nodes.machine.ray_node import NAMESPACE, ray_environment
from nodes.ray import Launch, RayCluster, Start

pytestmark = [pytest.mark.ray, pytest.mark.long]

WORKER = Worker(id="attic/cpu0", node="attic", kind="cpu", device_name="CPU", vram_bytes=GIB)


def mark(path: str) -> None:
    """What a guest's code does: it leaves the number of the process that it runs in."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


class Bomb:
    """Runs code in whatever process unpickles it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return mark, (self.path,)


async def test_no_object_of_a_node_is_unpickled_and_ray_s_token_runs_code_on_the_head(tmp_path: Path) -> None:
    head = ensure_head(threading.Event(), tmp_path, "127.0.0.1", [WORKER])
    marks = tmp_path / "marks"
    environment = ray_environment(head.token, head.workers, head.host)

    async def launch(afresh: bool) -> Launch:
        return Launch(Start(address=head.address), environment, tmp_path / "driver.log", head_pids(head))

    async def no_stitcher(order: Any) -> Any:
        raise AssertionError("nothing is joined here")

    try:
        guest = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, __file__, head.address, str(marks)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert guest.returncode == 0, guest.stderr
        # As docs/security.md says: the token runs code as the head's user.
        assert f"ran as {os.geteuid()} on the head" in guest.stdout
        cluster = await RayCluster.open("127.0.0.1", launch, no_stitcher)
        try:
            # The guest holds the worker's name. What it returns is not read; it is ended, the worker comes.
            async with asyncio.timeout(90):
                async for message in cluster.messages():
                    if isinstance(message, WorkerUp):
                        break
            (driver,) = [p for p in psutil.Process().children() if "nodes.ray.driver" in p.cmdline()]
            ran_in = {int(line) for line in marks.read_text().split()}
            assert ran_in, "the guest's objects do run code where they are unpickled"
            assert ran_in.isdisjoint({os.getpid(), driver.pid})
            # Ray's libraries are not even loaded where the journal is written and the API answers.
            assert "_raylet" not in Path("/proc/self/maps").read_text()
        finally:
            await cluster.close()
    finally:
        stop_head(tmp_path)


def be_a_guest(address: str, marks: str) -> None:
    """Take the worker's name, with a class and with answers that run code when they are read."""
    import ray

    ray.init(address, namespace=NAMESPACE, log_to_driver=False)

    class Worker:
        bomb = Bomb(marks)

        def serve(self, *_: Any) -> Any:
            error = RuntimeError("read me")
            error.bomb = Bomb(marks)  # type: ignore[attr-defined]
            raise error

        def ready(self) -> None: ...

    @ray.remote(num_cpus=0)
    def who() -> int:
        return os.geteuid()

    actor = ray.remote(num_cpus=0)(Worker)
    held = actor.options(name=f"worker/{WORKER.id}", lifetime="detached").remote()  # type: ignore[attr-defined]
    ray.get(held.ready.remote())
    print(f"ran as {ray.get(who.remote())} on the head")


if __name__ == "__main__":
    be_a_guest(*sys.argv[1:])
