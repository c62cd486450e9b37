"""A whole farm in one process, workers as threads: what runs on it, troubles it, and kills it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import pytest

from farm.capabilities.engine_spec import EngineSpec
from farm.capabilities.weights import Weights
from farm.capabilities.worker import Worker
from farm.planning.render_task import RenderTask
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.running.coordinator import Coordinator
from farm.running.storage import Storage
from farm.state.events import AttemptFailed, AttemptSucceeded, Event, JobReopened, TaskReopened
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from farm.state.state import Job
from nodes.engines.engine import Engine, Frames, Rendered, RenderInputs, Report
from nodes.engines.procedural import engine as procedural
from nodes.engines.table import create_engine, spec_of
from nodes.work.local_cluster import LocalCluster
from stitching.video_io import read_frames

E = TypeVar("E")


@dataclass
class Farm:
    """A coordinator at work over workers that are threads of this process."""

    cluster: LocalCluster
    ledger: Ledger
    storage: Storage
    coordinator: Coordinator

    async def ended(self, job_id: str) -> Job:
        """Wait for a job's end and return it."""

        async def follow() -> None:
            async for _ in self.ledger.follow(job_id):
                pass

        await asyncio.wait_for(follow(), 60)
        return self.ledger.job(job_id)

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait until something is true."""

        async def look() -> None:
            while not fact():
                await asyncio.sleep(0.005)

        await asyncio.wait_for(look(), 60)

    async def until_ended_or_killed(self, job_id: str, journal: FatalJournal) -> None:
        await self.until(lambda: journal.killed.is_set() or self.ledger.job(job_id).status != "running")

    def events(self, kind: type[E]) -> list[E]:
        return [event for _, _, event in self.ledger.journal.events() if isinstance(event, kind)]

    def video(self, job: Job) -> Frames:
        return read_frames(self.storage.job_folder(job.id) / "video.mp4")


class RunFarm(Protocol):
    def __call__(
        self,
        *workers: str,
        engine: Callable[[str, Worker, Weights], Engine] = ...,
        spec: EngineSpec | None = None,
        cluster: type[LocalCluster] = ...,
        clock: Callable[[], float] = ...,
        monotonic: Callable[[], float] = ...,
        journal: Journal | None = None,
    ) -> AbstractAsyncContextManager[Farm]: ...


@pytest.fixture
def run_farm(tmp_path: Path, make: Any) -> RunFarm:
    """``async with run_farm("a/0", "b/0") as farm``: state in ``tmp_path``, recovered if there is any."""

    @asynccontextmanager
    async def run(
        *workers: str,
        engine: Callable[[str, Worker, Weights], Engine] = create_engine,
        spec: EngineSpec | None = None,
        cluster: type[LocalCluster] = LocalCluster,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        journal: Journal | None = None,
    ) -> AsyncIterator[Farm]:
        storage = Storage(tmp_path / "state")
        journal = journal or Journal(tmp_path / "state" / "journal.sqlite")
        ledger = Ledger(journal, clock=clock, monotonic=monotonic)
        ledger.replay()
        ledger.recover(storage.holds)
        machines = cluster([make.worker(w, 4, kind="cpu") for w in workers], engine)
        specs = (lambda model, weights: spec) if spec else spec_of
        coordinator = Coordinator(cluster=machines, ledger=ledger, storage=storage, spec_of=specs)
        coordinator.begin_recovered()
        running = asyncio.ensure_future(coordinator.run())
        try:
            yield Farm(machines, ledger, storage, coordinator)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await machines.close()
            ledger.journal.close()

    return run


class Killed(BaseException):
    """The process ends here."""


class FatalJournal(Journal):
    """Takes so many events, and kills the process that brings the next."""

    def __init__(self, path: Path, num_events: int) -> None:
        super().__init__(path)
        self._left = num_events
        self.killed = asyncio.Event()

    def append(self, event: Event, at: float) -> int:
        if self._left == 0:
            self.killed.set()
            raise Killed
        self._left -= 1
        return super().append(event, at)


@pytest.fixture
def fatal_journal() -> type[FatalJournal]:
    return FatalJournal


@pytest.fixture
def kill_after_every_event(tmp_path: Path) -> Callable[..., Awaitable[int]]:
    """``await kill_after_every_event(farm_of, request)``: the job, killed after its first event, its second
    and so on, must end in the frames of an undisturbed one; how many events it had. With ``rerender``, these
    frames are rendered again once it has succeeded, and it is killed from there on."""

    async def kill(
        farm_of: Callable[..., AbstractAsyncContextManager[Farm]],
        request: JobRequest,
        rerender: tuple[int, int] | None = None,
    ) -> int:
        num_events = 1
        async with farm_of(journal=Journal(tmp_path / "whole.sqlite")) as farm:
            whole = await farm.ended(farm.coordinator.submit(request))
            if rerender:
                num_events = len(farm.events(object)) - 3  # a run may have some fewer
                farm.coordinator.rerender(whole.id, *rerender)
                await farm.ended(whole.id)
            assert whole.published is not None
        while True:
            path = tmp_path / f"killed-after-{num_events}.sqlite"
            journal = FatalJournal(path, num_events)
            async with farm_of(journal=journal) as farm:
                job_id = farm.coordinator.submit(request)
                await farm.until_ended_or_killed(job_id, journal)
                if rerender and not journal.killed.is_set():
                    with suppress(Killed):
                        farm.coordinator.rerender(job_id, *rerender)
                    await farm.until_ended_or_killed(job_id, journal)
                if not journal.killed.is_set():
                    return num_events
            half = tmp_path / "state" / "jobs" / job_id / ".writing-video.mp4"
            half.parent.mkdir(parents=True, exist_ok=True)  # a kill may come before its joiner
            half.write_bytes(b"half a video")
            async with farm_of(journal=Journal(path)) as farm:
                job = await farm.ended(job_id)
                if rerender and not farm.events(JobReopened):
                    farm.coordinator.rerender(job_id, *rerender)
                    await farm.ended(job_id)
                assert job.status == "succeeded", job.reason
                assert job.published.frames_sha256 == whole.published.frames_sha256, f"after {num_events}"
                assert len(farm.video(job)) == request.num_frames
                succeeded = farm.events(AttemptSucceeded)
                takes = {(e.task_id, e.take) for e in farm.events(TaskReopened)}
                takes |= {take for e in farm.events(JobReopened) for take in e.takes.items()}
                assert len(succeeded) == len(job.tasks) + len(takes), "what was done is not done again"
                assert {e.kind for e in farm.events(AttemptFailed)} <= {"coordinator_restart"}
            num_events += 1

    return kill


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., MediaInfo]:
    """Checked photos of smooth coloured texture, by number."""

    def take(number: int = 0, *, side: int = 96, smooth: float = 3.0) -> MediaInfo:
        noise = np.random.default_rng(number).uniform(40, 220, (side, side, 3)).astype(np.float32)
        image = cv2.GaussianBlur(noise, (0, 0), smooth) if smooth else noise
        image = (image - image.mean()) * (40 / image.std()) + 128
        path = tmp_path / f"photo{number}.png"
        cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return MediaInfo(kind="image", width=side, height=side, num_frames=1, sha256=sha256, path=path)

    return take


@pytest.fixture
def job_request() -> Callable[..., JobRequest]:
    """A small job of the real procedural engine."""
    small = {"model": "procedural", "width": 32, "height": 32}
    return lambda *inputs, **changes: JobRequest(**({"inputs": inputs} | small | changes))


class Trouble(procedural.Procedural):
    """The real engine, that first does ``trouble`` with its worker's id and the task."""

    def __init__(self, trouble: Any, model: str, worker: Worker) -> None:
        super().__init__(model)
        self._trouble, self._worker = trouble, worker

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        changed = self._trouble(self._worker.id, task, report)
        return super().render(task, inputs, report) if changed is None else changed


@pytest.fixture
def trouble() -> Callable[..., Callable[[str, Worker, Weights], Engine]]:
    """``engine=trouble(f)``: the real engine, with ``f(worker id, task, report)`` before it renders."""
    return lambda what: lambda model, worker, weights: Trouble(what, model, worker)


class Held:
    """Trouble that holds every render up: ``begun`` is set when one comes, and it goes on with ``go_on``."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, worker: str, task: RenderTask, report: Report) -> None:
        self.begun.set()
        self.go_on.wait(60)


@pytest.fixture
def held() -> Held:
    """``engine=trouble(held)``."""
    return Held()
