"""What the farm itself costs a segment: an engine that returns at once, against a bare Ray actor loop.

    python benchmarks/coordination/coordinator_cost.py [--segments 1000] [--workers 8] [--out ...json]

Both sides move results of the same size, from the same number of actors, one through Ray's object store, one
over the workers' own connections. The farm's side plans,
schedules, journals, checks, packs, stores and fences every segment; its videos are not joined, which
``benchmarks/joining/speed.py`` measures. Memory is the coordinator's resident size after 10 % and at the
end of the segments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from farm.capabilities.worker import GIB, Worker
from farm.request.job import JobRequest
from farm.running.cluster import Blob, Published, StitchOrder
from nodes.hosting.host import coordinating, take_in, workers_up
from nodes.machine.ray_node import OBJECT_STORE_BYTES, new_token, ray_environment
from nodes.ray import Launch, RayCluster, Start

SIDE = 64


class UnjoinedSession:
    """Takes every segment and joins none."""

    async def start(self, segment: Blob, num_frames: int) -> None: ...

    async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        return {"failed_gates": []}

    async def accept(self) -> None: ...

    async def finish(self) -> Published:
        return Published(num_frames=0, frames_sha256="0" * 64, size_bytes=0, sha256="0" * 64)

    async def close(self) -> None: ...


async def unjoined(order: StitchOrder) -> UnjoinedSession:
    return UnjoinedSession()


async def farm_side(
    state: Path, segments: int, workers: int, launch: Callable[[bool], Awaitable[Launch]]
) -> dict[str, float]:
    image = state / "gradient.png"
    cv2.imwrite(str(image), np.tile(np.arange(SIDE, dtype=np.uint8) * 3 + 20, (SIDE, 1)))
    resident: list[int] = []
    async with coordinating(state, await RayCluster.open("127.0.0.1", launch, unjoined)) as coordinator:
        await workers_up(coordinator, workers)
        request = JobRequest(
            inputs=take_in([image], state),
            model="instant",
            num_frames=8 + 5 * (segments - 1),
            width=SIDE,
            height=SIDE,
        )
        # One short job first: processes are warm, imports are done.
        await done(
            coordinator, coordinator.submit(request.model_copy(update={"num_frames": 8 + 5 * 4 * workers}))
        )
        started = time.perf_counter()
        job_id = coordinator.submit(request)
        job = coordinator.ledger.job(job_id)
        with coordinator.ledger.watch() as queue:
            while job.status == "running":
                await queue.get()
                if (len(resident) == 0 and job.num_done >= segments // 10) or job.num_done == segments:
                    resident.append(psutil.Process().memory_info().rss)
        wall_s = time.perf_counter() - started
        if job.status != "succeeded":
            raise SystemExit(f"the job {job.status}: {job.reason}")
    return {
        "ms_per_segment": 1000 * wall_s / segments,
        "resident_mib_at_10_percent": resident[0] / 2**20,
        "resident_mib_at_end": resident[-1] / 2**20,
    }


async def done(coordinator: Any, job_id: str) -> None:
    async for _ in coordinator.ledger.follow(job_id):
        pass


def ray_side(segments: int, workers: int, result_bytes: int, folder: str) -> float:
    """Milliseconds a call of a plain loop over plain actors, one call in flight for each."""
    import ray

    ray.init(
        "local",
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )

    @ray.remote(num_cpus=0)
    class Plain:
        def run(self) -> Any:
            yield np.zeros(result_bytes, np.uint8)

    actors = [Plain.remote() for _ in range(workers)]

    def call(actor: Any) -> Any:
        return actor.run.options(num_returns="streaming").remote()

    def loop(calls: int) -> None:
        waiting = {next(call(actor)): actor for actor in actors}
        for _ in range(calls - workers):
            ready, _ = ray.wait(list(waiting), num_returns=1)
            ray.get(ready[0])
            actor = waiting.pop(ready[0])
            waiting[next(call(actor))] = actor
        ray.get(list(waiting))

    loop(4 * workers)
    started = time.perf_counter()
    loop(segments)
    wall_s = time.perf_counter() - started
    ray.shutdown()
    return 1000 * wall_s / segments


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "results/coordinator_cost.json"
    )
    arguments = parser.parse_args()
    workers = [
        Worker(id=f"here/cpu{i}", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
        for i in range(arguments.workers)
    ]
    token = new_token()

    async def launch(afresh: bool) -> Launch:
        return Launch(
            start=Start(worker_ids=tuple(w.id for w in workers), temp_dir=Path(folder) / "ray"),
            environment=ray_environment(token, workers, "127.0.0.1"),
            log_path=Path(folder) / "driver.log",
        )

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        farm = asyncio.run(farm_side(Path(folder), arguments.segments, arguments.workers, launch))
        stored = [p.stat().st_size for p in Path(folder).glob("blobs/*/*")]
    os.environ.update(ray_environment(token, workers, "127.0.0.1"))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        bare = ray_side(arguments.segments, arguments.workers, max(stored), folder)
    result = {
        "segments": arguments.segments,
        "workers": arguments.workers,
        **farm,
        "bare_ray_ms_per_call": bare,
        "beyond_ray_ms_per_segment": farm["ms_per_segment"] - bare,
        "ratio": farm["ms_per_segment"] / bare,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
