"""The real cluster: Ray places, starts, reaches and buries; what runs where is decided elsewhere.

Every node's Ray advertises one resource ``worker-<id>`` a worker. For each one a detached named actor is
made, or found again with its model still loaded, pinned to its node; its death is heard at once through a
call that always waits in it. Ray's Python API is used from one asyncio loop, in the coordinator's process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from farm.capabilities import Worker
from farm.running import (
    Blob,
    Damaged,
    Failed,
    Message,
    Order,
    Published,
    StitchFailed,
    StitchOrder,
    WorkerDown,
    WorkerUp,
)
from farm.state import TELEMETRY_INTERVAL_S, Telemetry
from farm.threads import to_its_end
from nodes.machine import NAMESPACE, OBJECT_STORE_BYTES, RESOURCE_PREFIX, worker_resources
from nodes.ray.actors import StitchActor, WorkerActor, describe_worker, unpacked
from nodes.work import read_content

log = logging.getLogger(__name__)

#: Between looks at which nodes are alive.
POLL_INTERVAL_S = 0.5
#: An actor that has not answered by then is tried again at the next look.
ANSWER_TIMEOUT_S = 60.0
RETRY_INTERVAL_S = 5.0
#: Inputs kept in the object store for remote nodes.
MAX_SHARED_BLOBS = 64


class RayCluster:
    """The port ``Cluster`` over a Ray cluster this process is connected to (``ray.init`` was called)."""

    def __init__(self) -> None:
        self._node_id = ray.get_runtime_context().get_node_id()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._actors: dict[str, Any] = {}
        self._node_of: dict[str, str] = {}
        self._attempts: dict[str, str] = {}
        #: Workers with an actor, or one on its way.
        self._employed: set[str] = set()
        self._released: set[str] = set()
        #: Workers of the nodes that are alive.
        self._places: set[str] = set()
        self._shared: OrderedDict[str, Any] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._look_for_workers())

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._messages.get()) is not None:
            yield message

    def start(self, order: Order) -> None:
        self._attempts[order.attempt_id] = order.worker_id
        self._spawn(self._run(order))

    def cancel(self, attempt_id: str) -> None:
        actor = self._actors.get(self._attempts.get(attempt_id, ""))
        if actor is not None:
            actor.cancel.remote(attempt_id)

    def kill(self, worker_id: str) -> None:
        actor = self._actors.get(worker_id)
        if actor is not None:
            ray.kill(actor)

    async def release(self, worker_id: str) -> None:
        self._released.add(worker_id)
        self.kill(worker_id)

    def enable(self, worker_id: str) -> None:
        self._released.discard(worker_id)

    def has_place(self, worker_id: str) -> bool:
        return worker_id in self._places

    async def open_stitcher(self, order: StitchOrder) -> RayStitchSession:
        actor = StitchActor.options(label_selector={"ray.io/node-id": self._node_id}).remote(
            order.model_dump_json()
        )
        session = RayStitchSession(actor)
        try:
            await session.up()
        except BaseException:
            ray.kill(actor)
            raise
        return session

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._messages.put_nowait(None)

    async def _look_for_workers(self) -> None:
        """Keep an actor on every worker of every node that is alive."""
        while True:
            places = {
                resource.removeprefix(RESOURCE_PREFIX): (resource, node["NodeID"])
                for node in await to_its_end(ray.nodes)
                if node["Alive"]
                for resource in node["Resources"]
                if resource.startswith(RESOURCE_PREFIX)
            }
            for worker_id in self._places - places.keys() - self._employed:
                self._messages.put_nowait(WorkerDown(worker_id, "is gone with its machine"))
            self._places = set(places)
            # A machine that left may come back under its name.
            self._released &= places.keys()
            for worker_id in places.keys() - self._employed - self._released:
                self._employed.add(worker_id)
                self._spawn(self._employ(worker_id, *places[worker_id]))
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _employ(self, worker_id: str, resource: str, node_id: str) -> None:
        """Make or find a worker's actor, announce it, and stay until it dies."""
        actor = WorkerActor.options(
            name=f"worker/{worker_id}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            resources={resource: 1},
            label_selector={"ray.io/node-id": node_id},
        ).remote(worker_id)
        announced = False
        watching: asyncio.Task[None] | None = None
        try:
            worker = describe_worker(await asyncio.wait_for(actor.describe.remote(), ANSWER_TIMEOUT_S))
            # An actor found again may still be at an attempt of a coordinator that is gone.
            await asyncio.wait_for(actor.cancel.remote(None), ANSWER_TIMEOUT_S)
            self._actors[worker_id] = actor
            self._node_of[worker_id] = node_id
            self._messages.put_nowait(WorkerUp(worker))
            announced = True
            watching = self._spawn(self._watch_device(actor))
            while True:
                await actor.wait_for_death.remote()
        except (RayError, TimeoutError) as error:
            reason = "was released" if worker_id in self._released else f"died: {_line(error)}"
            if announced:
                del self._actors[worker_id]
                self._messages.put_nowait(WorkerDown(worker_id, reason))
            else:
                log.warning("worker %s does not come up: %s", worker_id, _line(error))
                if worker_id not in self._places:
                    self._messages.put_nowait(WorkerDown(worker_id, "is gone with its machine"))
                await asyncio.sleep(RETRY_INTERVAL_S)
            # One that is cut off, not dead, may still hold the name.
            ray.kill(actor)
        finally:
            if watching is not None:
                watching.cancel()
            self._employed.discard(worker_id)

    async def _watch_device(self, actor: Any) -> None:
        """One look at a time: a worker that does not answer is not asked again before it has."""
        with suppress(RayError):  # it died; another call tells
            while True:
                await asyncio.sleep(TELEMETRY_INTERVAL_S)
                self._messages.put_nowait(Telemetry(**await actor.telemetry.remote()))

    async def _run(self, order: Order) -> None:
        actor = self._actors.get(order.worker_id)
        try:
            if actor is None:
                raise RayError("the worker is gone")
            shared = {}
            if self._node_of[order.worker_id] != self._node_id:
                shared = {blob.sha256: [await self._share(blob)] for blob in order.inputs.values()}
            stream = actor.run.options(num_returns="streaming").remote(order.model_dump_json(), shared)
            async for reference in stream:
                self._messages.put_nowait(unpacked(await reference))
        except (RayTaskError, Damaged) as error:
            self._messages.put_nowait(Failed(order.attempt_id, "error", _line(error)))
        except RayError as error:
            self._messages.put_nowait(Failed(order.attempt_id, "lost", f"{order.worker_id}: {_line(error)}"))
        finally:
            self._attempts.pop(order.attempt_id, None)

    async def _share(self, blob: Blob) -> Any:
        """A reference to a stored file's content, put into the object store once."""
        if blob.sha256 not in self._shared:
            self._shared[blob.sha256] = await to_its_end(
                lambda: ray.put(np.frombuffer(read_content(blob), np.uint8))
            )
            while len(self._shared) > MAX_SHARED_BLOBS:
                self._shared.popitem(last=False)
        self._shared.move_to_end(blob.sha256)
        return self._shared[blob.sha256]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class RayStitchSession:
    """A ``StitchActor`` and the coordinator's view of it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def up(self) -> None:
        """Wait until its process is up."""
        await self._call(self._actor.__ray_ready__.remote())

    async def start(self, segment: Blob, num_frames: int) -> None:
        await self._call(self._actor.start.remote(segment.model_dump_json(), num_frames))

    async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        report: dict[str, Any] = await self._call(
            self._actor.propose.remote(segment.model_dump_json(), num_frames, overlap)
        )
        return report

    async def accept(self) -> None:
        await self._call(self._actor.accept.remote())

    async def finish(self) -> Published:
        return Published.model_validate_json(await self._call(self._actor.finish.remote()))

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._actor.close.remote(), ANSWER_TIMEOUT_S)
        except (RayError, TimeoutError) as error:
            log.warning("a stitcher did not close: %s", _line(error))
        ray.kill(self._actor)

    async def _call(self, reference: Any) -> Any:
        try:
            return await reference
        except RayTaskError as error:
            raise (Damaged if isinstance(error.cause, Damaged) else StitchFailed)(_line(error)) from error
        except RayError as error:
            raise StitchFailed(f"its process died: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """The one line of a Ray error that says what happened."""
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]


def _quiet() -> None:
    """Ray's own remarks (it is not started from the main thread, ...) are no news to a user."""
    logging.getLogger("ray").setLevel(logging.ERROR)


def start_local(workers: Sequence[Worker], temp_dir: Path) -> None:
    """A Ray of this machine alone that ends with this process, with these workers on it.

    ``temp_dir`` is short: Ray's sockets live below it, and their paths may have 107 characters.

    ``nodes.machine.ray_node.ray_environment`` must be in ``os.environ`` already.
    """
    _quiet()
    ray.init(
        "local",
        num_cpus=len(workers),
        num_gpus=0,
        resources=worker_resources(workers),
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(temp_dir),
    )


def connect(address: str) -> None:
    """Join this process, as the driver, to the Ray at host:port."""
    _quiet()
    ray.init(address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)


def take_back_signals() -> None:
    """Ray's core puts a handler of its own on SIGTERM, which aborts; put ours back. Main thread only."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.getsignal(number))


def disconnect() -> None:
    ray.shutdown()
