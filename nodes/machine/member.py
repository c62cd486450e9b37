"""Joining a farm with this machine, staying in it, and leaving again."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from farm.addresses import is_loopback, resolved, split_host_port, url_of
from farm.capabilities import Worker
from farm.client import FarmClient
from farm.errors import CannotRun, FarmError, InvalidInput, NotAllowed, NotFound, PortClosed
from farm.machines import DEFAULT_PORTS, Ports
from farm.state import make_private, write_private
from farm.values import Value
from farm.version import VERSION
from nodes.machine.ray_node import RayProcess, join_arguments, process_alive, ray_environment, stop_process
from nodes.machine.reach import check, way_watched
from nodes.machine.session_folder import new_session_folder

MEMBER_NAME = "member.json"
#: What lets this machine back into its farm without a new token; it stays until `farm leave`.
KEPT_NAME = "joined.json"
#: A leaving machine waits this long for its running segments.
LEAVE_TIMEOUT_S = 3600.0
#: A machine whose Ray ended looks this often for the farm, at first and later.
RETURN_INTERVAL_S, RETURN_AT_MOST_S = 1.0, 5.0


class Member(Value):
    """This machine's membership, kept while it lasts (mode 0600: it holds a token)."""

    pid: int
    url: str
    node: str
    node_token: str
    #: Ray's files and the inputs fetched for this farm.
    temp_dir: Path
    #: HOST:PORT of the farm's Ray; what an older farm left here does not say.
    ray_address: str = ""


class Kept(Value):
    """A place in a farm that this machine once got (mode 0600: it holds a token)."""

    url: str
    node: str
    node_token: str


def versions() -> dict[str, str]:
    """What must be equal on all machines of a farm: Ray refuses to mix them."""
    return {"python": platform.python_version(), "ray": version("ray"), "reelfarm": VERSION}


def farm_url(address: str) -> str:
    """``10.0.0.5:8470``, ``[fd00::5]:8470`` or ``http://10.0.0.5:8470`` -> URL.

    Raises:
        InvalidInput: it is neither.
    """
    try:
        host, port = split_host_port(address.removeprefix("http://").rstrip("/"))
    except ValueError as error:
        raise InvalidInput(
            f"address is {address!r}, expected HOST:PORT as a farm prints it, such as 192.168.1.10:8470, "
            "attic.lan:8470 or [fd00::5]:8470",
            param="address",
        ) from error
    return url_of(host, port)


def join(
    url: str,
    token: str | None,
    *,
    node: str,
    describe: Callable[[str], Sequence[Worker]],
    state: Path,
    ports: Ports = DEFAULT_PORTS,
) -> Joined:
    """Have the farm take this machine; ``begin`` makes it a node. ``describe(address)`` tells its workers.

    ``token`` is not needed, and not used up, where this machine has its place there already.

    Raises:
        NotAllowed: the token is wrong or used up.
        CannotRun: versions differ, or no second machine could reach the farm; ``PortClosed``: they do not
            reach each other.
    """
    member = current(state)
    if member is not None:
        raise CannotRun(f"this machine is in the farm at {member.url} already; `farm leave` ends that")
    make_private(state)
    if is_loopback(resolved(urlsplit(url).hostname or "")):
        if not FarmClient(url, None).is_up():
            raise CannotRun(f"no farm answers at {url}; start one with `farm up`")
        raise CannotRun(
            f"the farm at {url} listens on its own machine alone, and that is this one; "
            "start it with `farm up --listen ADDRESS`, and join it from another machine"
        )
    address = check(url, ports)
    client = FarmClient(url, None)
    offer = _offered(client, url, node, token, state)
    try:
        joined = _joined(url, node, offer, address, describe, state, ports)
        # Before Ray is started: should that fail, the next try needs no new token.
        kept = Kept(url=url, node=node, node_token=joined.node_token)
        write_private(state / KEPT_NAME, kept.model_dump_json())
        return joined
    except BaseException:
        with suppress(FarmError):
            client.leave(node, offer["node_token"])  # the name is free for the next try
        raise


def _offered(client: FarmClient, url: str, node: str, token: str | None, state: Path) -> dict[str, Any]:
    """What the farm gives to this machine: by its own token of before, or else by the one that was given."""
    kept = _kept(state)
    if kept is not None and (kept.url, kept.node) == (url, node):
        try:
            return client.join(kept.node_token, node)
        except NotAllowed:
            (state / KEPT_NAME).unlink(missing_ok=True)  # the farm was started anew meanwhile
    if token is None:
        raise InvalidInput(
            f"this machine has no place in the farm at {url} as {node}; add --token, which `farm join-token` "
            "prints on the farm's machine",
            param="token",
        )
    return client.join(token, node)


def _kept(state: Path) -> Kept | None:
    try:
        return Kept.model_validate_json((state / KEPT_NAME).read_text())
    except (OSError, ValidationError):
        return None


def _joined(
    url: str,
    node: str,
    offer: dict[str, Any],
    address: str,
    describe: Callable[[str], Sequence[Worker]],
    state: Path,
    ports: Ports,
) -> Joined:
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
        ports=ports,
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
    ports: Ports = DEFAULT_PORTS

    def begin(self) -> RayProcess:
        """Be a node.

        Raises:
            CannotRun: Ray does not start.
        """
        session = new_session_folder()
        process = RayProcess(
            join_arguments(self.ray_address, self.address, self.workers, session.ray, self.ports),
            {
                **ray_environment(self.ray_token, self.workers, self.address, self.ports.models),
                "TMPDIR": str(session.path),
            },
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
                ray_address=self.ray_address,
                temp_dir=session.path,
            ),
        )
        return process

    def stay(self, process: RayProcess, say: Callable[[str], None]) -> None:
        """Be a node until ``leave``: a Ray that ends, here or at the head, is started again, however long the
        farm is away.

        Raises:
            NotAllowed: this machine was removed.
        """
        joined = self
        while True:
            head, first = split_host_port(joined.ray_address)
            # Of the farm's machine: Ray's three, and between them the one to which workers connect.
            ports = range(first, first + 4)
            with way_watched("the farm's machine", head, ports, joined.address, say):
                process.wait()
            if not was_lost(self.state):
                return
            stop_process(process.pid, patience_s=0.0)  # what is left of it
            say(f"Ray has ended; {self.node} goes back to the farm at {self.url}")
            back = self._return(say)
            if back is None:
                return
            joined, process = back
            say(f"{self.node} is in the farm again")

    def _return(self, say: Callable[[str], None]) -> tuple[Joined, RayProcess] | None:
        """As the farm is then, and Ray again, once it takes this machine back: under its name, at its place.

        None: `farm leave` has given that up meanwhile.
        """
        told, pause_s = "", RETURN_INTERVAL_S
        while (self.state / KEPT_NAME).exists():
            try:
                again = self._again()
                return again, again.begin()
            except NotAllowed as error:
                raise NotAllowed(
                    f"{self.node} was removed from the farm at {self.url}; to come back it needs a new token "
                    "of its `farm join-token`"
                ) from error
            except FarmError as error:  # it is away, on its way up, or down
                if error.message != told:
                    told = error.message
                    opens = error.commands if isinstance(error, PortClosed) else ()
                    say("\n  ".join((f"{self.node} waits for the farm: {told}", *opens)))
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, RETURN_AT_MOST_S)
        return None

    def _again(self) -> Joined:
        """As the farm is now: its Ray may be another."""
        address = check(self.url, self.ports)
        offer = FarmClient(self.url, None).join(self.node_token, self.node)
        found = {"address": address, "ray_address": offer["ray_address"], "ray_token": offer["ray_token"]}
        return self.model_copy(update=found)


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


def leave(state: Path, *, timeout_s: float = LEAVE_TIMEOUT_S, for_good: bool = False) -> Member | Kept:
    """Finish the running segments, then take this machine out of its farm.

    ``for_good``: its place too, which it has while it is away; it needs a new token to come back.

    Raises:
        NotFound: it is in no farm.
    """
    kept = _kept(state) if for_good else None
    if for_good:
        (state / KEPT_NAME).unlink(missing_ok=True)
    member = current(state)
    if member is None and kept is not None:
        return kept
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
