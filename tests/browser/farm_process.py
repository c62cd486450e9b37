"""A whole farm in a process of its own, that a test may kill: real app, coordinator, joiner and workers.

    python tests/browser/farm_process.py PORT STATE '{"workers": {"near/cpu0": 4.0}, "access": "a token"}'

The workers are threads and draw with the ``procedural`` engine. Orders come by standard input, one a line;
its end ends the process:

    let 3           three more segments may begin (a number, or ``all`` from now on)
    hold            none begins any more
    spoil, mend     rendering fails from now on, or works again
    kill near/cpu1  that worker dies
    add near/cpu2   a worker joins

It prints ``heard`` for each that it has carried out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path

from dashboard.app import create_app
from dashboard.server import serve
from farm.capabilities.worker import GIB, Worker
from farm.planning.render_task import RenderTask
from farm.running.membership import ClusterAccess, Membership
from nodes.engines.engine import Rendered, RenderInputs, Report
from nodes.engines.procedural.engine import LEVELS, Procedural
from nodes.engines.table import known_models
from nodes.hosting.host import coordinating
from nodes.hosting.keep_up import media_tools
from nodes.work.local_cluster import LocalCluster

LOOK_AGAIN_S = 0.1


class Pace:
    """How many segments may begin, and whether they come to a good end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = 0.0
        self.spoiled = False

    def let(self, how_many: str) -> None:
        with self._changed:
            self._left = float("inf") if how_many == "all" else self._left + int(how_many)
            self._changed.notify_all()

    def hold(self) -> None:
        with self._changed:
            self._left = 0.0

    def take(self) -> bool:
        """Whether one may begin; waits for it a moment."""
        with self._changed:
            if self._left < 1:
                self._changed.wait(LOOK_AGAIN_S)
            if self._left < 1:
                return False
            self._left -= 1
            return True


class PacedEngine(Procedural):
    """The procedural engine, when it may, also for models whose plans alone are looked at."""

    def __init__(self, model: str, pace: Pace) -> None:
        super().__init__(model if model in LEVELS else "procedural")
        self._pace = pace

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        report("denoise", 0, task.num_frames)
        while not self._pace.take():
            report("denoise", 0, task.num_frames)  # a sign of life, and where it can be taken back
        if self._pace.spoiled:
            raise RuntimeError("the picture is spoiled")
        return super().render(task, inputs, report)


def worker(worker_id: str, memory_gib: float) -> Worker:
    return Worker(
        id=worker_id,
        node=worker_id.partition("/")[0],
        address="127.0.0.1",
        kind="cpu",
        device_name="CPU",
        vram_bytes=round(memory_gib * GIB),
        price_per_hour=36.0,
    )


def obey(pace: Pace, cluster: LocalCluster, loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    for line in sys.stdin:
        match line.split():
            case ["let", how_many]:
                pace.let(how_many)
            case ["hold"]:
                pace.hold()
            case ["spoil" | "mend" as verb]:
                pace.spoiled = verb == "spoil"
            case ["kill", worker_id]:
                loop.call_soon_threadsafe(cluster.kill, worker_id)
            case ["add", worker_id]:
                loop.call_soon_threadsafe(cluster.add, worker(worker_id, 4.0))
        print("heard", flush=True)
    loop.call_soon_threadsafe(end.set)


async def main(port: int, state: Path, workers: dict[str, float], access: str) -> None:
    pace, end = Pace(), asyncio.Event()
    cluster = LocalCluster(
        [worker(name, memory_gib) for name, memory_gib in workers.items()],
        lambda model, *_: PacedEngine(model, pace),
    )
    async with coordinating(state, cluster) as coordinator:
        app = create_app(
            coordinator=coordinator,
            membership=Membership(
                coordinator,
                cluster=lambda: ClusterAccess("127.0.0.1:6379", "none"),
                secret="none",
                versions={"ray": "2.60.0"},
            ),
            tools=media_tools(),
            state=state,
            access=access,
            models=known_models,
        )
        coordinator.begin_recovered()
        serving = asyncio.ensure_future(serve(app, "127.0.0.1", port))
        threading.Thread(
            target=obey, args=(pace, cluster, asyncio.get_running_loop(), end), daemon=True
        ).start()
        await end.wait()
        serving.cancel()
        await asyncio.wait([serving])


if __name__ == "__main__":
    settings = json.loads(sys.argv[3])
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), settings["workers"], settings["access"]))
