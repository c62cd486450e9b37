"""A cluster in this process: every worker a thread. For tests, and where Ray has nothing to add."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from farm.capabilities import Worker
from farm.running import (
    Blob,
    Damaged,
    Failed,
    Finished,
    Message,
    Order,
    Progress,
    Published,
    StitchFailed,
    StitchOrder,
    WorkerDown,
    WorkerUp,
)
from farm.state import TELEMETRY_INTERVAL_S, Telemetry
from nodes.engines import create_engine
from nodes.machine import threads_per_worker
from nodes.work.joiner import Joiner
from nodes.work.telemetry import Sampler
from nodes.work.worker import CreateEngine, WorkerBody


class LocalCluster:
    """``farm.running.cluster.Cluster`` over threads. Machines do not come and go; ``kill`` only forgets one.

    Load and memory are the process's: where several workers share it, they are not known of any of them.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        engine_factory: CreateEngine | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._cores = threads_per_worker(workers)
        self._create_engine = engine_factory or partial(create_engine, cpu_threads=self._cores)
        self._bodies: dict[str, WorkerBody] = {}
        self._orders: dict[str, SimpleQueue[Order | None]] = {}
        self._samplers: dict[str, Sampler] = {}
        self._released: dict[str, Worker] = {}
        for worker in workers:
            self.add(worker)
        self._watching = asyncio.ensure_future(self._watch_devices())

    def add(self, worker: Worker) -> None:
        """A worker joins."""
        body = WorkerBody(worker, self._create_engine)
        orders: SimpleQueue[Order | None] = SimpleQueue()
        self._bodies[worker.id] = body
        self._orders[worker.id] = orders
        self._samplers[worker.id] = Sampler(worker, cores=self._cores)
        threading.Thread(target=self._work, args=(body, orders), daemon=True, name=worker.id).start()
        self._messages.put_nowait(WorkerUp(worker))

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._messages.get()) is not None:
            yield message

    def start(self, order: Order) -> None:
        orders = self._orders.get(order.worker_id)
        if orders is not None:  # else its WorkerDown is on its way
            orders.put(order)

    def cancel(self, attempt_id: str) -> None:
        for body in self._bodies.values():
            body.cancel(attempt_id)

    def kill(self, worker_id: str) -> None:
        self._end(worker_id, "was killed")

    async def release(self, worker_id: str) -> None:
        body = self._bodies.get(worker_id)
        if body is not None:
            self._released[worker_id] = body.worker
            self._end(worker_id, "was released")

    def enable(self, worker_id: str) -> None:
        worker = self._released.pop(worker_id, None)
        if worker is not None:
            self.add(worker)

    def has_place(self, worker_id: str) -> bool:
        return worker_id in self._bodies or worker_id in self._released

    def expel(self, node: str) -> None:
        for body in list(self._bodies.values()):
            if body.worker.node == node:
                self._end(body.worker.id, "was removed")

    async def open_stitcher(self, order: StitchOrder) -> LocalStitchSession:
        return await LocalStitchSession.open(order)

    async def close(self) -> None:
        self._watching.cancel()
        for worker_id in list(self._bodies):
            self._end(worker_id, "was closed")
        self._messages.put_nowait(None)

    def _end(self, worker_id: str, reason: str) -> None:
        body = self._bodies.pop(worker_id, None)
        if body is not None:
            body.cancel(None)
            self._orders.pop(worker_id).put(None)
            del self._samplers[worker_id]
            self._messages.put_nowait(WorkerDown(worker_id, reason))

    async def _watch_devices(self) -> None:
        while True:
            await asyncio.sleep(TELEMETRY_INTERVAL_S)
            for sample in await asyncio.to_thread(_samples, list(self._samplers.values())):
                self._messages.put_nowait(sample)

    def _work(self, body: WorkerBody, orders: SimpleQueue[Order | None]) -> None:
        while (order := orders.get()) is not None:
            body.run(order, self._say)

    def _say(self, message: Progress | Finished | Failed) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)


def _samples(samplers: Sequence[Sampler]) -> list[Telemetry]:
    samples = [sampler.sample() for sampler in samplers]
    if len(samples) == 1:
        return samples
    return [replace(sample, load=None, memory_used_bytes=None) for sample in samples]


class LocalStitchSession:
    """A ``Joiner`` in a thread of its own: a call that was given up ends before ``close`` begins."""

    _joiner: Joiner

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="joiner")

    @classmethod
    async def open(cls, order: StitchOrder) -> LocalStitchSession:
        session = cls()
        session._joiner = await session._call(Joiner, order)
        return session

    async def start(self, segment: Blob, num_frames: int) -> None:
        await self._call(self._joiner.start, segment, num_frames)

    async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        report: dict[str, Any] = await self._call(self._joiner.propose, segment, num_frames, overlap)
        return report

    async def accept(self) -> None:
        await self._call(self._joiner.accept)

    async def finish(self) -> Published:
        published: Published = await self._call(self._joiner.finish)
        return published

    async def close(self) -> None:
        await self._call(self._joiner.close)
        self._thread.shutdown(wait=False)

    async def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
        except Damaged:
            raise
        except Exception as error:  # a stitcher may fail in any way; the job says how
            raise StitchFailed(str(error)) from error
