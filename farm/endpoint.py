"""Word of a running farm for the commands of its user: where it answers, and the token it wants.

It stands twice, in files that nobody else may read: in the farm's state folder, and by the farm's address in
a folder of its user's, for commands that name the address alone.

The token goes to nobody but the farm: where a farm was killed, another user of this machine may listen at its
address, and would be sent what makes them its owner.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError

from farm.errors import CannotRun
from farm.state import write_private
from farm.values import Value

ENDPOINT_NAME = "endpoint.json"
#: Every listening socket of this network namespace, with the user it belongs to.
_SOCKETS, _SOCKETS6 = Path("/proc/net/tcp"), Path("/proc/net/tcp6")
_LISTENING = "0A"
_ROOT = 0


class Endpoint(Value):
    """Where a farm answers, and the token it wants."""

    url: str
    token: str = Field(repr=False)


def write_endpoint(state_dir: Path, endpoint: Endpoint) -> None:
    """Leave word of a running farm for the commands of its owner; nobody else may read it."""
    by_address = _by_address(endpoint.url)
    by_address.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (state_dir / ENDPOINT_NAME, by_address):
        write_private(path, endpoint.model_dump_json())


def remove_endpoint(state_dir: Path, endpoint: Endpoint) -> None:
    """The farm is not there any more."""
    for path in (state_dir / ENDPOINT_NAME, _by_address(endpoint.url)):
        with suppress(OSError):
            path.unlink()


def read_endpoint(state_dir: Path) -> Endpoint | None:
    """The farm that is up with this state folder; None: there is none, or it ended without a word.

    Raises:
        CannotRun: the file is damaged or may not be read, or somebody else answers at the farm's address.
    """
    return _read(state_dir / ENDPOINT_NAME)


def endpoint_at(url: str) -> Endpoint | None:
    """The farm of this user on this machine that answers at ``url``; None: it is none.

    Raises:
        CannotRun: as ``read_endpoint`` says.
    """
    return _read(_by_address(url))


def _read(path: Path) -> Endpoint | None:
    try:
        with path.open("rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            endpoint = Endpoint.model_validate_json(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CannotRun(f"{path} cannot be read; remove it, and start the farm again") from error
    users = _listening_users(endpoint.url)
    if users is not None and not users <= {owner, _ROOT}:
        raise CannotRun(
            f"a program of another user answers at {endpoint.url}, not this farm; it was told nothing; "
            "start the farm with another --port"
        )
    return endpoint if users is None or users else None


def _by_address(url: str) -> Path:
    """Where word of the farm at this address is left. ``localhost`` is 127.0.0.1 here."""
    parts = urlsplit(url.rstrip("/").lower())
    place = parts.netloc.replace("localhost", "127.0.0.1")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "reelfarm-farms" / f"{quote(place, safe='')}.json"


def _listening_users(url: str) -> set[int] | None:
    """Who listens on this machine where the address leads; None: that cannot be seen here."""
    try:
        parts = urlsplit(url)
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        listening = list(_listening())
    except (OSError, ValueError):
        return None
    port = parts.port or 80
    meant = {ipaddress.ip_address(entry[4][0]) for entry in found}
    return {
        user
        for address, listening_port, user in listening
        if listening_port == port and (address in meant or address.is_unspecified)
    }


def _listening() -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, int]]:
    """(address, port, user id) of every listening TCP socket."""
    # A kernel may have no IPv6.
    for table in (_SOCKETS, *([_SOCKETS6] if _SOCKETS6.exists() else [])):
        for line in table.read_text().splitlines()[1:]:
            _, local, _, state, _, _, _, user, *_ = line.split()
            if state != _LISTENING:
                continue
            packed, _, port = local.partition(":")
            # Words of 32 bits, each in the machine's own order.
            words = [bytes.fromhex(packed[i : i + 8])[::-1] for i in range(0, len(packed), 8)]
            address = ipaddress.ip_address(b"".join(words))
            yield getattr(address, "ipv4_mapped", None) or address, int(port, 16), int(user)
