"""Joining a farm with this machine, staying in it, and leaving again."""

from __future__ import annotations

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
from farm.errors import CannotRun, FarmError, InvalidInput, NotAllowed, NotFound
from farm.state import make_private, write_private
from farm.values import Value
from nodes.machine.addresses import is_loopback
from nodes.machine.ray_node import RayProcess, join_arguments, process_alive, ray_environment, stop_process
from nodes.machine.session_folder import new_session_folder

MEMBER_NAME = "member.json"
#: A leaving machine waits this long for its running segments.
LEAVE_TIMEOUT_S = 3600.0
#: A machine whose Ray ended looks this often, and for this long, for the farm's.
RETURN_INTERVAL_S, RETURN_TIMEOUT_S = 1.0, 300.0


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
) -> Joined:
    """Have the farm take this machine; ``begin`` makes it a node. ``describe(address)`` tells its workers.

    Raises:
        NotAllowed: the token is wrong or used up.
        CannotRun: versions differ, the head cannot be reached, or no second machine could reach it.
    """
    member = current(state)
    if member is not None:
        raise CannotRun(f"this machine is in the farm at {member.url} already; `farm leave` ends that")
    make_private(state)
    address = address_towards(url)
    client = FarmClient(url, None)
    offer = client.join(token, node)
    try:
        return _joined(url, node, offer, address, describe, state)
    except BaseException:
        with suppress(FarmError):
            client.leave(node, offer["node_token"])  # the name is free for the next try
        raise


def _joined(
    url: str,
    node: str,
    offer: dict[str, Any],
    address: str,
    describe: Callable[[str], Sequence[Worker]],
    state: Path,
) -> Joined:
    if is_loopback(address):
        raise CannotRun(
            f"the farm at {url} listens on its own machine alone, and that is this one; "
            "start it with `farm up --listen ADDRESS`, and join it from another machine"
        )
    ours = versions()
    for name, wanted in offer["versions"].items():
        if ours[name] != wanted:
            raise CannotRun(
                f"this machine has {name} {ours[name]}, the farm has {wanted}; install {name} {wanted} here"
            )
    return Joined(
        url=url,
        node=node,
        node_token=offer["node_token"],
        address=address,
        ray_address=offer["ray_address"],
        ray_token=offer["ray_token"],
        workers=tuple(describe(address)),
        state=state,
    )


class Joined(Value):
    """What the farm gave to this machine when it joined, held by ``farm join`` for as long as it is in it."""

    url: str
    node: str
    node_token: str
    #: This machine's, on the network of the farm.
    address: str
    ray_address: str
    ray_token: str
    workers: tuple[Worker, ...]
    state: Path

    def begin(self) -> RayProcess:
        """Be a node.

        Raises:
            CannotRun: Ray does not start.
        """
        session = new_session_folder()
        process = RayProcess(
            join_arguments(self.ray_address, self.address, self.workers, session.ray),
            {**ray_environment(self.ray_token, self.workers, self.address), "TMPDIR": str(session.path)},
            self.state / "ray-node.log",
            keeps=session.lock,
        )
        session.let_go()
        try:
            process.wait_until_up()
        except BaseException:
            shutil.rmtree(session.path, ignore_errors=True)
            raise
        _remember(
            self.state,
            Member(
                pid=process.pid,
                url=self.url,
                node=self.node,
                node_token=self.node_token,
                temp_dir=session.path,
            ),
        )
        return process

    def stay(self, process: RayProcess, say: Callable[[str], None]) -> None:
        """Be a node until ``leave``: a Ray that ends, here or at the head, is started again.

        Raises:
            CannotRun: the farm's Ray did not come back in ``RETURN_TIMEOUT_S``.
            NotAllowed: this machine was removed.
        """
        while True:
            process.wait()
            if not was_lost(self.state):
                return
            stop_process(process.pid, patience_s=0.0)  # what is left of it
            say(f"Ray has ended; {self.node} goes back to the farm at {self.url}")
            process = self._return()
            say(f"{self.node} is in the farm again")

    def _return(self) -> RayProcess:
        deadline = time.monotonic() + RETURN_TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(CannotRun):  # it may be on its way up, or down
                now = self._as_it_is_now()
                if _answers(now.ray_address):
                    return now.begin()
            time.sleep(RETURN_INTERVAL_S)
        raise CannotRun(f"the farm at {self.url} is gone; `farm join` again when it is back")

    def _as_it_is_now(self) -> Joined:
        """With the Ray that the farm has now: another token, where a machine was removed.

        Raises:
            CannotRun: the farm does not answer, or not yet.
            NotAllowed: this machine was removed.
        """
        try:
            offer = FarmClient(self.url, None).join(self.node_token, self.node)
        except NotAllowed:
            raise NotAllowed(
                f"{self.node} was removed from the farm at {self.url}; to come back it needs a new token"
            ) from None
        return self.model_copy(update={"ray_address": offer["ray_address"], "ray_token": offer["ray_token"]})


def _answers(ray_address: str) -> bool:
    """Whether somebody listens where the head's Ray was."""
    host, _, port = ray_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), RETURN_INTERVAL_S).close()
    except OSError:
        return False
    return True


def _remember(state: Path, member: Member) -> None:
    make_private(state)
    write_private(state / MEMBER_NAME, member.model_dump_json())


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
