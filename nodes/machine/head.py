"""The Ray head of a farm that stays up: started once, found again by the next coordinator.

It runs in a session of its own, so that a killed coordinator leaves the workers with their models loaded.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from farm.addresses import host_port, split_host_port
from farm.capabilities import Worker
from farm.errors import CannotRun
from farm.machines import Ports
from farm.state import write_private
from farm.values import Value
from nodes.machine.ray_node import (
    ESSENTIAL_PROCESSES,
    RayProcess,
    free_port,
    head_arguments,
    new_token,
    process_alive,
    ray_environment,
    stop_process,
)
from nodes.machine.reach import check_free
from nodes.machine.session_folder import new_session_folder

HEAD_NAME = "head.json"


class Head(Value):
    """A running Ray head, as the state folder remembers it (the file holds the token: mode 0600)."""

    pid: int
    #: host:port that workers and drivers connect to.
    address: str
    token: str
    #: The session folder; Ray's own lies in it.
    temp_dir: Path
    workers: tuple[Worker, ...]
    #: Somebody has the token who may not have it any more: Ray is to be started again with another.
    token_is_spent: bool = False
    ports: Ports | None = None

    @property
    def host(self) -> str:
        return split_host_port(self.address)[0]


def ensure_head(
    given_up: threading.Event,
    state: Path,
    address: str,
    workers: Sequence[Worker],
    ports: Ports | None = None,
) -> Head:
    """The head of this state folder: the running one, or a fresh one with these workers.

    Args:
        given_up: Nobody waits for it any more, once this is set.
        state: The farm's state folder.
        address: Where the head listens.
        workers: Of this machine.
        ports: Those of this machine that others reach; None: any that are free, for no others come.

    Raises:
        CannotRun: Ray does not start, or was given up.
    """
    head = running_head(state)
    if head is not None and head.host == address and (ports is None or head.ports == ports):
        return restart_head(given_up, state, address, workers, ports) if head.token_is_spent else head
    stop_head(state)  # one of another address, which nobody here can reach
    try:
        if ports is not None:
            check_free(address, ports)
        port = free_port(address) if ports is None else ports.cluster
        return _start_head(given_up, state, host_port(address, port), new_token(), workers, ports)
    except BaseException:
        if left := remembered_head(state):
            _forget(state, left)
        raise


def restart_head(
    given_up: threading.Event,
    state: Path,
    address: str,
    workers: Sequence[Worker],
    ports: Ports | None = None,
) -> Head:
    """End what is left of the head and start it afresh, where joined machines know it to be.

    With the token they know, unless that is spent.

    Raises:
        CannotRun: as ``ensure_head`` says.
    """
    before = remembered_head(state)
    if before is None:
        return ensure_head(given_up, state, address, workers, ports)
    stop_process(before.pid, patience_s=0.0)  # its workers are lost already
    shutil.rmtree(before.temp_dir, ignore_errors=True)
    token = new_token() if before.token_is_spent else before.token
    return _start_head(given_up, state, before.address, token, before.workers, before.ports)


def spend_token(state: Path) -> None:
    """Have the head's next start be one with another token, whoever starts it.

    Raises:
        CannotRun: that cannot be written.
    """
    head = remembered_head(state)
    if head is not None:
        try:
            _remember(state, head.model_copy(update={"token_is_spent": True}))
        except OSError as error:
            raise CannotRun(f"{state} cannot be written ({error.strerror}); free disk space") from error


def head_pids(head: Head) -> tuple[int, ...]:
    """The processes of a head whose end is its end."""
    try:
        started = psutil.Process(head.pid).children(recursive=True)
    except psutil.Error:
        return (head.pid,)
    found = [head.pid]
    for process in started:
        with suppress(psutil.Error):
            if process.name() in ESSENTIAL_PROCESSES:
                found.append(process.pid)
    return tuple(found)


def _start_head(
    given_up: threading.Event,
    state: Path,
    address: str,
    token: str,
    workers: Sequence[Worker],
    ports: Ports | None,
) -> Head:
    host, port = split_host_port(address)
    session = new_session_folder()
    process = RayProcess(
        head_arguments(host, port, workers, session.ray, ports),
        ray_environment(token, workers, host),
        state / "ray-head.log",
        keeps=session.lock,
    )
    session.let_go()
    head = Head(
        pid=process.pid,
        address=address,
        token=token,
        temp_dir=session.path,
        workers=tuple(workers),
        ports=ports,
    )
    _remember(state, head)
    process.wait_until_up(given_up)
    return head


def running_head(state: Path) -> Head | None:
    """The head of this folder, if it runs. Looks, and changes nothing: another process may be starting it."""
    head = remembered_head(state)
    return head if head is not None and process_alive(head.pid, str(head.temp_dir)) else None


def stop_head(state: Path) -> None:
    """End the head and all it runs, and forget it."""
    head = remembered_head(state)
    if head is not None:
        if process_alive(head.pid, str(head.temp_dir)):
            stop_process(head.pid, patience_s=0.0)  # nothing of it is kept; Ray's own end takes seconds
        _forget(state, head)


def remembered_head(state: Path) -> Head | None:
    """What is written of the head, whether or not it runs just now."""
    try:
        return Head.model_validate_json((state / HEAD_NAME).read_text())
    except FileNotFoundError:
        return None


def _remember(state: Path, head: Head) -> None:
    write_private(state / HEAD_NAME, head.model_dump_json())


def _forget(state: Path, head: Head) -> None:
    (state / HEAD_NAME).unlink(missing_ok=True)
    shutil.rmtree(head.temp_dir, ignore_errors=True)
