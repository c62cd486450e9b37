"""Starting other machines' nodes over SSH, with the user's own ssh and keys."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from farm.machines import DEFAULT_PORTS, Machine

CONNECT_TIMEOUT_S = 10
KNOWN_HOSTS_NAME = "known_hosts"


def ssh_command(machine: Machine, remote: list[str], known_hosts: Path) -> list[str]:
    """The ssh command line that runs ``remote`` on a machine. Never asks for anything.

    A machine's key is taken on trust the first time and kept in ``known_hosts``; a changed one is refused.
    """
    target = f"{machine.ssh_user}@{machine.address}" if machine.ssh_user else machine.address
    key = ["-i", str(machine.ssh_key.expanduser())] if machine.ssh_key else []
    return [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        f"ConnectTimeout={CONNECT_TIMEOUT_S}",
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        f"UserKnownHostsFile={known_hosts}",
        "-p",
        str(machine.ssh_port),
        *key,
        target,
        "--",
        shlex.join(remote),
    ]


def join_command(machine: Machine, url: str) -> list[str]:
    """What a machine runs to join. The token follows on standard input, where no process list shows it."""
    command = [*shlex.split(machine.farm), "join", url, "--token", "-", "--name", machine.name]
    if isinstance(machine.workers, list):
        command += ["--workers", ",".join(machine.workers)]
    if machine.vram_limit:
        command += ["--vram-limit", machine.vram_limit]
    if machine.ports != str(DEFAULT_PORTS):
        command += ["--ports", machine.ports]
    if machine.price_per_hour is not None:
        command += ["--price-per-hour", str(machine.price_per_hour)]
    return command


def start_node(machine: Machine, url: str, token: str, folder: Path) -> subprocess.Popen[bytes]:
    """Have a machine join. The connection stays open for as long as it is a node.

    ``folder`` gets its log and keeps the machines' keys.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log_path(machine, folder), "wb") as log:
        process = subprocess.Popen(
            ssh_command(machine, join_command(machine, url), folder / KNOWN_HOSTS_NAME),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        )
    assert process.stdin is not None
    process.stdin.write(f"{token}\n".encode())
    process.stdin.close()
    return process


def log_path(machine: Machine, folder: Path) -> Path:
    """What a machine said while it was a node."""
    return folder / f"{machine.name}.log"


def stop_node(machine: Machine, folder: Path) -> None:
    """Have a machine leave; it finishes its segment first."""
    subprocess.run(
        ssh_command(machine, [*shlex.split(machine.farm), "leave"], folder / KNOWN_HOSTS_NAME),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )
