"""A farm that stays up: Ray's head, the coordinator, the API, and the machines of the cluster file."""

from __future__ import annotations

import asyncio
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
from farm.errors import FarmError
from farm.membership import Membership
from farm.state_folder import locked
from nodes import ssh
from nodes.head import ensure_head, stop_head
from nodes.host import coordinating
from nodes.intake_sandbox import normalise
from nodes.member import versions
from nodes.ray_node import ray_environment
from nodes.registry import named_spec_of, spec_of
from nodes.to_its_end import to_its_end

log = logging.getLogger(__name__)

ACCESS_NAME = "access-token"
#: Logs and host keys of the machines started over SSH.
MACHINES_NAME = "machines"
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
        # Only now: importing Ray reads the environment.
        from nodes.ray_cluster import RayCluster, connect, disconnect, take_back_signals

        started: list[Machine] = []
        try:
            await to_its_end(connect, head.address)
            take_back_signals()
            async with coordinating(
                state, RayCluster(), spec_of if loopback else named_spec_of
            ) as coordinator:
                membership = Membership(
                    coordinator, cluster_address=head.address, secret=head.token, versions=versions()
                )
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
            await to_its_end(_take_down, state, started, disconnect)


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
    folder = state / MACHINES_NAME
    endings = []
    for machine in cluster.machines:
        here = any(w.worker.node == machine.name for w in coordinator.ledger.state.workers.values())
        if here:
            continue
        try:
            process = await asyncio.to_thread(ssh.start_node, machine, url, join_token(), folder)
        except (OSError, ValueError, FarmError) as error:
            err.print(f"{machine.name} cannot be started: {error}", style="red", markup=False)
            continue
        started.append(machine)
        endings.append(asyncio.ensure_future(_tell_end(machine, process, ssh.log_path(machine, folder))))


async def _tell_end(machine: Machine, process: Any, log_path: Path) -> None:
    status = await asyncio.to_thread(process.wait)
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1] if lines else "it said nothing"
    err.print(f"{machine.name} ended (status {status}): {said}", style="yellow", markup=False)


def _take_down(state: Path, started: Sequence[Machine], disconnect: Callable[[], None]) -> None:
    for machine in started:
        try:
            ssh.stop_node(machine, state / MACHINES_NAME)
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
