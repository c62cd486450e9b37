"""The actor Ray places: one worker an accelerator. What it says goes over a connection of its own.

Ray starts it, keeps it and tells of its end. Nothing that it returns or raises is ever read.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

import ray

from farm.capabilities import workers_from_json
from farm.errors import FarmError
from farm.running import Blob, Failed, Finished, Order, Progress, Role
from nodes.link import WorkerEnd, connect
from nodes.machine import MODELS_PORT_VARIABLE, WORKERS_VARIABLE, threads_per_worker

#: What a process list shows of a worker: at work, and waiting for it.
_MIB = 2**20
WORKING, WAITING = "ray::_Worker.run", "ray::_Worker.serve"


class _Worker:
    """One accelerator. It serves one coordinator at a time: the last that called."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id
        self._serving = threading.Lock()
        self._end: WorkerEnd | None = None
        self._work: _Work | None = None

    def serve(self, host: str, port: int, secret: str) -> None:
        """Work for the coordinator there, until the connection to it ends."""
        before = self._end
        if before is not None:
            before.close()
        with self._serving:
            end = self._end = connect(host, port, self._worker_id, secret)
            try:
                self._work = self._work or _Work(self._worker_id)
            except Exception as error:
                end.tell_broken(error)
                raise
            finally:
                if self._work is None:
                    end.close()
            self._work.serve(end)


@dataclass
class _Service:
    """What one coordinator has given and has not heard the end of."""

    end: WorkerEnd
    open: set[str] = field(default_factory=set)

    def tell(self, message: Progress | Finished | Failed) -> None:
        if not isinstance(message, Progress):
            self.open.discard(message.attempt_id)
        self.end.tell(message)


class _TakenBack(Exception):
    """An attempt is to be stopped."""


class _Work:
    """What stays between two coordinators: the engine with its model loaded, and the inputs fetched."""

    def __init__(self, worker_id: str) -> None:
        import cv2

        from nodes.engines import create_engine, import_engines
        from nodes.work import BlobCache, Sampler, WorkerBody, WorkerModels

        logging.captureWarnings(True)  # they belong into the attempt's log
        described = workers_from_json(os.environ[WORKERS_VARIABLE])
        self._worker = next(w for w in described if w.id == worker_id)
        if self._worker.device_uuid:
            # Before torch is imported: this process sees its own card and no other.
            os.environ["CUDA_VISIBLE_DEVICES"] = self._worker.device_uuid
        cores = threads_per_worker(described)
        cv2.setNumThreads(cores)  # it would take all of the machine's, as every worker beside this one
        if self._worker.kind == "cuda":
            import_engines()  # a worker that says that it is here can begin
        self._body = WorkerBody(self._worker, partial(create_engine, cpu_threads=cores))
        self._sampler = Sampler(self._worker, cores=cores)
        self._blobs = BlobCache()
        port = os.environ.get(MODELS_PORT_VARIABLE)
        self._models = WorkerModels(self._worker.address, int(port) if port else None)
        self._orders: SimpleQueue[tuple[Order, _Service]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="work").start()

    def serve(self, end: WorkerEnd) -> None:
        """Carry out what comes over a connection, until it ends; then stop what is still at work for it."""
        service, ended = _Service(end), threading.Event()
        end.introduce(self._worker)
        self._models.serve(end)
        threading.Thread(target=self._tell_device, args=(end, ended), daemon=True, name="telemetry").start()

        def begin(order: Order) -> None:
            service.open.add(order.attempt_id)
            self._orders.put((order, service))

        try:
            end.serve(begin, self._body.cancel)
        finally:
            ended.set()
            for attempt_id in list(service.open):
                self._body.cancel(attempt_id)

    def _run(self) -> None:
        while True:
            order, service = self._orders.get()
            _show(WORKING)
            try:
                fetched = self._fetched(order, service.end)
                self._bring_model(order, service)
            except (OSError, ValueError) as error:
                service.tell(Failed(order.attempt_id, "error", str(error)))
            except FarmError as error:
                service.tell(Failed(order.attempt_id, "cannot_start", error.message))
            else:
                self._body.run(fetched, service.tell)
            _show(WAITING)

    def _bring_model(self, order: Order, service: _Service) -> None:
        """Have the model of an order on this machine; nothing where it was taken back meanwhile.

        Raises:
            FarmError, OSError: it does not come.
        """

        def report(done_bytes: int, total_bytes: int) -> None:
            if self._body.is_cancelled(order.attempt_id):
                raise _TakenBack
            done, total = done_bytes // _MIB, max(1, total_bytes // _MIB)
            service.tell(Progress(order.attempt_id, "fetch", min(done, total), total))

        if service.end.same_machine:
            return  # the farm has it, or it would not have planned with it
        with suppress(_TakenBack):
            self._models.need(order, service.end, report)

    def _fetched(self, order: Order, end: WorkerEnd) -> Order:
        """The order with its inputs as files of this machine.

        Raises:
            OSError, ValueError: one of them does not come, or comes damaged.
        """
        if end.same_machine:
            return order
        inputs: dict[Role | str, Blob] = {}
        for role, blob in order.inputs.items():
            path = self._blobs.fetch(blob.sha256, partial(end.fetch, blob.sha256))
            inputs[role] = Blob(sha256=blob.sha256, path=path)
        return order.model_copy(update={"inputs": inputs})

    def _tell_device(self, end: WorkerEnd, ended: threading.Event) -> None:
        while not ended.wait(end.telemetry_interval_s):
            end.tell_device(self._sampler.sample())


def _show(title: str) -> None:
    with suppress(AttributeError):  # Ray's own, and no part of its API
        ray._raylet.setproctitle(title)


# Never restarted or retried by Ray: what happens after a death is the coordinator's decision.
WorkerActor: Any = ray.remote(
    num_cpus=0,
    max_restarts=0,
    max_task_retries=0,
    max_concurrency=4,
)(_Worker)
