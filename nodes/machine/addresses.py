"""Under which addresses and names this machine is reached by others."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import psutil

from farm.addresses import family_of, is_loopback
from farm.errors import CannotRun, InvalidInput
from farm.machines import HeadMachine

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
#: Of networks reserved for documentation (RFC 5737, RFC 3849): nothing is sent, routing tables are asked.
_SOMEWHERE = (("192.0.2.1", 9), ("2001:db8::1", 9))
#: What means all addresses of a machine.
EVERYWHERE = ("0.0.0.0", "::")


def own_addresses() -> list[str]:
    """This machine's addresses that others may reach: those of its default routes first, IPv4 before IPv6."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6) and _is_for_others(address.address)
    ]
    first = [address_towards(*somewhere) for somewhere in _SOMEWHERE]
    return sorted(dict.fromkeys(found), key=lambda address: (":" in address, address not in first))


def address_towards(host: str, port: int) -> str | None:
    """The address of this machine from which it would reach another; None: it has no way there."""
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _is_for_others(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return not (parsed.is_loopback or (parsed.version == 6 and parsed.is_link_local))


def reachable_address(listen: str, own: Sequence[str]) -> str:
    """The address to tell others: ``listen`` itself, or one of this machine's where it means all of them.

    Raises:
        CannotRun: it listens on all of its addresses and has none.
    """
    if listen not in EVERYWHERE:
        return listen
    fitting = [address for address in own if family_of(address) == family_of(listen)]
    if not fitting:
        raise CannotRun("this machine has no network address of that kind; connect it, or leave out --listen")
    return fitting[0]


def allowed_hosts(listen: str, own: Sequence[str], hostname: str, given: Iterable[str]) -> list[str]:
    """The names browsers may use for this farm; any other name may be a page of somebody else's.

    Args:
        listen: Where the server listens. On loopback only ``given`` is added to the loopback names.
        own: This machine's addresses, which count where ``listen`` means all of them.
        hostname: What this machine calls itself.
        given: Further names, of a proxy in front of the farm for instance.

    Raises:
        InvalidInput: one that is given is no host's name or address.
    """
    hosts: list[str] = []
    if not is_loopback(listen):
        short = hostname.lower().split(".")[0]
        hosts = [*(own if listen in EVERYWHERE else [listen]), hostname.lower(), short, f"{short}.local"]
    return list(dict.fromkeys([*hosts, *map(_host, given)]))


def how_to_join(url: str, own: Sequence[str], join_token: Callable[[], str]) -> str:
    """What to do so that another machine renders for the farm at ``url``.

    ``join_token`` makes a one-time token; it is asked for one only where somebody could use it.
    """
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        port = "" if parts.port in (None, HeadMachine().port) else f" --port {parts.port}"
        listen = own[0] if own else "ADDRESS"
        return f"for other machines to join, start it with `farm up --listen {listen}{port}`"
    return f"add a machine: farm join {parts.netloc} --token {join_token()}"


def _host(text: str) -> str:
    host = text.strip().lower()
    if not _HOST.fullmatch(host):
        raise InvalidInput(
            f"allowed host is {text!r}, expected a host's name or address alone, such as farm.example.org",
            param="allow_host",
        )
    return host
