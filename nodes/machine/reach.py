"""Whether this machine and a farm reach each other on the ports they need: asked, judged, told.

The farm is asked to connect to the ports that this machine's Ray will have; until then they are listened on
here, by nobody else. So a firewall is named before anything is started.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

from farm.addresses import family_of, resolved
from farm.client import FarmClient
from farm.errors import CannotRun, PortClosed
from farm.machines import Ports
from farm.running import still_unreached, unreached
from farm.values import Value
from nodes.machine.addresses import address_towards
from nodes.machine.firewall import listed, opening

#: A word that others of this network do not guess.
WORD_BYTES = 16
#: Between looks at whether a machine is still reached; with two tries of ``unreached`` less than 15 s.
WAY_INTERVAL_S = 3.0


class Reach(Value):
    """What a look found. Ports are TCP."""

    url: str
    #: The farm's address, and this machine's on the way to it.
    head: str
    own: str
    #: This machine's, as the farm sees it; None: the farm's API is not reached.
    seen: str | None
    #: Of the head, those that are not reached from here.
    head_closed: tuple[int, ...] = ()
    head_ports: str = ""
    #: Of this machine, those that the farm does not reach.
    own_closed: tuple[int, ...] = ()
    own_ports: str = ""


def problems(reach: Reach) -> list[CannotRun]:
    """What keeps this machine from working for the farm, in words; empty: nothing does."""
    found: list[CannotRun] = []
    api = urlsplit(reach.url).port or 80
    if reach.seen is None:
        return [
            PortClosed(
                f"nothing answers at {reach.url}: the farm is not up, or a firewall on {reach.head} or on "
                f"the way does not let this machine in on port {api}",
                opening(str(api), reach.own),
            )
        ]
    if reach.seen != reach.own:
        found.append(
            CannotRun(
                f"the farm sees this machine as {reach.seen}, and it is {reach.own} here: something between "
                "them translates addresses (a router, a container, WSL2's NAT), and the farm finds no way "
                "back; give this machine an address of the farm's own network"
            )
        )
    if reach.head_closed:
        found.append(
            PortClosed(
                f"this machine does not reach port {listed(reach.head_closed)} of the farm's machine "
                f"{reach.head}: a firewall there, or on the way, is closed; one of these, "
                "typed there, opens it",
                opening(reach.head_ports, reach.own),
            )
        )
    if reach.own_closed and reach.seen == reach.own:
        found.append(
            PortClosed(
                f"the farm at {reach.url} cannot reach this machine, {reach.own}, on port "
                f"{listed(reach.own_closed)}: a firewall here, or on the way, is closed; one of these opens "
                "it",
                opening(reach.own_ports, reach.head),
            )
        )
    return found


def look(url: str, ports: Ports) -> Reach:
    """Look both ways, in some five seconds. Nothing is started, and no token is needed.

    Raises:
        CannotRun: the farm's name is not known, it has no way to other machines, or a port is taken here.
    """
    parts = urlsplit(url)
    head = resolved(parts.hostname or "")
    own = address_towards(head, parts.port or 80)
    if own is None:
        raise CannotRun(f"there is no way from this machine to {head}; is the network up?")
    unknown = Reach(url=url, head=head, own=own, seen=None)
    if asyncio.run(unreached(head, [parts.port or 80])):
        return unknown
    word = secrets.token_bytes(WORD_BYTES)
    asked = [ports.node_manager, ports.object_manager, *range(ports.models, ports.last + 1)]
    with answering(own, asked, word):
        told = FarmClient(url, None).reach(asked, word.hex())
    return Reach(
        url=url,
        head=head,
        own=own,
        seen=told["address"],
        head_closed=tuple(asyncio.run(unreached(head, told["listening"]))),
        head_ports=told["ports"],
        own_closed=tuple(told["unreached"]),
        own_ports=str(ports),
    )


def check(url: str, ports: Ports) -> str:
    """This machine's address on the way to the farm, where both reach each other.

    Raises:
        CannotRun: they do not reach each other; ``PortClosed``: with what opens the ports.
    """
    found = look(url, ports)
    for problem in problems(found):
        raise problem
    return found.own


def lost_way(whose: str, address: str, closed: Sequence[int], own: str) -> str:
    """That ports of ``whose`` machine were reached and are not any more, with what opens them."""
    span = str(closed[0]) if len(closed) == 1 else f"{min(closed)}-{max(closed)}"
    return "\n  ".join(
        (
            f"this machine does not reach port {listed(closed)} of {whose}, {address}, any more: it is off, "
            "its network is away, or a firewall there, or on the way, was closed; one of these, typed there, "
            "opens it",
            *opening(span, own),
        )
    )


@contextmanager
def way_watched(
    whose: str, address: str, ports: Sequence[int], own: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Say when ports of a machine are not reached any more, and when they are, while the block lasts."""
    ended = threading.Event()

    def watch() -> None:
        before: list[int] = []
        while not ended.wait(WAY_INTERVAL_S):
            closed = asyncio.run(still_unreached(address, ports))
            if closed != before and not ended.is_set():
                say(lost_way(whose, address, closed, own) if closed else f"{whose} is reached again")
            before = closed

    thread = threading.Thread(target=watch, daemon=True, name="way")
    thread.start()
    try:
        yield
    finally:
        ended.set()


def check_free(address: str, ports: Ports) -> None:
    """That Ray will find its ports free; on two of the others the farm listens itself.

    Raises:
        CannotRun: one of the ports is taken.
    """
    with ExitStack() as stack:
        for port in set(range(ports.first, ports.last + 1)) - {ports.link, ports.models}:
            stack.enter_context(_listening(address, port))


def _listening(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server((address, port), family=family_of(address))
    except OSError as error:
        raise CannotRun(
            f"port {port} of this machine is taken ({error.strerror}); choose others with --ports, "
            "such as --ports 9471-9599"
        ) from error


@contextmanager
def answering(address: str, ports: list[int], word: bytes) -> Iterator[None]:
    """Say ``word`` to whoever connects to one of these ports, while the block lasts.

    Raises:
        CannotRun: one of them is taken.
    """
    with ExitStack() as stack:
        listening = [stack.enter_context(_listening(address, port)) for port in ports]
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        stack.enter_context(_serving(loop, listening, word))
        yield


@contextmanager
def _serving(loop: asyncio.AbstractEventLoop, listening: list[socket.socket], word: bytes) -> Iterator[None]:
    visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        visits[visit] = writer
        writer.write(word)
        # Whoever closes first keeps the port for a minute (TIME_WAIT), and Ray is about to want it.
        with suppress(OSError):
            await reader.read()
        del visits[visit]
        writer.close()

    async def serve() -> None:
        for server in listening:
            await asyncio.start_server(greet, sock=server)

    async def end() -> None:
        for writer in visits.values():
            linger = struct.pack("ii", 1, 0)  # a reset keeps nothing
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        await asyncio.gather(*visits)

    loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="reach")
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
