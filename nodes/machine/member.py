"""Joining a farm with this machine, staying in it, and leaving again."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farm.capabilities import Worker
from farm.client import FarmClient
from farm.errors import CannotRun, FarmError, InvalidInput, NotFound
from farm.state import make_private
from farm.values import Value
from nodes.machine.ray_node import RayProcess, join_arguments, process_alive, ray_environment, stop_process
from nodes.machine.session_folder import new_session_folder

MEMBER_NAME = "member.json"
#: A leaving machine waits this long for its running segments.
LEAVE_TIMEOUT_S = 3600.0


class Member(Value):
    """This machine's membership, kept while it lasts (mode 0600: it holds a token)."""

    pid: int
    url: str
    node: str
    node_token: str
    #: Ray's files and the inputs fetched for this farm.
    temp_dir: Path


def versions() -> dict[str, str]:
    """What must be equal on all machines of a farm: Ray refuses to mix them."""
    return {"python": platform.python_version(), "ray": version("ray"), "reelfarm": version("reelfarm")}


def farm_url(address: str) -> str:
    """``10.0.0.5:8470`` or ``http://10.0.0.5:8470`` -> URL.

    Raises:
        InvalidInput: it is neither.
    """
    url = address if "//" in address else f"http://{address}"
    parts = urlsplit(url)
    try:
        complete = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        complete = None
    if not complete:
        raise InvalidInput(
            f"address is {address!r}, expected HOST:PORT as `farm up` prints it", param="address"
        )
    return f"http://{parts.netloc}"


def address_towards(url: str) -> str:
    """This machine's address on the network of the farm."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname, parts.port or 80))
        except OSError as error:
            raise CannotRun(f"{parts.hostname} cannot be reached ({error.strerror or error})") from error
        return str(probe.getsockname()[0])


def join(
    url: str,
    token: str,
    *,
    node: str,
    describe: Callable[[str], Sequence[Worker]],
    state: Path,
) -> RayProcess:
    """Make this machine a node of the farm. ``describe(address)`` tells its workers.

    Raises:
        NotAllowed: the token is wrong or used up.
        CannotRun: versions differ, the head cannot be reached, Ray does not start.
    """
    member = current(state)
    if member is not None:
        raise CannotRun(f"this machine is in the farm at {member.url} already; `farm leave` ends that")
    make_private(state)
    address = address_towards(url)
    client = FarmClient(url, None)
    offer = client.join(token, node)
    try:
        process, temp_dir = _start(offer, address, describe, state)
    except BaseException:
        with suppress(FarmError):
            client.leave(node, offer["node_token"])  # the name is free for the next try
        raise
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(state / MEMBER_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(
            Member(
                pid=process.pid, url=url, node=node, node_token=offer["node_token"], temp_dir=temp_dir
            ).model_dump_json()
        )
    return process


def _start(
    offer: dict[str, Any], address: str, describe: Callable[[str], Sequence[Worker]], state: Path
) -> tuple[RayProcess, Path]:
    """This machine's Ray, up, and its folder."""
    ours = versions()
    for name, wanted in offer["versions"].items():
        if ours[name] != wanted:
            raise CannotRun(
                f"this machine has {name} {ours[name]}, the farm has {wanted}; install {name} {wanted} here"
            )
    workers = describe(address)
    session = new_session_folder()
    process = RayProcess(
        join_arguments(offer["ray_address"], address, workers, session.ray),
        {**ray_environment(offer["ray_token"], workers), "TMPDIR": str(session.path)},
        state / "ray-node.log",
        keeps=session.lock,
    )
    session.let_go()
    try:
        process.wait_until_up()
    except BaseException:
        shutil.rmtree(session.path, ignore_errors=True)
        raise
    return process, session.path


def current(state: Path) -> Member | None:
    """The farm this machine is in, if it is in one."""
    path = state / MEMBER_NAME
    try:
        member = Member.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    if process_alive(member.pid, str(member.temp_dir)):
        return member
    forget(state, member)
    return None


def leave(state: Path, *, timeout_s: float = LEAVE_TIMEOUT_S) -> Member:
    """Finish the running segments, then take this machine out of its farm.

    Raises:
        NotFound: it is in no farm.
    """
    member = current(state)
    if member is None:
        raise NotFound("this machine is in no farm; `farm join` adds it to one")
    deadline = time.monotonic() + timeout_s
    client = FarmClient(member.url, None)
    try:
        while client.leave(member.node, member.node_token) and time.monotonic() < deadline:
            time.sleep(0.5)
    except CannotRun:
        pass  # the farm is gone: there is nobody to finish for
    (state / MEMBER_NAME).unlink(missing_ok=True)  # first: `farm join` looks when its Ray ends
    stop_process(member.pid)
    forget(state, member)
    return member


def was_lost(state: Path) -> bool:
    """Whether this machine's Ray ended without ``leave``: the farm is gone, or Ray died."""
    return (state / MEMBER_NAME).exists() and current(state) is None


def forget(state: Path, member: Member) -> None:
    """Remove what a membership that has ended left on this machine."""
    (state / MEMBER_NAME).unlink(missing_ok=True)
    shutil.rmtree(member.temp_dir, ignore_errors=True)
