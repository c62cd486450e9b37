"""Running the ``farm`` command as a user would, and the same job without Ray for comparison."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.request.job import JobRequest

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
TIMEOUT_S = 150.0


def environment_of(folder: Path) -> dict[str, str]:
    own = {"REELFARM_STATE": str(folder / "state"), "XDG_STATE_HOME": str(folder / "user")}
    return {**os.environ, **own, "COLUMNS": "200"}


class Command:
    """A ``farm`` command that is running."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "farm", *arguments],
            cwd=folder,
            env=environment_of(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, timeout_s: float = TIMEOUT_S) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def processes(self, title: str) -> list[psutil.Process]:
        """Its descendants whose command line begins with ``title``."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if " ".join(child.cmdline()).startswith(title):
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start a ``farm`` command in a folder of its own; whatever still runs at the end is ended."""
    commands: list[Command] = []

    def start(*arguments: str) -> Command:
        commands.append(Command(*arguments, folder=tmp_path))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            command.process.terminate()
            try:
                command.process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                command.kill()


@pytest.fixture
def ask(tmp_path: Path, warm_farm: Callable[..., Any]) -> Callable[..., tuple[int, str, str]]:
    """A ``farm`` command that ends by itself, in the same folder: exit status, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        ended = warm_farm(
            *arguments, folder=tmp_path, environment=environment_of(tmp_path), timeout_s=TIMEOUT_S
        )
        return ended.status, ended.out, ended.err

    return run


@pytest.fixture
def report_of(ask: Callable[..., tuple[int, str, str]]) -> Callable[[str], dict[str, Any]]:
    """A job's report, read from the journal by another command."""

    def read(job_id: str) -> dict[str, Any]:
        status, out, err = ask("report", job_id, "--json")
        assert status == 0, err
        told: dict[str, Any] = json.loads(out)
        return told

    return read


@pytest.fixture
def only_job(ask: Callable[..., tuple[int, str, str]]) -> Callable[[], str]:
    """The id of the one job in the journal."""

    def read() -> str:
        status, out, err = ask("jobs", "--json")
        assert status == 0, err
        (job,) = json.loads(out)
        return str(job["id"])

    return read


@pytest.fixture(scope="session")
def undisturbed_sha256(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``undisturbed_sha256(model=..., ...)``: the hash of the frames of that job of ``PHOTO``, fields of
    ``JobRequest``, rendered by one worker in this process."""
    from nodes.hosting.host import coordinating, take_in
    from nodes.work.local_cluster import LocalCluster

    async def render(folder: Path, asked: dict[str, Any]) -> str:
        worker = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
        async with coordinating(folder, LocalCluster([worker])) as coordinator:
            request = JobRequest(inputs=take_in([PHOTO], folder), fps=Fraction(8), **asked)
            job_id = coordinator.submit(request)
            async for _ in coordinator.ledger.follow(job_id):
                pass
            published = coordinator.ledger.job(job_id).published
            assert published is not None
            return published.frames_sha256

    return lambda **asked: asyncio.run(render(tmp_path_factory.mktemp("undisturbed"), asked))


@pytest.fixture(scope="session")
def slow_job_sha256(undisturbed_sha256: Callable[..., str]) -> str:
    """The hash of ``SLOW_JOB``'s frames."""
    return undisturbed_sha256(
        model="procedural-mild", prompts=("pan right",), width=256, height=256, num_frames=45
    )


@pytest.fixture
def still_running() -> Callable[[Iterable[int]], set[int]]:
    """Which of these processes run; one that has ended and waits for its parent to hear of it does not."""

    def find(pids: Iterable[int]) -> set[int]:
        found = set()
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    found.add(pid)
        return found

    return find


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Poll until a condition gives something true, and return that."""
    return _wait_for


def _wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while (began := time.monotonic()) < deadline:
        found = condition()
        if found:
            return found
        time.sleep(max(0.02, time.monotonic() - began))  # a look may be a command: leave it some of the cores
    raise AssertionError(f"{what} did not happen in {timeout_s:.0f} s")
