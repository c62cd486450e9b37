"""The Ray head of a farm that stays up: started once, found again by the next coordinator.

It runs in a session of its own, so that a killed coordinator leaves the workers with their models loaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from farm.capabilities import Worker
from farm.values import Value
from nodes.machine.ray_node import (
    RayProcess,
    free_port,
    head_arguments,
    new_token,
    process_alive,
    ray_environment,
    stop_process,
)
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


def ensure_head(state: Path, address: str, workers: Sequence[Worker]) -> Head:
    """The head of this state folder: the running one, or a fresh one with these workers.

    Raises:
        CannotRun: Ray does not start.
    """
    head = running_head(state)
    if head is not None:
        return head
    port = free_port(address)
    token = new_token()
    session = new_session_folder()
    process = RayProcess(
        head_arguments(address, port, workers, session.ray),
        ray_environment(token, workers),
        state / "ray-head.log",
        keeps=session.lock,
    )
    session.let_go()
    head = Head(
        pid=process.pid,
        address=f"{address}:{port}",
        token=token,
        temp_dir=session.path,
        workers=tuple(workers),
    )
    _remember(state, head)
    try:
        process.wait_until_up()
    except BaseException:
        _forget(state, head)
        raise
    return head


def running_head(state: Path) -> Head | None:
    """The head that an earlier coordinator of this folder left running."""
    try:
        head = Head.model_validate_json((state / HEAD_NAME).read_text())
    except FileNotFoundError:
        return None
    if process_alive(head.pid, str(head.temp_dir)):
        return head
    _forget(state, head)
    return None


def stop_head(state: Path) -> None:
    """End the head and all it runs."""
    head = running_head(state)
    if head is not None:
        stop_process(head.pid)
        _forget(state, head)


def _remember(state: Path, head: Head) -> None:
    path = state / HEAD_NAME
    temporary = path.with_suffix(".writing")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(head.model_dump_json())
    temporary.replace(path)


def _forget(state: Path, head: Head) -> None:
    (state / HEAD_NAME).unlink(missing_ok=True)
    shutil.rmtree(head.temp_dir, ignore_errors=True)
