"""The actors Ray places: one worker an accelerator, one stitcher a job."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from farm.capabilities import Worker
from farm.running import Blob, Failed, Finished, Order, Progress, Role, StitchOrder
from nodes.machine import WORKERS_VARIABLE, threads_per_worker

#: What crosses back to the coordinator: (kind, fields, frames, hand-over). Arrays travel out of band.
Item = tuple[str, dict[str, Any], NDArray[np.uint8] | None, NDArray[np.uint8] | None]


#: How long one wait for a worker's death lasts.
DEATH_CALL_S = 20.0


class _Worker:
    """One accelerator. ``run`` works; the control calls are answered while it does."""

    def __init__(self, worker_id: str) -> None:
        from farm.capabilities import workers_from_json
        from nodes.engines import create_engine
        from nodes.work import BlobCache, Sampler, WorkerBody

        logging.captureWarnings(True)  # they belong into the attempt's log
        described = workers_from_json(os.environ[WORKERS_VARIABLE])
        self._worker = next(w for w in described if w.id == worker_id)
        if self._worker.device_uuid:
            # Before torch is imported: this process sees its own card and no other.
            os.environ["CUDA_VISIBLE_DEVICES"] = self._worker.device_uuid
        # Every CPU worker of this machine has its share of the cores.
        cores = threads_per_worker(described)
        self._body = WorkerBody(self._worker, partial(create_engine, cpu_threads=cores))
        self._sampler = Sampler(self._worker, cores=cores)
        self._blobs = BlobCache()

    def run(self, order_json: str, remote_blobs: dict[str, list[Any]]) -> Iterator[Item]:
        """Carry out an order, yielding progress and then its end. ``remote_blobs``: hash -> [object ref]."""
        order = Order.model_validate_json(order_json)
        if remote_blobs:
            order = order.model_copy(update={"inputs": self._fetched(order, remote_blobs)})
        said: SimpleQueue[Progress | Finished | Failed] = SimpleQueue()
        threading.Thread(target=self._body.run, args=(order, said.put), daemon=True).start()
        while True:
            message = said.get()
            yield _packed(message)
            if not isinstance(message, Progress):
                return

    def _fetched(self, order: Order, remote_blobs: dict[str, list[Any]]) -> dict[Role | str, Blob]:
        """The order's inputs as files of this machine."""
        inputs: dict[Role | str, Blob] = {}
        for role, blob in order.inputs.items():
            reference = remote_blobs[blob.sha256][0]
            path = self._blobs.fetch(blob.sha256, partial(ray.get, reference))
            inputs[role] = Blob(sha256=blob.sha256, path=path)
        return inputs

    @ray.method(concurrency_group="control")
    def describe(self) -> str:
        """This worker, as JSON."""
        return self._worker.model_dump_json()

    @ray.method(concurrency_group="control")
    def cancel(self, attempt_id: str | None) -> None:
        self._body.cancel(attempt_id)

    @ray.method(concurrency_group="telemetry")
    def telemetry(self) -> dict[str, Any]:
        """The fields of a ``Telemetry``, now."""
        return asdict(self._sampler.sample())

    @ray.method(concurrency_group="death")
    def wait_for_death(self) -> None:
        """Returns after a while, to be called again: the caller hears of this process's end as an error.

        A call outlives its caller, so that one without an end would be left behind by every coordinator
        that was killed, until no thread is free.
        """
        time.sleep(DEATH_CALL_S)


def _packed(message: Progress | Finished | Failed) -> Item:
    match message:
        case Finished():
            fields = {k: v for k, v in vars(message).items() if k not in ("content", "handover")}
            handover = None if message.handover is None else np.frombuffer(message.handover, np.uint8)
            return "finished", fields, np.frombuffer(message.content, np.uint8), handover
        case Progress():
            return "progress", vars(message), None, None
        case Failed():
            return "failed", vars(message), None, None


def unpacked(item: Item) -> Progress | Finished | Failed:
    """The message of an item. Frames are not copied: they stay in the object store while it lives."""
    kind, fields, content, handover = item
    if kind == "finished":
        assert content is not None
        return Finished(**fields, content=content.data, handover=None if handover is None else handover.data)
    return Progress(**fields) if kind == "progress" else Failed(**fields)


class _Stitcher:
    """One video being joined, on the coordinator's machine, where the segments are stored."""

    def __init__(self, order_json: str) -> None:
        from nodes.work import Joiner

        self._joiner = Joiner(StitchOrder.model_validate_json(order_json))

    def start(self, segment: str, num_frames: int) -> None:
        self._joiner.start(Blob.model_validate_json(segment), num_frames)

    def propose(self, segment: str, num_frames: int, overlap: int) -> dict[str, Any]:
        return self._joiner.propose(Blob.model_validate_json(segment), num_frames, overlap)

    def accept(self) -> None:
        self._joiner.accept()

    def finish(self) -> str:
        return self._joiner.finish().model_dump_json()

    def close(self) -> None:
        self._joiner.close()


# Never restarted or retried by Ray: what happens after a death is the coordinator's decision.
WorkerActor: Any = ray.remote(
    num_cpus=0,
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"control": 2, "telemetry": 1, "death": 8},
)(_Worker)
StitchActor: Any = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(_Stitcher)


def describe_worker(text: str) -> Worker:
    return Worker.model_validate_json(text)
