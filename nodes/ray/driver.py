"""Ray's driver, in a process of its own: it places workers, starts them, and tells when they end.

    python -m nodes.ray.driver     (the coordinator starts it; JSON lines in and out)

The coordinator's process holds no Ray, so that none of Ray's ways to end a process ends the farm, and so that
nothing of a node can be unpickled there. It is not unpickled here either: what a node returns or raises is
never asked for, and what Ray would read by itself (an error that nobody fetched, the class behind an actor's
name) is refused.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from typing import Any, BinaryIO

import psutil
import ray
from ray.exceptions import RayError

from nodes.machine import ESSENTIAL_PROCESSES, NAMESPACE, OBJECT_STORE_BYTES, RESOURCE_PREFIX
from nodes.ray.actors import WorkerActor
from nodes.ray.protocol import Employ, Ended, Kill, Nodes, Place, Start, asked

#: Between looks at which nodes are alive, and which workers have ended.
POLL_INTERVAL_S = 0.5


class Driver:
    """Carries out what the coordinator asks for, one thing after the other."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._node_id = ray.get_runtime_context().get_node_id()
        self._actors: dict[str, Any] = {}
        #: reference of a call that lasts as long as a worker serves -> (worker, number of its employment).
        self._serving: dict[Any, tuple[str, int]] = {}

    def work(self, commands: CommandLines) -> None:
        """Until the coordinator is gone."""
        while True:
            lines = commands.read(POLL_INTERVAL_S)
            if lines is None:
                return
            for line in lines:
                match asked(line):
                    case Employ() as employ:
                        self._employ(employ)
                    case Kill(worker_id=worker_id):
                        self._kill(worker_id)
            self._tell(_nodes(self._node_id))
            self._tell_ends()

    def _employ(self, asked: Employ) -> None:
        try:
            self._serving[self._served(asked)] = (asked.worker_id, asked.number)
        except (RayError, ValueError, RuntimeError) as error:
            print(f"{asked.worker_id} cannot be started: {error}", file=sys.stderr)
            self._tell(Ended(worker_id=asked.worker_id, number=asked.number))

    def _served(self, asked: Employ) -> Any:
        """The reference of a call that lasts as long as the worker serves."""
        actor = WorkerActor.options(
            name=_name(asked.worker_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            resources={f"{RESOURCE_PREFIX}{asked.worker_id}": 1},
            label_selector={"ray.io/node-id": asked.node_id},
        ).remote(asked.worker_id)
        self._actors[asked.worker_id] = actor
        return actor.serve.remote(asked.host, asked.port, asked.secret)

    def _kill(self, worker_id: str) -> None:
        try:
            actor = self._actors.get(worker_id) or ray.get_actor(_name(worker_id), namespace=NAMESPACE)
        except ValueError:
            return  # there is none
        ray.kill(actor)

    def _tell_ends(self) -> None:
        if not self._serving:
            return
        references = list(self._serving)
        ended, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
        for reference in ended:
            worker_id, number = self._serving.pop(reference)
            self._tell(Ended(worker_id=worker_id, number=number))

    def _tell(self, message: Nodes | Ended) -> None:
        self._answers.write(message.model_dump_json().encode() + b"\n")
        self._answers.flush()


class CommandLines:
    """The coordinator's lines, as they come."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def read(self, timeout_s: float) -> list[bytes] | None:
        """Those that come within this time; None: there will be none any more."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return []
        read = os.read(self._fd, 1 << 20)
        if not read:
            return None
        *lines, self._rest = (self._rest + read).split(b"\n")
        return lines

    def first(self) -> bytes | None:
        """The first line; None: the coordinator is gone."""
        while not (lines := self.read(60.0)):
            if lines is None:
                return None
        return lines[0]


def _name(worker_id: str) -> str:
    return f"worker/{worker_id}"


def _nodes(own: str) -> Nodes:
    """The workers of the nodes that are alive, as the nodes claim them."""
    places, alive = [], set()
    for node in ray.nodes():
        if node["Alive"]:
            alive.add(node["NodeID"])
            places += [
                Place(
                    worker_id=resource.removeprefix(RESOURCE_PREFIX),
                    node_id=node["NodeID"],
                    same_machine=node["NodeID"] == own,
                    address=node["NodeManagerAddress"],
                    ports=(node["NodeManagerPort"], node["ObjectManagerPort"]),
                )
                for resource in node["Resources"]
                if resource.startswith(RESOURCE_PREFIX)
            ]
    return Nodes(places=tuple(places), here=own in alive, pids=_essential())


def _essential() -> tuple[int, ...]:
    """Of a Ray that this process has started itself."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.name() in ESSENTIAL_PROCESSES:
                found.append(child.pid)
        except psutil.Error:
            continue
    return tuple(found)


def _read_nothing_of_nodes() -> None:
    """Have Ray unpickle no object in this process, and load no class but ours.

    Ray reads an error that nobody fetched, to print it; and a class from the cluster's store, for whoever
    looks up an actor by its name. Whoever has Ray's token may have written both.
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the driver reads no object of a node")

    worker = ray._private.worker.global_worker
    worker.deserialize_objects = refuse
    worker.raise_errors = lambda *_, **__: None
    ours = WorkerActor.__ray_metadata__.modified_class
    worker.function_actor_manager.load_actor_class = lambda *_: ours


def _start(start: Start) -> None:
    """Be the driver of a Ray that runs, or of one that is started for it and ends with it."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # its own remarks are no news to a user
    if start.address:
        ray.init(start.address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    else:
        ray.init(
            "local",
            num_cpus=len(start.worker_ids),
            num_gpus=0,
            resources={f"{RESOURCE_PREFIX}{worker_id}": 1 for worker_id in start.worker_ids},
            namespace=NAMESPACE,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(start.temp_dir),
        )


def main() -> int:
    # What is printed, by Ray too, goes to standard error; lines of ours go where the coordinator reads.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's; it ends this process
    commands = CommandLines(sys.stdin.fileno())
    line = commands.first()
    if line is None:
        return 0
    try:
        start = Start.model_validate_json(line)
        _start(start)
    except (OSError, RuntimeError, ValueError) as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1
    _read_nothing_of_nodes()
    Driver(answers).work(commands)
    if start.address:
        # Whoever started that Ray ends it, or goes on with it. Ray's own leave takes seconds, and does not
        # end where a machine has died.
        os._exit(0)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
