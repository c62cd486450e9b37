"""A farm that stays up: Ray's head, the coordinator, the API, and the machines of the cluster file."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from farm.addresses import is_loopback, resolved, url_of
from farm.capabilities import Worker
from farm.endpoint import Endpoint, remove_endpoint, write_endpoint
from farm.errors import CannotRun, FarmError, InvalidInput
from farm.machines import ClusterFile, Machine, Ports, check_pages, parse_ports
from farm.reporting import console
from farm.request import MediaTools
from farm.running import ClusterAccess, Coordinator, Membership
from farm.state import locked, replayed, write_private
from farm.threads import to_its_end, to_its_end_or_given_up
from nodes.engines import files_of, known_models, named_spec_of, shape_of, spec_of
from nodes.hosting.host import DRIVER_LOG_NAME, coordinating
from nodes.hosting.licences import licensed
from nodes.interpolation import check_chosen
from nodes.machine import (
    allowed_hosts,
    ensure_head,
    head_pids,
    how_to_join,
    own_addresses,
    ray_environment,
    reachable_address,
    remembered_head,
    restart_head,
    spend_token,
    ssh,
    stop_head,
    versions,
)
from nodes.media import backdrop, normalise, pictures
from nodes.model_store import House
from nodes.ray import Launch, RayCluster, Start
from nodes.work import StitchProcess

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
    *,
    node_key: Path | None = None,
    as_json: bool = False,
) -> None:
    """Run a farm until cancelled; then stop Ray's head and ask the machines started here to leave.

    A killed process leaves head and workers running, and the next one takes them over.

    Args:
        create_app: ``dashboard.app.create_app``; ``serve``: ``dashboard.server.serve``.
        node_key: a file that is to hold a key for nodes, for machines that are started beside this one.
        as_json: tell programs, not people, where it is once it is up.

    Raises:
        InvalidInput, CannotRun: an address, a name or a file cannot be used; another farm works in ``state``.
    """
    check_chosen()
    listen, own = cluster.head.listen, own_addresses()
    # Models by their path on this disk are for those who sit here. Through a proxy, others do as if.
    address = reachable_address(listen, own)
    # Names are for people; Ray and the workers get an address.
    host = resolved(address)
    ports = None if is_loopback(host) else parse_ports(cluster.head.ports)
    if ports is None and node_key is not None:
        raise InvalidInput(
            "--node-key is for a farm that others reach; start it with --listen ADDRESS", param="node_key"
        )
    given = cluster.head.allowed_hosts
    if cluster.head.pages is not None:
        given = (*given, check_pages(cluster.head.pages))
    alone = ports is None and not given
    hosts = allowed_hosts(listen, own, socket.gethostname(), given)
    with locked(state, "up"), replayed(state) as ledger:
        access = _access_token(state)
        endpoint = Endpoint(url=url_of(address, cluster.head.port), token=access)
        started: list[Machine] = []
        try:
            cluster_over_ray = await RayCluster.open(
                host,
                partial(_launch, state, host, workers, ports),
                StitchProcess.open,
                partial(spend_token, state),
                port=0 if ports is None else ports.link,
                house=House(files_of),
                models_port=None if ports is None else ports.models,
            )
            specs = licensed(spec_of if alone else named_spec_of, lambda: ledger.state.accepted_licences)
            async with coordinating(state, cluster_over_ray, specs, ledger=ledger) as coordinator:
                membership = Membership(
                    coordinator,
                    cluster=partial(_cluster_access, state),
                    secret=access,
                    versions=versions(),
                    ports=ports,
                )
                app = create_app(
                    coordinator=coordinator,
                    membership=membership,
                    tools=media_tools(),
                    state=state,
                    access=access,
                    models=known_models,
                    shape_of=shape_of,
                    allowed_hosts=hosts,
                )
                if node_key is not None:
                    _keep_node_key(node_key, app.state.keys)
                coordinator.begin_recovered()
                url = endpoint.url
                serving = asyncio.ensure_future(serve(app, listen, cluster.head.port))
                await asyncio.sleep(0)  # it listens before anybody is told; whoever comes at once waits
                write_endpoint(state, endpoint)
                _say_up(
                    (cluster.head.pages or url).rstrip("/"),
                    app.state.login_link(),
                    how_to_join(url, own, app.state.join_tokens.create),
                    as_json=as_json,
                )
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
            remove_endpoint(state, endpoint)
            await to_its_end(_take_down, state, started)


def _say_up(url: str, login_path: str, join: str, *, as_json: bool) -> None:
    """Where the farm is for browsers, how one gets in, and how a machine does."""
    login_url = f"{url}{login_path}"
    if as_json:
        console.print_json({"url": url, "login_url": login_url, "join": join})
        return
    for line in (
        f"farm is up; its pages are at {url}",
        f"this link logs a browser in, once and within an hour: {login_url}",
        join,
    ):
        console.say(line)


async def _launch(
    state: Path, host: str, workers: Sequence[Worker], ports: Ports | None, afresh: bool
) -> Launch:
    """Find Ray's head running or start it; ``afresh``: after whatever is left of it was ended."""
    start = restart_head if afresh else ensure_head
    head = await to_its_end_or_given_up(start, state, host, workers, ports)
    return Launch(
        start=Start(address=head.address),
        environment=ray_environment(head.token, head.workers, head.host),
        log_path=state / DRIVER_LOG_NAME,
        pids=head_pids(head),
    )


def _cluster_access(state: Path) -> ClusterAccess:
    head = remembered_head(state)
    if head is None or head.token_is_spent:
        raise CannotRun("Ray is just being started; try again in some seconds")
    return ClusterAccess(head.address, head.token)


def media_tools() -> MediaTools:
    """The real tools behind the doors' port to pictures and videos."""
    return MediaTools(
        normalise=normalise,
        normalise_clip=partial(normalise, clip=True),
        refuse_unknown=pictures.refuse_unknown,
        picture=pictures.picture,
        thumbnail=pictures.thumbnail,
        spritesheet=pictures.spritesheet,
        seam_picture=pictures.seam_picture,
        backdrop=backdrop,
        codec=pictures.codec,
    )


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
        if coordinator.has_node(machine.name):
            continue
        known = coordinator.ledger.state.nodes.get(machine.name)
        if known is not None and known.removed:
            said = "was removed and is not started; `farm join` there lets it in again, with a fresh token"
            console.err.print(f"{machine.name} {said}", style="yellow", markup=False)
            continue
        try:
            process = await asyncio.to_thread(ssh.start_node, machine, url, join_token(), folder)
        except (OSError, ValueError, FarmError) as error:
            console.err.print(f"{machine.name} cannot be started: {error}", style="red", markup=False)
            continue
        started.append(machine)
        endings.append(asyncio.ensure_future(_tell_end(machine, process, ssh.log_path(machine, folder))))


async def _tell_end(machine: Machine, process: Any, log_path: Path) -> None:
    status = await asyncio.to_thread(process.wait)
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1] if lines else "it said nothing"
    console.err.print(f"{machine.name} ended (status {status}): {said}", style="yellow", markup=False)


def _take_down(state: Path, started: Sequence[Machine]) -> None:
    for machine in started:
        try:
            ssh.stop_node(machine, state / MACHINES_NAME)
        except (OSError, ValueError) as error:
            log.warning("%s was not told to leave: %s", machine.name, error)
    stop_head(state)


def _keep_node_key(path: Path, keys: Any) -> None:
    """Have the file hold a key with which machines join; a new one where there is none that works.

    Raises:
        CannotRun: it cannot be read or written.
    """
    try:
        known = keys.find(path.read_text().strip()) if path.exists() else None
        if known is None or "node" not in known.scopes:
            _, text = keys.create("machines started beside the farm", ["node"], None)
            write_private(path, text)
    except (OSError, UnicodeError) as error:
        raise CannotRun(
            f"the key for nodes cannot be kept in {path} ({error}); choose another file"
        ) from error


def _access_token(state: Path) -> str:
    """The token of this state folder's farm, made at its first start (mode 0600)."""
    path = state / ACCESS_NAME
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()
