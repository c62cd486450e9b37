"""What of a farm listens on this machine, who can reach it, and what it asks of them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from farm.state import LOCK_NAME
from farm.values import Value
from nodes.machine.head import running_head
from nodes.machine.member import current
from nodes.machine.ray_node import session_of

#: What a stranger is asked for, by the name of the process that listens. Ray's own doors first.
_GUARDS = {
    "gcs_server": "Ray's token",
    "raylet": "Ray's token",
    "nodes.ray.driver": "Ray's token",
    "ray::RuntimeEnvAgent": "Ray's token",
    "ray::": "Ray's token; for models, the farm's secret of the day",
    "monitor.py": "nothing; it tells figures of Ray's",
    "farm": "a key, the secret of a worker, or for models the farm's secret of the day",
}


class Listening(Value):
    """A socket that waits for others."""

    pid: int
    process: str
    protocol: str
    address: str
    port: int
    #: In words: who can reach it, and what it asks of them.
    reached_by: str
    asks_for: str

    @property
    def is_local(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback


def listening(state: Path) -> list[Listening]:
    """Every TCP and UDP socket that waits for others in a process of this folder's farm, or of this machine's
    part in another."""
    found = []
    for process in farm_processes(state):
        with suppress(psutil.Error):
            name = _name(process)
            for connection in process.net_connections(kind="inet"):
                waits = connection.status == psutil.CONN_LISTEN or (
                    connection.type == socket.SOCK_DGRAM and not connection.raddr
                )
                if waits and connection.laddr:
                    found.append(_listening(process.pid, name, connection))
    return sorted(found, key=lambda each: (each.is_local, each.process, each.port))


def farm_processes(state: Path) -> list[psutil.Process]:
    """The coordinator, Ray's head and this machine's node, as far as they run, and whatever they started."""
    roots = set(_coordinator(state))
    for started in (running_head(state), current(state)):
        if started is not None:
            roots |= {started.pid, *session_of(started.pid)}
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return [found[pid] for pid in sorted(found)]


def reached_by(address: str) -> str:
    """Who can reach what listens on this address."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback:
        return "programs on this machine"
    if parsed.is_unspecified:
        return "whoever reaches any address of this machine"
    return f"whoever reaches {address}"


def asks_for(process: str) -> str:
    """What a process of a farm asks of whoever connects."""
    return next((guard for name, guard in _GUARDS.items() if process.startswith(name)), "unknown")


def _coordinator(state: Path) -> Iterator[int]:
    """Whoever holds the folder's lock."""
    lock = str((state / LOCK_NAME).resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(file.path == lock for file in process.open_files()):
                yield process.pid


def _listening(pid: int, process: str, connection: Any) -> Listening:
    address = connection.laddr.ip.removeprefix("::ffff:")  # IPv4, told by a socket of both kinds
    return Listening(
        pid=pid,
        process=process,
        protocol="tcp" if connection.type == socket.SOCK_STREAM else "udp",
        address=address,
        port=connection.laddr.port,
        reached_by=reached_by(address),
        asks_for=asks_for(process),
    )


def _name(process: psutil.Process) -> str:
    """What people know it as: Ray's title, a module that Python runs, a script, or the program."""
    command = process.cmdline()
    if command and command[0].startswith("ray::"):
        return command[0].strip()
    arguments: Iterable[str] = command[1:]
    if "python" in process.name() and "-m" in command:
        return command[command.index("-m") + 1]
    if "python" in process.name():
        return next((Path(each).name for each in arguments if not each.startswith("-")), process.name())
    return process.name()
