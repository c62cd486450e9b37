"""What a forecast costs, and how near it comes.

    python benchmarks/coordination/forecast.py [--segments 5000] [--workers 64] [--out ...json]

Cost: milliseconds of a quote, of a job's remaining time, of its summary and of its timeline, for workers that
are all equal, of eight speeds, and all different. Nearness: jobs on a farm of this machine with two CPU
workers, each with its seconds from submit to the finished video against the quote made at submit; the ratio
is predicted over real. The first job of a model is predicted from the spec's prior, those after it from what
was measured. Segments rendered again for a failed seam are told, for no quote foresees them. The named
alternative is the guess that a job takes the seconds per frame of the one before, whatever its shape.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farm.capabilities.worker import GIB, Worker
from farm.planning.planner import plan
from farm.reporting.report import job_summary, timeline
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.running.coordinator import Coordinator
from farm.scheduling.forecast import eta_s, quote
from farm.scheduling.schedule import schedule
from farm.state.changes import apply
from farm.state.events import JobSubmitted, TaskAssigned, WorkerJoined
from farm.state.state import State
from nodes.engines.table import spec_of
from nodes.hosting.host import local_farm, take_in, workers_up

SHAPES: dict[str, dict[str, Any]] = {
    "independent": {"model": "procedural"},
    "chain of one shot": {"model": "tiny_wan", "mode": "chain"},
    "chain of 64 shots": {"model": "tiny_wan", "mode": "chain", "shots": 64},
    "infill": {"model": "tiny_wan", "mode": "infill"},
}
PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
#: In the order they run.
JOBS: tuple[dict[str, Any], ...] = (
    {"model": "procedural", "num_frames": 40, "width": 256, "height": 256},
    {"model": "procedural", "num_frames": 160, "width": 256, "height": 256},
    {"model": "procedural", "num_frames": 48, "width": 512, "height": 512},
    {"model": "procedural", "num_frames": 96, "width": 384, "height": 256, "window_frames": 16},
    {"model": "instant", "num_frames": 160, "width": 256, "height": 256},
    {"model": "instant", "num_frames": 400, "width": 128, "height": 128},
    {"model": "tiny_wan", "num_frames": 24, "width": 192, "height": 128},
    {"model": "tiny_wan", "num_frames": 80, "width": 192, "height": 128},
    {"model": "tiny_wan", "num_frames": 24, "width": 192, "height": 128, "mode": "chain"},
)


def best_ms(call: Callable[[], object], times: int = 5) -> float:
    def one() -> float:
        started = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - started)

    return round(min(one() for _ in range(times)), 3)


def cost(num_segments: int, num_workers: int) -> Iterator[dict[str, Any]]:
    image = MediaInfo(
        kind="image", width=512, height=512, num_frames=1, sha256="0" * 64, path=Path("photo.png")
    )
    for shape, asked in SHAPES.items():
        options = {name: value for name, value in asked.items() if name != "shots"}
        inputs = (image,) * asked.get("shots", 1)
        # A window adds five frames, and refine has about a third more segments than windows.
        num_frames = round(num_segments * (3.8 if options.get("mode") == "refine" else 5))
        request = JobRequest(inputs=inputs, num_frames=num_frames, **options)
        made = plan(request, spec_of(request.model))
        for speeds, num_speeds in (("equal", 1), ("eight", 8), ("all different", num_workers)):
            state = State()
            numbers = random.Random(0)
            rates = [1 + numbers.random() for _ in range(num_speeds)]
            for i in range(num_workers):
                worker = Worker(
                    id=f"w{i}/0", node=f"w{i}", kind="cuda", device_name="card", vram_bytes=24 * GIB
                )
                apply(state, WorkerJoined(worker=worker), 0.0)
                state.profiles.seconds_per_unit[worker.id, made.model] = rates[i % num_speeds]
            quote_ms = best_ms(lambda: quote(state, made, 0.0))  # noqa: B023
            apply(state, JobSubmitted(job_id="job", request=request, plan=made), 0.0)
            job = state.jobs["job"]
            first = asdict(schedule(state, 0.0)[0])
            apply(state, TaskAssigned(attempt_id=f"job/{first['task_id']}/1", **first), 0.0)
            eta_s(state, job, 0.0)
            yield {
                "shape": shape,
                "segments": len(made.segments),
                "workers": num_workers,
                "speeds": speeds,
                "quote_ms": quote_ms,
                "eta_ms": best_ms(lambda: eta_s(state, job, 0.0)),  # noqa: B023
                "summary_ms": best_ms(lambda: job_summary(job, state, 0.5)),  # noqa: B023
                "timeline_ms": best_ms(lambda: timeline(job, 0.0)),  # noqa: B023
            }


async def nearness(folder: Path) -> list[dict[str, Any]]:
    workers = [
        Worker(id=f"here/cpu{i}", node="here", kind="cpu", device_name="CPU", vram_bytes=4 * GIB)
        for i in range(2)
    ]
    found = []
    per_frame_s: float | None = None
    async with local_farm(folder, workers) as coordinator:
        await workers_up(coordinator, 2)
        inputs = take_in([PHOTO], folder)
        for asked in JOBS:
            request = JobRequest(inputs=inputs, **asked)
            row = await one_job(coordinator, request)
            guess_s = None if per_frame_s is None else per_frame_s * row["frames"]
            per_frame_s = row["real_s"] / row["frames"]
            ratio = None if guess_s is None else round(guess_s / row["real_s"], 3)
            found.append(row | {"ratio_of_frames_alone": ratio})
            print(json.dumps(found[-1]), file=sys.stderr)
    return found


async def one_job(coordinator: Coordinator, request: JobRequest) -> dict[str, Any]:
    state, clock = coordinator.ledger.state, coordinator.ledger.monotonic
    said = quote(state, coordinator.plan(request), clock())
    started = clock()
    job = coordinator.ledger.job(coordinator.submit(request))
    half: tuple[float, float | None] | None = None
    async for _ in coordinator.ledger.follow(job.id):
        if half is None and 2 * job.num_done >= len(job.tasks):
            half = (clock(), eta_s(state, job, clock()))
    if job.status != "succeeded" or said.predicted_s is None:
        raise SystemExit(f"the job {job.status}: {job.reason}")
    ended = clock()
    left = None
    if half is not None and half[1] is not None:
        left = round((half[0] + half[1] - started) / (ended - started), 3)
    return {
        "model": request.model,
        "mode": job.plan.mode,
        "size": f"{job.plan.width}x{job.plan.height}",
        "frames": job.plan.num_frames,
        "segments": len(job.tasks),
        "rendered_again": sum(task.take for task in job.tasks.values()),
        "measured": said.measured,
        "predicted_s": round(said.predicted_s, 2),
        "real_s": round(ended - started, 2),
        "ratio": round(said.predicted_s / (ended - started), 3),
        "ratio_at_half": left,
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--segments", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/forecast.json")
    arguments = parser.parse_args()
    load_before = round(os.getloadavg()[0], 2)
    costs = list(cost(arguments.segments, arguments.workers))
    with tempfile.TemporaryDirectory() as folder:
        jobs = asyncio.run(nearness(Path(folder)))
    result = {
        "load_average_before": load_before,
        "load_average_after": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "cost": costs,
        "nearness": jobs,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
