"""A farm that stays up: Ray's head, the coordinator, the API, and the machines of the cluster file."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from farm.capabilities import Worker
from farm.client import ENDPOINT_NAME, Endpoint, write_endpoint
from farm.cluster_file import ClusterFile, Machine
from farm.console import err, out
from farm.coordinator import Coordinator
from farm.errors import FarmError, InvalidInput, NotAllowed
from farm.state_folder import locked
from nodes import ssh
from nodes.head import Head, ensure_head, stop_head
from nodes.host import coordinating
from nodes.intake_sandbox import normalise
from nodes.membership import versions
from nodes.ray_node import ray_environment

log = logging.getLogger(__name__)

ACCESS_NAME = "access-token"
#: Machines that come back by themselves after a restart have announced themselves by then.
RETURN_S = 5.0


async def keep_up(
    cluster: ClusterFile,
    workers: Sequence[Worker],
    state: Path,
    create_app: Callable[..., Any],
    serve: Callable[[Any, str, int], Awaitable[None]],
) -> None:
    """Run a farm until cancelled; then stop Ray's head and ask the machines started here to leave.

    A killed process leaves head and workers running, and the next one takes them over.
    """
    loopback = cluster.head.listen in ("127.0.0.1", "localhost")
    with locked(state):
        access = None if loopback else _access_token(state)
        head = await asyncio.to_thread(ensure_head, state, cluster.head.listen, workers)
        os.environ.update(ray_environment(head.token, head.workers))
        from nodes.ray_cluster import RayCluster, connect, disconnect  # reads the environment

        started: list[Machine] = []
        try:
            await asyncio.to_thread(connect, head.address)
            async with coordinating(state, RayCluster()) as coordinator:
                membership = _Membership(coordinator, head)
                app = create_app(
                    coordinator=coordinator, normalise=normalise, access=access, membership=membership
                )
                coordinator.begin_recovered()
                url = f"http://{cluster.head.listen}:{cluster.head.port}"
                serving = asyncio.ensure_future(serve(app, cluster.head.listen, cluster.head.port))
                write_endpoint(state, Endpoint(url=url, token=access))
                _greet(url, loopback, app.state.join_tokens.create)
                starting = asyncio.ensure_future(
                    _start_machines(coordinator, cluster, url, app.state.join_tokens.create, state, started)
                )
                try:
                    await serving
                finally:
                    starting.cancel()
                    serving.cancel()
                    with suppress(asyncio.CancelledError):
                        await serving
        finally:
            (state / ENDPOINT_NAME).unlink(missing_ok=True)
            await asyncio.shield(asyncio.to_thread(_take_down, state, started, disconnect))


class _Membership:
    """What joining and leaving machines are told."""

    def __init__(self, coordinator: Coordinator, head: Head) -> None:
        self._coordinator = coordinator
        self._head = head

    def join(self, node: str) -> dict[str, Any]:
        """What a machine needs to join under this name.

        Raises:
            InvalidInput: the name is taken.
        """
        if self._worker_ids(node):
            raise InvalidInput(f"a node called {node} is here already; choose another --name", param="node")
        return {
            "ray_address": self._head.address,
            "ray_token": self._head.token,
            "versions": versions(),
            "node_token": self._node_token(node),
        }

    def leave(self, node: str, token: str) -> list[str]:
        """Drain a node's workers; returns those that are still here.

        Raises:
            NotAllowed: the token is not this node's.
        """
        if not hmac.compare_digest(token.encode(), self._node_token(node).encode()):
            raise NotAllowed(f"the token is not that of node {node}")
        for worker_id in self._worker_ids(node):
            self._coordinator.drain(worker_id)
        return self._worker_ids(node)

    def _worker_ids(self, node: str) -> list[str]:
        return [w.worker.id for w in self._coordinator.ledger.state.workers.values() if w.worker.node == node]

    def _node_token(self, node: str) -> str:
        """Good for this node and this head alone; nothing has to be remembered."""
        return hmac.new(self._head.token.encode(), node.encode(), hashlib.sha256).hexdigest()


async def _start_machines(
    coordinator: Coordinator,
    cluster: ClusterFile,
    url: str,
    join_token: Callable[[], str],
    state: Path,
    started: list[Machine],
) -> None:
    """Start the cluster file's machines that are not here yet."""
    if cluster.machines:
        await asyncio.sleep(RETURN_S)
    endings = []
    for machine in cluster.machines:
        here = any(w.worker.node == machine.name for w in coordinator.ledger.state.workers.values())
        if here:
            continue
        log_path = state / "machines" / f"{machine.name}.log"
        try:
            process = await asyncio.to_thread(ssh.start_node, machine, url, join_token(), log_path)
        except (OSError, FarmError) as error:
            err.print(f"{machine.name} cannot be started: {error}", style="red", markup=False)
            continue
        started.append(machine)
        endings.append(asyncio.ensure_future(_tell_end(machine, process, log_path)))


async def _tell_end(machine: Machine, process: Any, log_path: Path) -> None:
    status = await asyncio.to_thread(process.wait)
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1] if lines else "it said nothing"
    err.print(f"{machine.name} ended (status {status}): {said}", style="yellow", markup=False)


def _take_down(state: Path, started: Sequence[Machine], disconnect: Callable[[], None]) -> None:
    for machine in started:
        try:
            ssh.stop_node(machine)
        except (OSError, ValueError) as error:
            log.warning("%s was not told to leave: %s", machine.name, error)
    disconnect()
    stop_head(state)


def _access_token(state: Path) -> str:
    """The token of this state folder's farm, made at its first start (mode 0600)."""
    path = state / ACCESS_NAME
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()


def _greet(url: str, loopback: bool, join_token: Callable[[], str]) -> None:
    out.print(f"farm is up at {url}", markup=False)
    if loopback:
        out.print("other machines can join when it is started with --listen ADDRESS", markup=False)
    else:
        out.print(
            f"add a machine: farm join {url.removeprefix('http://')} --token {join_token()}",
            markup=False,
            soft_wrap=True,
        )
