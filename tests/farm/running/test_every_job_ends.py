"""Whatever fails, with one worker or with two, a job ends: in the same frames, or with the reason."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from farm.capabilities.weights import Weights
from farm.capabilities.worker import Worker
from farm.errors import CannotRun, InvalidInput
from farm.planning.render_task import RenderTask
from farm.running.cluster import StitchOrder, WorkerDown, WorkerUp
from farm.running.joining import StitchFailed
from farm.state.events import AttemptFailed
from farm.state.state import Attempt, Job
from nodes.engines.engine import Engine, OutOfMemory, Rendered, Report
from nodes.engines.procedural import engine as procedural
from nodes.work.local_cluster import LocalCluster, LocalStitchSession

ALWAYS = 1000
TWO_HOURS_S = 7200.0


class Returning(LocalCluster):
    """Killed workers come back as fresh processes, as they do on Ray; stitchers can be made to die."""

    doomed_stitchers = 0
    doom: Exception

    def kill(self, worker_id: str) -> None:
        body = self._bodies.get(worker_id)
        super().kill(worker_id)
        if body is not None:
            self.add(body.worker)

    def cut_off(self, worker_id: str) -> None:
        """The coordinator believes that it is dead; it works on, and is found again."""
        self._messages.put_nowait(WorkerDown(worker_id, "cannot be reached"))
        self._messages.put_nowait(WorkerUp(self._bodies[worker_id].worker))

    async def open_stitcher(self, order: StitchOrder) -> LocalStitchSession:
        if self.doomed_stitchers:
            self.doomed_stitchers -= 1
            raise self.doom
        return await super().open_stitcher(order)


@dataclass
class Scene:
    """A farm whose next ``left`` renders go wrong."""

    left: int = 0
    farm: Any = None
    #: How far the clocks are off.
    wall_s: float = 0.0
    monotonic_s: float = 0.0
    go_on: threading.Event = field(default_factory=threading.Event)

    @property
    def job(self) -> Job:
        newest: Job = next(reversed(self.farm.ledger.state.jobs.values()))
        return newest

    @property
    def held(self) -> list[Attempt]:
        """Attempts that ``holds`` has held up."""
        running = [a for task in self.job.tasks.values() for a in task.running_attempts]
        return [a for a in running if a.phase == "denoise"]

    def engine(self, wrong: Wrong) -> Callable[[str, Worker, Weights], Engine]:
        return lambda model, worker, weights: Failing(self, wrong, model)

    def is_next(self) -> bool:
        self.left -= 1
        return self.left >= 0


#: What goes wrong with a render, in place of its frames or before them.
Wrong = Callable[[Scene, RenderTask, Report], Rendered | None]


class Failing(procedural.Procedural):
    def __init__(self, scene: Scene, wrong: Wrong, model: str) -> None:
        super().__init__(model)
        self._scene, self._wrong = scene, wrong

    def load(self, rung: Any) -> None:
        if self._wrong is refuses and self._scene.is_next():
            raise CannotRun("the weights are not here")
        super().load(rung)

    def render(self, task: RenderTask, inputs: Any, report: Report) -> Rendered:
        instead = None
        if self._wrong is not refuses and self._scene.is_next():
            instead = self._wrong(self._scene, task, report)
        return super().render(task, inputs, report) if instead is None else instead


def raises(scene: Scene, task: RenderTask, report: Report) -> None:
    raise ArithmeticError("no luck")


def blackens(scene: Scene, task: RenderTask, report: Report) -> Rendered:
    return Rendered(frames=np.zeros((task.num_frames, task.height, task.width, 3), np.uint8))


def runs_out_of_memory(scene: Scene, task: RenderTask, report: Report) -> None:
    raise OutOfMemory("no memory left")


def refuses(scene: Scene, task: RenderTask, report: Report) -> None:
    """Not even the model is loaded."""


def holds(scene: Scene, task: RenderTask, report: Report) -> None:
    report("denoise", 0, 1)
    scene.go_on.wait(60)


# What happens meanwhile.


async def nothing(scene: Scene) -> None: ...


async def dies(scene: Scene) -> None:
    await scene.farm.until(lambda: scene.held)
    scene.farm.cluster.kill(scene.held[0].worker_id)


async def dies_again_and_again(scene: Scene) -> None:
    while scene.job.status == "running":
        await scene.farm.until(lambda: scene.held or scene.job.status != "running")
        for attempt in scene.held:
            scene.farm.cluster.kill(attempt.worker_id)
            await scene.farm.until(lambda a=attempt: not a.running)


async def is_silent(scene: Scene) -> None:
    await scene.farm.until(lambda: scene.held)
    attempt = scene.held[0]
    scene.monotonic_s += 61.0
    await scene.farm.until(lambda: not attempt.running)


async def is_always_silent(scene: Scene) -> None:
    while scene.job.status == "running":
        await scene.farm.until(lambda: scene.held or scene.job.status != "running")
        for attempt in scene.held:
            scene.monotonic_s += 61.0
            await scene.farm.until(lambda a=attempt: not a.running)


async def clock_goes_forward(scene: Scene) -> None:
    await scene.farm.until(lambda: scene.held)
    scene.wall_s += TWO_HOURS_S
    await looks_at_the_time(scene)


async def clock_goes_back(scene: Scene) -> None:
    await scene.farm.until(lambda: scene.held)
    scene.wall_s -= TWO_HOURS_S
    await looks_at_the_time(scene)


async def looks_at_the_time(scene: Scene) -> None:
    """The watch for stalls has looked, and the schedule was asked."""
    started, monotonic = threading.Event(), scene.farm.ledger.monotonic
    looks = iter((False, False, False, True))

    def seen() -> float:
        if next(looks, True):
            started.set()
        return float(monotonic())

    scene.farm.ledger.monotonic = seen
    await scene.farm.until(started.is_set)
    assert scene.farm.events(AttemptFailed) == []
    scene.go_on.set()


async def is_drained_and_enabled(scene: Scene) -> None:
    await scene.farm.until(lambda: scene.held)
    workers = list(scene.farm.ledger.state.workers)
    for worker_id in workers:
        scene.farm.coordinator.drain(worker_id)
    scene.go_on.set()
    await scene.farm.until(lambda: not scene.farm.ledger.state.workers)
    for worker_id in workers:
        scene.farm.coordinator.enable(worker_id)


async def is_cut_off(scene: Scene) -> None:
    await scene.farm.until(lambda: scene.held)
    attempt = scene.held[0]
    scene.farm.cluster.cut_off(attempt.worker_id)
    await scene.farm.until(lambda: not attempt.running)
    scene.go_on.set()


Meanwhile = Callable[[Scene], Awaitable[None]]
#: name, what goes wrong, how often, what happens meanwhile, the reason of the job's end or "" for its video.
FAILURES: list[tuple[str, Wrong, int, Meanwhile, str]] = [
    ("an error", raises, 1, nothing, ""),
    ("two errors", raises, 2, nothing, ""),
    ("only errors", raises, ALWAYS, nothing, "segment s0-. failed 3 times .*no luck.*no luck.*no luck"),
    ("black frames", blackens, 1, nothing, ""),
    ("only black frames", blackens, ALWAYS, nothing, "segment s0-. failed 3 times .*black"),
    ("no memory", runs_out_of_memory, ALWAYS, nothing, "no worker is left for segment .*needs more than"),
    ("only refusals", refuses, ALWAYS, nothing, "no worker is left for segment .*weights are not here"),
    ("a death", holds, 1, dies, ""),
    ("only deaths", holds, ALWAYS, dies_again_and_again, "segment s0-. failed 3 times .*was killed"),
    ("a silence", holds, 1, is_silent, ""),
    ("only silence", holds, ALWAYS, is_always_silent, "segment s0-. failed [34] times .*was silent for"),
    ("a clock set two hours on", holds, 1, clock_goes_forward, ""),
    ("a clock set two hours back", holds, 1, clock_goes_back, ""),
    ("a drain that is taken back", holds, 1, is_drained_and_enabled, ""),
    ("a link that breaks", holds, 1, is_cut_off, ""),
]  # fmt: skip


@pytest.fixture
def suffer(
    run_farm: Any, photo: Any, job_request: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[None]]:
    """Render a video in peace and then the same one while this happens: it ends as ``end`` says."""
    monkeypatch.setattr("farm.running.stalls.CHECK_INTERVAL_S", 0.01)

    async def run(
        workers: tuple[str, ...],
        wrong: Wrong,
        times: int,
        meanwhile: Meanwhile,
        end: str,
        doomed: int = 0,
        doom: Exception | None = None,
    ) -> None:
        scene = Scene()
        clocks = {
            "clock": lambda: time.time() + scene.wall_s,
            "monotonic": lambda: time.monotonic() + scene.monotonic_s,
        }
        request = job_request(photo(), num_frames=13)
        async with run_farm(*workers, engine=scene.engine(wrong), cluster=Returning, **clocks) as farm:
            scene.farm = farm
            try:
                peaceful = await farm.ended(farm.coordinator.submit(request))
                scene.left, farm.cluster.doomed_stitchers, farm.cluster.doom = times, doomed, doom
                job_id = farm.coordinator.submit(request)
                await meanwhile(scene)
                job = await farm.ended(job_id)
            finally:
                scene.go_on.set()
            if end:
                assert (job.status, job.num_running) == ("failed", 0)
                assert re.search(end, job.reason), job.reason
                return
            assert job.status == "succeeded", job.reason
            assert job.published.frames_sha256 == peaceful.published.frames_sha256

    return run


ONE_WORKER = pytest.param(("a/0",), id="one worker", marks=pytest.mark.slow)
BOTH = pytest.mark.parametrize("workers", [ONE_WORKER, pytest.param(("a/0", "b/0"), id="two workers")])


@BOTH
@pytest.mark.parametrize(
    ("wrong", "times", "meanwhile", "end"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES]
)
async def test_a_job_survives_or_ends_with_the_reason(
    suffer: Any, workers: tuple[str, ...], wrong: Wrong, times: int, meanwhile: Meanwhile, end: str
) -> None:
    await suffer(workers, wrong, times, meanwhile, end)


@BOTH
@pytest.mark.parametrize(
    ("doom", "doomed", "end"),
    [
        (StitchFailed("its process died"), 1, ""),
        (StitchFailed("its process died"), ALWAYS, "could not be joined: its process died"),
        (ZeroDivisionError("a fault of ours"), ALWAYS, "could not be joined: a fault of ours"),
    ],
    ids=["once", "always", "in a way nobody thought of"],
)
async def test_a_job_survives_its_stitcher_or_ends_with_the_reason(
    suffer: Any, workers: tuple[str, ...], doom: Exception, doomed: int, end: str
) -> None:
    await suffer(workers, raises, 0, nothing, end, doomed, doom)


async def test_a_job_that_waits_is_retried_and_one_a_worker_is_at_is_not(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any, held: Any
) -> None:
    async with run_farm("a/0", engine=trouble(held)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(held.begun.is_set)
        farm.cluster.kill("a/0")
        await farm.until(lambda: not farm.ledger.state.workers)
        task = farm.ledger.job(job_id).tasks["s0-0"]
        assert len(task.failures) == 1
        farm.coordinator.retry(job_id)
        assert (farm.ledger.job(job_id).status, task.failures) == ("running", [])
        held.begun.clear()
        farm.cluster.add(Worker(id="a/0", node="a", kind="cpu", device_name="a CPU", vram_bytes=2**32))
        await farm.until(held.begun.is_set)
        with pytest.raises(InvalidInput, match=f"job {job_id} is running and a worker is at it"):
            farm.coordinator.retry(job_id)
        held.go_on.set()
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        with pytest.raises(InvalidInput, match=f"job {job_id} is succeeded; only a job that failed"):
            farm.coordinator.retry(job_id)
