"""Hosts, ports and URLs as text: beside a port, an IPv6 address stands in brackets."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from farm.errors import CannotRun


def host_port(host: str, port: int) -> str:
    """``10.0.0.5``, 8470 -> ``10.0.0.5:8470``; ``fd00::5``, 8470 -> ``[fd00::5]:8470``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(host: str, port: int) -> str:
    """The URL of what serves HTTP there."""
    return f"http://{host_port(host, port)}"


def split_host_port(text: str) -> tuple[str, int]:
    """``[fd00::5]:8470`` -> ``fd00::5``, 8470.

    Raises:
        ValueError: it is no host with a port.
    """
    parts = urlsplit(f"//{text}")
    if not parts.hostname or not parts.port or parts.netloc != text or "@" in text:
        raise ValueError(f"{text!r} is no HOST:PORT")
    return parts.hostname, parts.port


def is_loopback(host: str) -> bool:
    """Whether a server that listens there is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def resolved(host: str) -> str:
    """The address a host's name stands for on this machine; an address is itself.

    Raises:
        CannotRun: the name is not known, or the address counts on one link alone.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no host's name"
        raise CannotRun(f"{host} is not known here ({reason}); give an address or another name") from error
    address = str(found[4][0]).partition("%")[0]
    if ipaddress.ip_address(address).is_link_local:
        raise CannotRun(f"{address} counts on one cable alone; give another address of that machine")
    return address


def family_of(address: str) -> socket.AddressFamily:
    """Of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
