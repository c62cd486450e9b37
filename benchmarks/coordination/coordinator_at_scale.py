"""What a coordinator of 10,000 workers and 1,000,000 segments takes: of a core, at a stretch, of memory.

    python -m benchmarks.coordination.coordinator_at_scale [--workers 10000] [--jobs 200]
        [--segments 1000000] [--rendered 0.9] [--seconds 60] [--out ...json]

The coordinator with its ledger, journal, storage, feed and compaction is the real one. Workers are fed to it
in this process, as messages with real times: they come, tell of their devices and steps as often as a farm of
their number is asked to, and end their segments after 10 s times 1, 1.6, 2.5 or 6 (``simulated/jobs.py``).
Results have no bytes worth storing and videos are not joined, but seams are measured and kept. Five watchers
follow everything.

First a journal is written in which the share ``--rendered`` of the jobs is over, and replayed; then the farm
works, a while by itself and once more while its journal is compacted; then that is replayed. Seconds are of
a process alone on its core (``_cpu_loop``), whoever else uses the machine: a share of a core is CPU seconds
over them; ``feeding_share`` of it is this file's own. How long the loop is held up is how late a timer of 5
ms comes. The child that makes a snapshot works while the farm stands still, for it has its own core; what
it sends comes a frame every 10 ms. Memory is the resident size of the coordinator, and the largest of the
child.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import psutil

from benchmarks.coordination._cpu_loop import CpuLoop
from benchmarks.simulated.jobs import cards, submitted
from dashboard.live.feed import Feed
from farm.capabilities.engine_spec import EngineSpec
from farm.capabilities.weights import Weights
from farm.capabilities.worker import Worker
from farm.keeping.compaction import HEAD_BYTES, compact
from farm.running.cluster import Blob, Finished, Message, Order, Progress, Published, StitchOrder, WorkerUp
from farm.running.coordinator import Coordinator
from farm.running.storage import Storage
from farm.state.events import JobSubmitted, WorkerJoined
from farm.state.journal import Journal, Row
from farm.state.ledger import Ledger
from farm.state.workers import Telemetry, progress_interval_s, telemetry_interval_s

#: Seconds of a window on the fastest card, and of bringing a model there.
WINDOW_S, LOAD_S = 10.0, 5.0
WATCHERS = 5
TIMER_S = 0.005
#: When each begins, as a share of the time that it all takes.
PHASES = {"load": 0.0, "encode": 0.02, "denoise": 0.05, "decode": 0.92, "transfer": 0.98}
_CONTENT = b"a segment"


class Unjoined:
    """Takes every segment and joins none."""

    async def start(self, segment: Blob, num_frames: int) -> None: ...

    async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        return {"failed_gates": [], "mae_ratio": 1.03, "warp_error_ratio": 1.2, "scene_cut": False}

    async def accept(self) -> None: ...

    async def finish(self) -> Published:
        return Published(num_frames=0, frames_sha256="0" * 64, size_bytes=0, sha256="0" * 64)

    async def close(self) -> None: ...


class Fed:
    """A cluster of workers that are numbers: what they would say comes when they would say it."""

    def __init__(self, workers: dict[Worker, float]) -> None:
        self._slower = {worker.id: slower for worker, slower in workers.items()}
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._coming: list[tuple[float, int, Message]] = []
        self._tie = 0
        self._draw = random.Random(1)
        self._warm: set[str] = set()
        self._num = len(workers)
        self.num_said = self.num_ended = 0
        #: CPU seconds of this class.
        self.cpu_s = 0.0
        for worker in workers:
            self._messages.put_nowait(WorkerUp(worker))

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            yield await self._messages.get()
            self.num_said += 1

    async def tell(self) -> None:
        """Say what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        for number, worker_id in enumerate(self._slower):
            interval_s = telemetry_interval_s(self._num)
            self._at(loop.time() + interval_s * number / self._num, Telemetry(worker_id, load=0.9))
        while True:
            began, now = time.thread_time(), loop.time()
            while self._coming and self._coming[0][0] <= now:
                due, _, message = heappop(self._coming)
                if isinstance(message, Telemetry):
                    self._at(due + telemetry_interval_s(self._num), message)
                self.num_ended += isinstance(message, Finished)
                self._messages.put_nowait(message)
            self.cpu_s += time.thread_time() - began
            await asyncio.sleep(0.02)

    def start(self, order: Order) -> None:
        began, now = time.thread_time(), asyncio.get_running_loop().time()
        load_s = 0.0 if order.worker_id in self._warm else LOAD_S
        self._warm.add(order.worker_id)
        took = load_s + WINDOW_S * self._slower[order.worker_id] * self._draw.uniform(0.95, 1.05)
        for phase, share in PHASES.items():
            self._at(now + took * share, Progress(order.attempt_id, phase, 0, 1))
        steps, every_s = order.task.num_inference_steps, max(0.2, progress_interval_s(self._num))
        told = now
        for step in range(1, steps + 1):
            at = now + load_s + (took - load_s) * (0.1 + 0.8 * step / steps)
            if at - told >= every_s:
                told = at
                self._at(at, Progress(order.attempt_id, "denoise", step, steps))
        self._at(now + took, finished(order.attempt_id, took, load_s))
        self.cpu_s += time.thread_time() - began

    def _at(self, when: float, message: Message) -> None:
        self._tie += 1
        heappush(self._coming, (when, self._tie, message))

    def cancel(self, attempt_id: str) -> None: ...

    def kill(self, worker_id: str) -> None: ...

    async def release(self, worker_id: str) -> None: ...

    def enable(self, worker_id: str) -> None: ...

    def has_place(self, worker_id: str) -> bool:
        return True

    def expel(self, node: str) -> None: ...

    async def open_stitcher(self, order: StitchOrder) -> Unjoined:
        return Unjoined()

    async def close(self) -> None: ...


def finished(attempt_id: str, wall_s: float, load_s: float) -> Finished:
    return Finished(
        attempt_id=attempt_id,
        content=memoryview(_CONTENT),
        handover=None,
        num_frames=8,
        frames_sha256=hashlib.sha256(attempt_id.encode()).hexdigest(),
        content_sha256=hashlib.sha256(_CONTENT).hexdigest(),
        handover_sha256=None,
        wall_s=wall_s,
        load_s=load_s,
        peak_bytes=3 << 30,
    )


def history(event: JobSubmitted, num_rendered: int, workers: list[str], at: float) -> Iterator[Row]:
    """A job's events as a journal has them."""
    yield Row(0, at, event.model_dump_json())
    for number, segment in enumerate(event.plan.segments[:num_rendered]):
        attempt = f"{event.job_id}/{segment.id}/1"
        ids = f'"job_id":"{event.job_id}","task_id":"{segment.id}"'
        worker_id = workers[number % len(workers)]
        yield Row(
            0,
            at + number,
            f'{{"type":"task_assigned",{ids},"attempt_id":"{attempt}","worker_id":"{worker_id}",'
            '"rung":"resident","need_bytes":4831838208,"predicted_s":16.2,'
            '"why":"resident fits (4.50 GiB of 12.00 GiB); done soonest here, in 16.2 s"}',
        )
        sha256 = hashlib.sha256(attempt.encode()).hexdigest()
        yield Row(
            0,
            at + number + 16,
            f'{{"type":"attempt_succeeded",{ids},"attempt_id":"{attempt}","artifact":{{"sha256":"{sha256}",'
            f'"size_bytes":812345,"num_frames":8,"frames_sha256":"{sha256[::-1]}"}},'
            '"wall_s":16.25,"load_s":0.0,"peak_bytes":4731838208}',
        )


def write_journal(path: Path, args: argparse.Namespace, workers: dict[Worker, float]) -> None:
    """Whole jobs are rendered, as many as that share, and the others have only begun."""
    journal = Journal(path)
    here = [Row(0, 1e9, WorkerJoined(worker=worker).model_dump_json()) for worker in workers]
    journal.take_over("", here)
    journal._db.execute("UPDATE events SET job_id = NULL")
    names = [worker.id for worker in workers]
    each, now = args.segments // args.jobs, time.time() - 1e5
    for number in range(args.jobs):
        job_id = f"job-{number:012x}"
        event = submitted(job_id, each, person=f"person{number % 20}")
        whole = number < args.rendered * args.jobs
        rows = list(history(event, len(event.plan.segments) if whole else 0, names[number:], now))
        if whole:
            published = {"num_frames": 8, "frames_sha256": "0" * 64, "size_bytes": 1, "stitch_s": 100.0}
            body = json.dumps({"type": "job_published", "job_id": job_id} | published)
            rows.append(Row(0, now + each + 20, body))
        journal.take_over(job_id, rows)
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    journal.close()


class HeldUp:
    """How late a timer comes."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def watch(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due = now() + TIMER_S
            await asyncio.sleep(TIMER_S)
            self.late_s.append(now() - due)

    def told(self) -> dict[str, float]:
        late = sorted(self.late_s)
        return {
            "longest_held_up_ms": round(1e3 * late[-1], 1),
            "p99_held_up_ms": round(1e3 * late[len(late) * 99 // 100], 1),
        }


async def measured(fed: Fed, ledger: Ledger, seconds: float, until: asyncio.Future[Any] | None = None) -> Any:
    """What so many seconds take, or as long as ``until`` is not done."""
    held = HeldUp()
    watching = asyncio.ensure_future(held.watch())
    now = asyncio.get_running_loop().time
    started, cpu_s, feeding_s = now(), time.process_time(), fed.cpu_s
    said, ended, seq = fed.num_said, fed.num_ended, ledger.last_seq
    if until is None:
        await asyncio.sleep(seconds)
    else:
        await until
    took, cpu_s = now() - started, time.process_time() - cpu_s
    watching.cancel()
    return {
        "seconds": round(took, 1),
        "messages_per_s": round((fed.num_said - said) / took),
        "results_per_s": round((fed.num_ended - ended) / took, 1),
        "events_per_s": round((ledger.last_seq - seq) / took),
        "share_of_a_core": round(cpu_s / took, 3),
        "feeding_share": round((fed.cpu_s - feeding_s) / took, 3),
        "messages_waiting": fed._messages.qsize(),
        **held.told(),
        "memory_gb": memory_gb(),
    }


def memory_gb() -> float:
    return round(psutil.Process().memory_info().rss / 1e9, 2)


def replayed(path: Path, monotonic: Callable[[], float]) -> tuple[Ledger, dict[str, float]]:
    journal = Journal(path)
    started = time.process_time()
    ledger = Ledger(journal, monotonic=monotonic)
    ledger.replay()
    return ledger, {"replay_cpu_s": round(time.process_time() - started, 1), "memory_gb": memory_gb()}


async def work(state: Path, args: argparse.Namespace, workers: dict[Worker, float]) -> dict[str, Any]:
    path = state / "journal.sqlite"
    ledger, found = replayed(path, asyncio.get_running_loop().time)
    result: dict[str, Any] = {"started": found | {"journal_gb": size_gb(path)}}
    storage, fed = Storage(state), Fed(workers)
    ledger.recover(lambda _: True)
    coordinator = Coordinator(cluster=fed, ledger=ledger, storage=storage, spec_of=unasked)
    running = asyncio.ensure_future(coordinator.run())
    while len(ledger.state.workers) < len(workers):
        await asyncio.sleep(0.1)
    for job in ledger.state.jobs.values():
        if job.status == "running":
            coordinator.begin(job)
    feed = Feed(ledger)
    beside = [asyncio.ensure_future(fed.tell())]
    beside += [asyncio.ensure_future(watch(feed)) for _ in range(WATCHERS)]
    await asyncio.sleep(args.warm_up)
    result["working"] = await measured(fed, ledger, args.seconds)
    compacting = asyncio.ensure_future(compact(ledger, storage, sent_slowly))
    result["compacting"] = await measured(fed, ledger, 0.0, compacting)
    result["child_memory_gb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, 2)
    feed.close()
    for task in (running, *beside):
        task.cancel()
    await asyncio.gather(running, *beside, return_exceptions=True)
    ledger.journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    ledger.journal.close()
    return result


async def sent_slowly(*asked: Any) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """The frames of a child, which has made them before the first is given."""
    command = [sys.executable, "-m", "farm.keeping.compactor", *map(str, asked)]
    text = memoryview(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    while text:
        end = HEAD_BYTES + int.from_bytes(text[1:HEAD_BYTES], "big")
        yield bytes(text[:1]), bytes(text[HEAD_BYTES:end])
        text = text[end:]
        await asyncio.sleep(0.01)


def unasked(model: str, weights: Weights) -> EngineSpec:
    """All plans are made."""
    raise NotImplementedError(model)


async def watch(feed: Feed) -> None:
    async for _ in feed.messages():
        pass


def size_gb(path: Path) -> float:
    return round(path.stat().st_size / 1e9, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--rendered", type=float, default=0.9, help="share of the jobs that are done already")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds before anything is measured")
    parser.add_argument("--replay", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.replay:
        print(json.dumps(replayed(args.replay, time.monotonic)[1]))
        return
    workers = cards(args.workers, random.Random(1))
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        path = state / "journal.sqlite"
        # In a process of its own, whose memory goes with it.
        if (child := os.fork()) == 0:
            write_journal(path, args, workers)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "the journal was not written"
        with asyncio.Runner(loop_factory=CpuLoop) as runner:
            result = runner.run(work(state, args, workers))
        command = [
            sys.executable,
            "-m",
            "benchmarks.coordination.coordinator_at_scale",
            "--replay",
            str(path),
        ]
        again = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        result["started_again"] = json.loads(again) | {"journal_gb": size_gb(path)}
    machine = {"cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}
    called = "python -m benchmarks.coordination.coordinator_at_scale " + shlex.join(sys.argv[1:])
    text = json.dumps({"command": called, "machine": machine, **result}, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
