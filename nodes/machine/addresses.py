"""Under which addresses and names this machine is reached by others."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence

import psutil

from farm.errors import CannotRun, InvalidInput

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
#: Of the networks reserved for documentation (RFC 5737): nothing is sent, the routing table is asked.
_SOMEWHERE = ("192.0.2.1", 9)


def is_loopback(listen: str) -> bool:
    """Whether a server that listens there is reached from this machine alone."""
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return listen == "localhost"


def own_addresses() -> list[str]:
    """This machine's IPv4 addresses that others may reach, the one of its default route first."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not ipaddress.ip_address(address.address).is_loopback
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
            first = str(probe.getsockname()[0])
        except OSError:  # no default route
            first = ""
    return sorted(dict.fromkeys(found), key=lambda address: address != first)


def reachable_address(listen: str, own: Sequence[str]) -> str:
    """The address to tell others: ``listen`` itself, or one of this machine's where it means all of them.

    Raises:
        CannotRun: it listens on all of its addresses and has none.
    """
    if listen != "0.0.0.0":
        return listen
    if not own:
        raise CannotRun("this machine has no network address; connect it, or leave out --listen")
    return own[0]


def allowed_hosts(listen: str, own: Sequence[str], hostname: str, given: Iterable[str]) -> list[str]:
    """The names browsers may use for this farm; any other name may be a page of somebody else's.

    Args:
        listen: Where the server listens. On loopback only ``given`` is added to the loopback names.
        own: This machine's addresses, which count where ``listen`` is 0.0.0.0.
        hostname: What this machine calls itself.
        given: Further names, of a proxy in front of the farm for instance.

    Raises:
        InvalidInput: one that is given is no host's name or address.
    """
    hosts: list[str] = []
    if not is_loopback(listen):
        short = hostname.lower().split(".")[0]
        hosts = [*(own if listen == "0.0.0.0" else [listen]), hostname.lower(), short, f"{short}.local"]
    return list(dict.fromkeys([*hosts, *map(_host, given)]))


def how_to_join(url: str, own: Sequence[str], join_token: Callable[[], str]) -> str:
    """What to do so that another machine renders for the farm at ``url``.

    ``join_token`` makes a one-time token; it is asked for one only where somebody could use it.
    """
    address = url.removeprefix("http://")
    if is_loopback(address.rpartition(":")[0]):
        return f"for other machines to join, start it with: farm up --listen {own[0] if own else 'ADDRESS'}"
    return f"add a machine: farm join {address} --token {join_token()}"


def _host(text: str) -> str:
    host = text.strip().lower()
    if not _HOST.fullmatch(host):
        raise InvalidInput(
            f"allowed host is {text!r}, expected a host's name or address alone, such as farm.example.org",
            param="allow_host",
        )
    return host
