"""A large farm for ``benchmarks/serving/pages.py``: its history, and the processes that serve it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from farm.state.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    JobCancelled,
    JobFailed,
    JobPublished,
    JobSubmitted,
    SeamAccepted,
    SeamMeasured,
    TaskAssigned,
    WorkerJoined,
)

JOBS, WORKERS, SEGMENTS = 200, 64, 5_000
#: Of the long job, when it is looked at.
SEGMENTS_DONE = 3_200
LONG_JOB = "job-00000000beef"
TOKEN = "the owner's token of this benchmark"
EVENTS_PER_SECOND = 10.0


def record_history(state: Path) -> None:
    """Write the journal and the inputs of a farm into an empty folder."""
    from farm.capabilities.worker import GIB, Worker
    from farm.planning.planner import plan
    from farm.request.job import JobRequest
    from farm.running.storage import Storage
    from farm.state.journal import Journal
    from farm.state.ledger import Ledger
    from nodes.engines.table import spec_of
    from nodes.hosting.host import take_in

    draw = random.Random(7)
    storage, journal = Storage(state), Journal(state / "journal.sqlite")
    # Some 25,000 events, the last of them a moment ago.
    clock = itertools.count(time.time() - 8000, 0.3)
    ledger = Ledger(journal, lambda: next(clock))
    inputs = []
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 255, (8, 12, 3)).astype(np.uint8)
        photo = state / f"photo-{seed}.png"
        cv2.imwrite(str(photo), cv2.resize(noise, (768, 512), interpolation=cv2.INTER_CUBIC))
        (media,) = take_in([photo], storage.incoming_folder())
        storage.put_file(media.path, media.sha256)
        inputs.append(media.model_copy(update={"path": storage.path(media.sha256)}))
    cards = [("RTX 3060", 11.2), ("RTX 4090", 23.1), ("RTX A4000", 15.2), ("GTX 1070", 7.4)]
    names = [f"bench{i // 4:02}/gpu{i % 4}" for i in range(WORKERS)]
    for i, name in enumerate(names):
        device, memory_gib = cards[i % 4]
        ledger.record(
            WorkerJoined(
                worker=Worker(
                    id=name,
                    node=name.partition("/")[0],
                    address=f"192.168.1.{20 + i // 4}",
                    kind="cuda",
                    device_name=device,
                    vram_bytes=round(memory_gib * GIB),
                    price_per_hour=0.05 * (1 + i % 4),
                )
            )
        )
    for number in range(JOBS):
        long = number == JOBS - 1
        job_id = LONG_JOB if long else f"job-{number:012x}"
        request = JobRequest(
            inputs=(inputs[number % 4],),
            prompts=(f"A walk through a city in all weathers, number {number}",),
            model="procedural-typical",
            num_frames=8 + 5 * (SEGMENTS - 1) if long else draw.choice((33, 58, 83)),
            width=512 if long else 256,
            height=512 if long else 256,
            seed=number,
        )
        planned = plan(request, spec_of(request.model))
        ledger.record(JobSubmitted(job_id=job_id, request=request, plan=planned, submitted_by="anna"))
        work = Work(ledger, job_id, names, draw)
        if long:
            assert len(planned.segments) == SEGMENTS, len(planned.segments)
            work.render(SEGMENTS_DONE)
            work.assign(WORKERS)
        elif number % 17 == 5:
            work.render(3)
            ledger.record(JobFailed(job_id=job_id, reason="segment s0-3 failed on every worker"))
        elif number % 23 == 7:
            work.render(2)
            ledger.record(JobCancelled(job_id=job_id))
        else:
            work.render(len(planned.segments))
            ledger.record(
                JobPublished(
                    job_id=job_id,
                    num_frames=planned.num_frames,
                    frames_sha256="0" * 64,
                    size_bytes=500_000,
                    stitch_s=2.0,
                )
            )
    journal.close()


class Work:
    """What workers do for a job, as events in an order that a farm has them in."""

    def __init__(self, ledger: Any, job_id: str, workers: list[str], draw: random.Random) -> None:
        self._ledger, self._job_id, self._draw = ledger, job_id, draw
        self._job = ledger.job(job_id)
        self._running = [
            (task.id, attempt.id, attempt.worker_id)
            for task in self._job.tasks.values()
            for attempt in task.running_attempts
        ]
        busy = {worker_id for _, _, worker_id in self._running}
        self._idle = [worker_id for worker_id in workers if worker_id not in busy]
        self._ready = [self._job.order[number] for number in self._job.ready]

    def render(self, segments: int) -> None:
        """So many segments, from first to last."""
        while segments:
            self.assign(segments - len(self._running))
            segments -= self.finish_one()

    def assign(self, at_most: int) -> None:
        """Give ready segments to idle workers."""
        for _ in range(min(at_most, len(self._idle), len(self._ready))):
            task_id, worker_id = self._ready.pop(0), self._idle.pop(0)
            attempt_id = self._job.attempt_id(self._job.tasks[task_id])
            self._ledger.record(
                TaskAssigned(
                    job_id=self._job_id,
                    task_id=task_id,
                    attempt_id=attempt_id,
                    worker_id=worker_id,
                    rung="resident",
                    need_bytes=3 << 30,
                    predicted_s=4.0,
                    why="resident fits; done soonest here",
                )
            )
            self._running.append((task_id, attempt_id, worker_id))

    def finish_one(self) -> bool:
        """End the oldest attempt; whether it went well, as 99 of 100 do."""
        task_id, attempt_id, worker_id = self._running.pop(0)
        self._idle.append(worker_id)
        ids = {"job_id": self._job_id, "task_id": task_id}
        if self._draw.random() < 0.01:
            lost = AttemptFailed(**ids, attempt_id=attempt_id, kind="lost", message="the worker died")
            self._ledger.record(lost)
            self._ready.insert(0, task_id)
            return False
        sha256 = hashlib.sha256(attempt_id.encode()).hexdigest()
        self._ledger.record(
            AttemptSucceeded(
                **ids,
                attempt_id=attempt_id,
                artifact=Artifact(sha256=sha256, size_bytes=120_000, num_frames=8, frames_sha256=sha256),
                wall_s=3 + self._draw.random(),
                load_s=0.0,
                peak_bytes=2 << 30,
            )
        )
        if task_id != self._job.order[0]:
            failed = self._draw.random() < 0.01
            report = {
                "kind": "morph",
                "overlap": 3,
                "mae_ratio": 1 + 0.4 * self._draw.random() + 0.6 * failed,
                "warp_error_ratio": 1.2,
                "flow_jerk_ratio": 1.1,
                "sharpness_ratio": 0.98,
                "lab_step": 0.4 * self._draw.random(),
                "residual_fraction_of_width": 0.004,
                "valid_fraction": 0.95,
                "scene_cut": False,
                "failed_gates": ["mae"] if failed else [],
            }
            self._ledger.record(SeamMeasured(**ids, take=0, report=report, passed=not failed))
            self._ledger.record(SeamAccepted(**ids, take=0))
        return True


def serve_farm(port: int, state: Path) -> None:
    """Serve it until killed; a number on standard input is of segments to render, at their pace."""
    from dashboard.access.limits import Limits, Rate
    from dashboard.app import create_app
    from dashboard.server import serve
    from farm.running.coordinator import Coordinator
    from farm.running.membership import ClusterAccess, Membership
    from farm.running.storage import Storage
    from farm.state.journal import Journal
    from farm.state.ledger import Ledger
    from nodes.engines.table import known_models, spec_of
    from nodes.hosting.keep_up import media_tools
    from nodes.work.local_cluster import LocalCluster

    async def run() -> None:
        journal = Journal(state / "journal.sqlite")
        ledger = Ledger(journal)
        ledger.replay()
        # It does not run: the workers are history, and what they do next is recorded by ``work``.
        coordinator = Coordinator(
            cluster=LocalCluster([]), ledger=ledger, storage=Storage(state), spec_of=spec_of
        )
        app = create_app(
            coordinator=coordinator,
            membership=Membership(coordinator, cluster=lambda: ClusterAccess("", ""), secret="", versions={}),
            tools=media_tools(),
            state=state,
            access=TOKEN,
            models=known_models,
            # All pages of the benchmark are one person's.
            limits=Limits(read=Rate(10_000, 10_000)),
        )
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )

        async def work() -> None:
            at_work = Work(ledger, LONG_JOB, list(ledger.state.workers), random.Random(1))
            while line := await reader.readline():
                for _ in range(int(line)):
                    at_work.finish_one()
                    at_work.assign(1)
                    await asyncio.sleep(random.expovariate(EVENTS_PER_SECOND))

        working = asyncio.ensure_future(work())
        await serve(app, "127.0.0.1", port)
        working.cancel()

    asyncio.run(run())


if __name__ == "__main__":
    serve_farm(int(sys.argv[1]), Path(sys.argv[2]))
