"""Official openai clients, each with its own packages in a process of its own, against a farm on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Receive, Scope, Send
from uv import find_uv_bin

#: The oldest and the newest with every change; those between are asked where there is more time.
VERSIONS = ("2.2.0", "3.52.0")
VERSIONS_BETWEEN = ("2.24.0", "3.0.0")
HERE = Path(__file__).parent
CONSTRAINTS = (HERE.parents[3] / "constraints.txt", HERE / "constraints.txt")
TOKEN = "the owner's token"


def packages_of(version: str) -> Path:
    """A folder with that client and all it needs, installed at the first asking."""
    pinned = hashlib.sha256(b"".join(path.read_bytes() for path in CONSTRAINTS)).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelfarm-tests"
    target = cache / f"openai-{version}-{pinned}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache))
        try:
            command = [find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable]
            command += ["--target", str(fresh), f"openai=={version}"]
            for path in CONSTRAINTS:
                command += ["--constraint", str(path)]
            subprocess.run(command, check=True, timeout=240)
            with contextlib.suppress(OSError):  # another process was first
                fresh.replace(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target


@dataclass
class Driver:
    """A process with a client in it."""

    version: str
    process: subprocess.Popen[bytes]

    def ask(self, line: bytes) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@pytest.fixture(
    scope="module",
    params=[*VERSIONS, *(pytest.param(version, marks=pytest.mark.long) for version in VERSIONS_BETWEEN)],
)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    folder = packages_of(request.param)
    # -S: none of the packages that run this test.
    command = [sys.executable, "-S", "-P", str(HERE / "driver.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(folder)}
    ) as process:
        yield Driver(request.param, process)
        process.kill()


@dataclass
class Client:
    """Calls ``client.videos`` of one version: ``await client.create(prompt="…")``."""

    driver: Driver
    base_url: str
    key: str

    @property
    def major(self) -> int:
        return int(self.driver.version.partition(".")[0])

    def __getattr__(self, method: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> Any:
            answer = await self.answer(method, **arguments)
            assert "value" in answer, answer
            return answer["value"]

        return call

    async def refused(self, method: str, **arguments: Any) -> dict[str, Any]:
        """The error that a call ends with."""
        answer = await self.answer(method, **arguments)
        assert "error" in answer, answer
        return answer

    async def answer(self, method: str, **arguments: Any) -> dict[str, Any]:
        asked = {"base_url": self.base_url, "key": self.key, "method": method, "arguments": arguments}
        line = await asyncio.to_thread(self.driver.ask, json.dumps(asked).encode())
        assert line, "the client's process ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class Wire:
    """An app in between that remembers what was asked of the farm."""

    app: ASGIApp
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.asked.append((scope["method"], scope["path"]))
            self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        await self.app(scope, receive, send)


@dataclass
class Served:
    """A farm behind a real server, and a client of one version in front of it."""

    farm: Any
    wire: Wire
    url: str
    client: Client


@pytest.fixture
def start_served(start_farm: Any, serve: Any, driver: Driver) -> Callable[..., Any]:
    """Starts a farm with a token, a server and a client; ``options`` are those of ``start_farm``."""

    async def start(**options: Any) -> Served:
        farm = await start_farm(access=TOKEN, **options)
        wire = Wire(farm.app)
        url = await serve(wire)
        return Served(farm, wire, url, Client(driver, f"{url}/v1", TOKEN))

    return start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_served(
    tmp_path_factory: pytest.TempPathFactory, running_farm: Any, serving: Any
) -> AsyncIterator[tuple[Any, Wire, str]]:
    folder = tmp_path_factory.mktemp("served") / "state"
    async with running_farm(folder, access=TOKEN) as farm, serving(wire := Wire(farm.app)) as url:
        yield farm, wire, url


@pytest.fixture
def served(shared_served: tuple[Any, Wire, str], driver: Driver) -> Served:
    """The farm of all tests of a file that do not mind what others have asked of it; they share its loop."""
    farm, wire, url = shared_served
    wire.asked.clear()
    wire.headers.clear()
    return Served(farm, wire, url, Client(driver, f"{url}/v1", TOKEN))
