"""A whole farm in this process: coordinator, two CPU workers as threads, and the web app in front."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from dashboard.access.limits import Limits, Rate
from dashboard.app import create_app
from farm.capabilities.engine_spec import EngineSpec
from farm.capabilities.weights import Weights
from farm.capabilities.worker import GIB, Worker
from farm.errors import InvalidInput, error_type
from farm.request import MediaInfo, OnLook
from farm.running.coordinator import Coordinator
from farm.running.membership import ClusterAccess, Membership
from farm.running.storage import Storage
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from nodes.engines.table import known_models, spec_of
from nodes.hosting.keep_up import media_tools
from nodes.media import intake_sandbox
from nodes.media.intake_sandbox import normalise
from nodes.work.local_cluster import LocalCluster
from stitching import intake

#: The owner's token, which a farm's HTTP client sends where a test has not chosen another.
TOKEN = "the-owners-token"
#: What is tested is seldom how often somebody may ask.
UNLIMITED = Rate(1e6, 1e6)


def cpu_worker(worker_id: str) -> Worker:
    node = worker_id.partition("/")[0]
    return Worker(
        id=worker_id, node=node, address="127.0.0.1", kind="cpu", device_name="CPU", vram_bytes=4 * GIB
    )


@cache
def _taken_in(content: bytes, suffix: str) -> tuple[MediaInfo, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / f"given{suffix}"
        given.write_bytes(content)
        found = normalise(given, Path(folder))
        return found, found.path.read_bytes()


def normalise_once(path: Path, output_dir: Path, on_look: OnLook | None = None, **limits: Any) -> MediaInfo:
    """The intake; for the same bytes again its answer of the first time."""
    try:
        found, content = _taken_in(path.read_bytes(), path.suffix)
    except InvalidInput:
        return normalise(path, output_dir, on_look, **limits)  # its message names the file
    copy = output_dir / found.path.name
    copy.write_bytes(content)
    return found.model_copy(update={"path": copy})


def _looked_at_here(path: Path, staging: Path, *, on_look: OnLook, clip: bool, **_: Any) -> str:
    """What the intake's child process prints, without the process."""
    try:
        return json.dumps(intake.normalise_file(path.absolute(), staging, on_look, clip=clip))
    except intake.IntakeError as error:
        return json.dumps({"error": str(error)})


@pytest.fixture(scope="module", autouse=True)
def intake_without_a_child() -> Iterator[None]:
    """The doors are tested here; tests/nodes/media tests the child that the intake runs in, whose start would
    cost more than all the rest of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake_sandbox, "_run", _looked_at_here)
        yield


@pytest.fixture(scope="module", autouse=True)
def small_paintings() -> Iterator[None]:
    """What is painted where no picture is given has few pixels, which every segment would read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dashboard.videos.intake.PAINTED_SIDE", 64)
        yield


#: Most tests that give no picture have one prompt, and painting takes a tenth of a second.
_painted_once = cache(media_tools().backdrop)


@dataclass
class Farm:
    """What a test holds: the parts, and an HTTP client that calls the app without a network.

    The client is the owner's, unless the test gave the farm another token (``access``): then it is nobody's.
    """

    coordinator: Coordinator
    cluster: LocalCluster
    app: FastAPI
    http: httpx2.AsyncClient
    state_dir: Path
    #: Of the owner.
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        """The header of the owner's requests, for another client than ``http``."""
        return {"Authorization": f"Bearer {self.token}"}

    def add_worker(self, worker_id: str) -> None:
        self.cluster.add(cpu_worker(worker_id))

    async def submit(self, photo: Path, **options: Any) -> httpx2.Response:
        """A small job of some 5 segments, unless ``options`` say otherwise."""
        wanted = {"model": "procedural", "num_frames": 24, "width": 32, "height": 32, "fps": "8", **options}
        return await self.http.post(
            "/api/v1/jobs",
            data={"request": json.dumps(wanted)},
            files=[("inputs", (photo.name, photo.read_bytes()))],
        )

    async def finished_job(self, photo: Path, **options: Any) -> str:
        """The id of such a job once it has ended."""
        answer = await self.submit(photo, **options)
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["id"]
        await self.until_ended(job_id)
        return job_id

    async def get(self, where: str, **how: Any) -> httpx2.Response:
        return await self.http.get(f"/api/v1/{where}", **how)

    async def post(self, where: str, **how: Any) -> httpx2.Response:
        return await self.http.post(f"/api/v1/{where}", **how)

    def error_of(self, answer: httpx2.Response) -> dict[str, Any]:
        """The error of an answer, known to have the one shape and nothing beside it."""
        body = answer.json()
        assert set(body) == {"error"}
        error: dict[str, Any] = body["error"]
        assert set(error) == {"code", "message", "param", "type"}
        assert error["message"]
        assert "\n" not in error["message"]
        assert error["type"] == error_type(answer.status_code)
        return error

    async def until_ended(self, job_id: str) -> None:
        async for _ in self.coordinator.ledger.follow(job_id):
            pass

    def left_behind(self) -> list[Path]:
        return list((self.state_dir / "incoming").iterdir())

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_farm(
    state_dir: Path,
    *,
    workers: Sequence[str] = ("near/cpu0", "near/cpu1"),
    spec_of: Callable[[str, Weights], EngineSpec] = spec_of,
    **app_options: Any,
) -> AsyncIterator[Farm]:
    storage = Storage(state_dir)
    journal = Journal(state_dir / "journal.sqlite")
    others = set(threading.enumerate())  # such as the workers of ``shared_farm``
    cluster = LocalCluster([cpu_worker(worker_id) for worker_id in workers])
    ledger = Ledger(journal)
    ledger.replay()
    ledger.recover(storage.holds)
    coordinator = Coordinator(cluster=cluster, ledger=ledger, storage=storage, spec_of=spec_of)
    loop = asyncio.ensure_future(coordinator.run())
    coordinator.begin_recovered()
    options: dict[str, Any] = {
        "tools": replace(media_tools(), normalise=normalise_once, backdrop=_painted_once),
        "state": state_dir,
        "access": TOKEN,
        "models": known_models,
        "limits": Limits(*[UNLIMITED] * 6),
        "membership": Membership(
            coordinator,
            cluster=lambda: ClusterAccess("10.0.0.1:6379", "Ray's token"),
            secret="the farm's",
            versions={"ray": "2.60.0"},
        ),
        **app_options,
    }
    app = create_app(coordinator=coordinator, **options)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {} if "access" in app_options else {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8700", headers=headers
    ) as http:
        farm = Farm(coordinator, cluster, app, http, state_dir, options["access"])
        await farm.until(lambda: len(coordinator.ledger.state.workers) == len(workers))
        try:
            yield farm
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
            threads = {t for t in threading.enumerate() if t.daemon and "/cpu" in t.name} - others
            await cluster.close()
            # A worker's last words need this loop.
            for thread in threads:
                await asyncio.to_thread(thread.join)
            journal.close()


@pytest.fixture(name="running_farm", scope="session")
def _running_farm() -> Callable[..., AbstractAsyncContextManager[Farm]]:
    """A farm for as long as a block lasts, to be started again in the same folder."""
    return running_farm


@pytest.fixture
async def start_farm(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Farm]]]:
    """Starts a farm with other workers or options of ``create_app``; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Farm:
            return await stack.enter_async_context(running_farm(tmp_path / "state", **options))

        yield start


@pytest.fixture
async def farm(start_farm: Callable[..., Awaitable[Farm]]) -> Farm:
    return await start_farm()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Farm]:
    """One farm for the tests of a file that change nothing; they share its loop (``loop_scope="module"``)."""
    async with running_farm(tmp_path_factory.mktemp("shared") / "state") as farm:
        yield farm


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 x 96 of smooth texture."""
    noise = np.random.default_rng(4).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(
        cv2.imencode(".png", cv2.resize(noise, (96, 96), interpolation=cv2.INTER_CUBIC))[1].tobytes()
    )
    return path


@asynccontextmanager
async def _serving(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractAsyncContextManager[str]]:
    """An app behind a real server on loopback for as long as a block lasts: its URL."""
    return _serving


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[ASGIApp], Awaitable[str]]]:
    """Puts an app behind such a server until the test ends, and returns its URL."""
    async with AsyncExitStack() as stack:
        yield lambda app: stack.enter_async_context(_serving(app))


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Asks again and again, until the answer is yes."""

    async def wait(asked: Callable[[], Awaitable[bool]]) -> None:
        while not await asked():
            await asyncio.sleep(0.05)

    return wait
