"""Ray's driver as a child of the coordinator: started, asked, listened to, watched. Imports no Ray."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from farm.errors import CannotRun
from nodes.ray.protocol import Asked, Nodes, Start, Told, told

#: Between looks at whether Ray's processes live.
TICK_S = 0.5
#: Ticks without a word after which Ray counts as hung: a raylet or GCS that pauses for ten seconds is none.
MAX_SILENT_TICKS = 40
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Launch:
    """A Ray to be the driver of."""

    start: Start
    #: Variables that every process of this Ray must see.
    environment: Mapping[str, str]
    log_path: Path
    #: Processes whose end is the end of this Ray; the driver tells of those it starts itself.
    pids: tuple[int, ...] = ()


class RayEnded(Exception):
    """Ray is not there any more. Says what happened."""

    def __init__(self, reason: str, *, driver_alone: bool = False) -> None:
        super().__init__(reason)
        #: Ray's own processes live; only its driver does not.
        self.driver_alone = driver_alone


@dataclass
class DriverProcess:
    """A driver that is up."""

    _process: asyncio.subprocess.Process
    _log_path: Path
    _essential: list[psutil.Process] = field(default_factory=list)
    _lines: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    _reading: asyncio.Task[None] | None = None
    #: Why this Ray is of no use any more, though it runs.
    _given_up: str | None = None

    def ask(self, message: Asked) -> None:
        """Returns at once; a driver that has ended hears nothing."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(message.model_dump_json().encode() + b"\n")

    async def told(self) -> AsyncIterator[Told]:
        """What it says, for as long as Ray is there.

        Raises:
            RayEnded: always at the end.
        """
        silent = 0
        while True:
            if ended := self.dead():
                raise RayEnded(ended)
            try:
                async with asyncio.timeout(TICK_S):
                    line = await self._lines.get()
            except TimeoutError:
                silent += 1
                if silent > MAX_SILENT_TICKS:
                    raise RayEnded("answers no more") from None
                continue
            silent = 0
            if not line:
                await asyncio.sleep(TICK_S)  # Ray's processes may be on their way out
                ended = self.dead()
                raise RayEnded(ended or "has lost its driver", driver_alone=not ended)
            try:
                message = told(line)
            except ValueError as error:
                raise RayEnded(str(error), driver_alone=True) from error
            if isinstance(message, Nodes):
                self._watch(message.pids)
                if not message.here:
                    raise RayEnded("takes its own machine for dead")
            yield message

    def give_up(self, reason: str) -> None:
        """Take this Ray for dead."""
        self._given_up = reason

    def dead(self) -> str | None:
        """Why this Ray is one no more, or None."""
        if self._given_up is not None:
            return self._given_up
        for process in self._essential:
            if not _lives(process):
                return f"has ended: its process {process.pid} is gone"
        return None

    async def stop(self) -> None:
        """Have it end, and with it a Ray that it has started."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it now; a Ray that it has started ends with it."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()

    def _watch(self, pids: Iterable[int]) -> None:
        known = {process.pid for process in self._essential}
        for pid in pids:
            if pid not in known:
                with suppress(psutil.NoSuchProcess):
                    self._essential.append(psutil.Process(pid))

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._lines.put_nowait(line)
        self._lines.put_nowait(b"")


async def start_driver(launch: Launch) -> DriverProcess:
    """A driver that is up, and the driver of that Ray.

    Raises:
        CannotRun: it does not come up; with the reason.
    """
    launch.log_path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "nodes.ray.driver",
            env={**os.environ, **launch.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=1 << 24,
            start_new_session=True,  # Ctrl-C is for the coordinator
        )
    driver = DriverProcess(process, launch.log_path)
    try:
        driver._watch(launch.pids)
        driver._reading = asyncio.ensure_future(driver._read())
        assert process.stdin is not None
        process.stdin.write(launch.start.model_dump_json().encode() + b"\n")
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await driver._lines.get()
        if not line:
            raise CannotRun(
                f"Ray did not start here: {_last_words(launch.log_path)}; "
                "`farm doctor` looks the machine over"
            )
        driver._lines.put_nowait(line)
    except TimeoutError:
        await driver.kill()
        raise CannotRun(f"Ray did not start here in {START_TIMEOUT_S:.0f} s") from None
    except BaseException:
        await driver.kill()
        raise
    return driver


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _last_words(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
