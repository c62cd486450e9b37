"""A photo's video by draft, keyframes and windows, through a whole farm with the tiny I2VGen-XL."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.capabilities.engine_spec import EngineSpec, Rung
from farm.capabilities.weights import Weights
from farm.capabilities.worker import Worker
from farm.planning.render_task import Level, RenderTask
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.state.events import AttemptFailed, TaskReopened
from nodes.engines.engine import Engine, Rendered, RenderInputs, Report
from stitching.interpolation import frames_between
from stitching.video_io import read_frames

#: The tiny I2VGen-XL renders drafts, keyframes and windows in each of them.
pytestmark = pytest.mark.slow

Spy = Callable[[str, RenderTask, RenderInputs, Report], None]


@pytest.fixture(scope="module")
def sparse_spec(tiny_i2vgen_xl_folder: Path) -> EngineSpec:
    """The tiny model, as one that was trained for any frame rate."""
    from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec

    spec = i2vgen_xl_spec(tiny_i2vgen_xl_folder, model="tiny")
    sparse = {"min_fps": 1.0}
    return spec.model_copy(update={**sparse, "on_cpu": spec.on("cpu").model_copy(update=sparse)})


class Spied:
    """One loaded engine for a worker of every farm here, that does ``spy`` before it renders.

    What was rendered before, of the same task from the same inputs, is not rendered again: that any engine
    gives the same frames then is tested beside it, and here one job is killed at every event.

    Under a lock: diffusers loads no two models at once, and the thread of a farm that is gone may still be
    at a step of its last.
    """

    def __init__(self, engine: Engine, lock: Lock, rendered: dict[bytes, Rendered]) -> None:
        self.spec = engine.spec
        self.spy: Callable[[RenderTask, RenderInputs, Report], None] | None = None
        self._engine, self._lock, self._rendered = engine, lock, rendered

    def load(self, rung: Rung) -> None:
        with self._lock:
            self._engine.load(rung)

    def unload(self) -> None:
        """Kept for the next farm."""

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        if self.spy:
            self.spy(task, inputs, report)
        asked = pickle.dumps((task.model_dump_json(), inputs))
        with self._lock:
            if asked not in self._rendered:
                self._rendered[asked] = self._engine.render(task, inputs, report)
            return self._rendered[asked]


@pytest.fixture(scope="module")
def loaded(sparse_spec: EngineSpec, tiny_i2vgen_xl_folder: Path) -> Callable[[str], Spied]:
    """The engine of a worker, by its id."""
    from nodes.engines.i2vgen_xl.engine import I2VGenXL

    lock = Lock()
    rendered: dict[bytes, Rendered] = {}

    @cache
    def engine_of(worker_id: str) -> Spied:
        engine = I2VGenXL(sparse_spec.on("cpu"), source=tiny_i2vgen_xl_folder, device="cpu")
        return Spied(engine, lock, rendered)

    return engine_of


@pytest.fixture
def tiny(loaded: Callable[[str], Spied]) -> Callable[..., Callable[[str, Worker, Weights], Engine]]:
    """``engine=tiny(spy)``: the real engine, that first does ``spy(worker id, task, inputs, report)``."""

    def engines(spy: Spy | None = None) -> Callable[[str, Worker, Weights], Engine]:
        def create(model: str, worker: Worker, weights: Weights) -> Engine:
            engine = loaded(worker.id)
            engine.spy = partial(spy, worker.id) if spy else None
            return engine

        return create

    return engines


def request(*inputs: MediaInfo, **changes: Any) -> JobRequest:
    asked = {"model": "tiny", "mode": "refine", "width": 32, "height": 32, "num_inference_steps": 5}
    return JobRequest(inputs=inputs, **(asked | {"num_frames": 18, "seed": 3} | changes))


def stored(farm: Any, job: Any, segment: str) -> NDArray[np.uint8]:
    return read_frames(farm.storage.path(job.tasks[segment].artifact.sha256))


async def finished(farm: Any, asked: JobRequest) -> Any:
    job = await farm.ended(farm.coordinator.submit(asked))
    assert job.status == "succeeded", job.reason
    return job


async def test_each_window_starts_from_its_own_keyframe_over_frames_between_the_keyframes(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any
) -> None:
    seen: dict[tuple[Level, int], RenderInputs] = {}

    def spy(worker: str, task: RenderTask, inputs: RenderInputs, report: Report) -> None:
        seen[task.level, task.frame_indices[0]] = inputs

    async with run_farm("a/0", "b/0", engine=tiny(spy), spec=sparse_spec) as farm:
        job = await finished(farm, request(photo()))
        start = seen["draft", 0].image
        assert start is not None
        assert seen["draft", 0].video is None
        draft, keyframes = stored(farm, job, "d0-0"), stored(farm, job, "k0-0")
        assert len(farm.video(job)) == 18
    over_draft = seen["keyframes", 0].video
    assert over_draft is not None
    assert np.array_equal(over_draft, [start, *draft[1:]])
    assert np.array_equal(seen["keyframes", 0].image, start)
    refined = dict(zip(range(0, 40, 5), [start, *keyframes[1:]], strict=True))
    for first in (0, 5, 10):
        window = seen["final", first]
        assert np.array_equal(window.image, refined[first])
        assert np.array_equal(window.video, frames_between(refined, range(first, first + 8)))
        assert window.handover == {}
    images = [seen["final", first].image for first in (0, 5, 10)]
    assert not any(np.array_equal(images[0], other) for other in images[1:]), "none is reset to the photo"


async def test_a_longer_draft_is_handed_on_from_window_to_window(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any
) -> None:
    seen: dict[int, RenderInputs] = {}

    def spy(worker: str, task: RenderTask, inputs: RenderInputs, report: Report) -> None:
        if task.level == "draft":
            seen[task.frame_indices[0]] = inputs

    async with run_farm("a/0", engine=tiny(spy), spec=sparse_spec) as farm:
        job = await finished(farm, request(photo(), num_frames=40))
        first = stored(farm, job, "d0-0")
        assert len(farm.video(job)) == 40
    assert list(seen) == [0, 35]
    assert np.array_equal(seen[35].image, first[7])
    assert {"latent", "image"} <= seen[35].handover.keys()
    assert {"mean", "std"} <= seen[35].anchor.keys()


@pytest.mark.parametrize("num_frames", [1, 8, 9, 13, 14, 29])
async def test_a_storyboard_has_exactly_the_frames_asked_for(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any, num_frames: int
) -> None:
    inputs = (photo(0), photo(1))[: num_frames // 2 or 1]
    async with run_farm("a/0", "b/0", engine=tiny(), spec=sparse_spec) as farm:
        job = await finished(farm, request(*inputs, num_frames=num_frames))
        assert len(farm.video(job)) == num_frames


@pytest.mark.parametrize("level", ["draft", "keyframes", "final"])
async def test_a_worker_killed_at_any_level_costs_its_segment_and_no_frame(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any, level: Level
) -> None:
    killed: list[str] = []
    loop = asyncio.get_running_loop()

    def spy(worker: str, task: RenderTask, inputs: RenderInputs, report: Report) -> None:
        if task.level != level or killed:
            return
        killed.append(worker)
        loop.call_soon_threadsafe(farm.cluster.kill, worker)
        while True:  # until it is told
            report("denoise", 0, 1)
            time.sleep(0.002)

    async with run_farm("a/0", engine=tiny(), spec=sparse_spec) as farm:
        whole = (await finished(farm, request(photo()))).published
    async with run_farm("b/0", "c/0", engine=tiny(spy), spec=sparse_spec) as farm:
        job = await finished(farm, request(photo()))
        # On a busy machine a second copy of a straggler may be taken back besides.
        (lost,) = (e for e in farm.events(AttemptFailed) if e.kind != "cancelled")
        assert (lost.kind, job.tasks[lost.task_id].segment.level) == ("lost", level)
        assert job.published.frames_sha256 == whole.frames_sha256


async def test_a_kill_after_any_event_ends_in_the_same_frames(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any, kill_after_every_event: Any
) -> None:
    farm_of = partial(run_farm, "a/0", "b/0", engine=tiny(), spec=sparse_spec)
    asked = request(photo(), num_frames=13, num_inference_steps=1)
    # Submitted, two workers, four segments assigned and done, a seam, published.
    assert await kill_after_every_event(farm_of, asked) >= 13


async def test_a_window_rendered_again_is_over_the_same_keyframes_and_has_other_noise(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any
) -> None:
    seen: list[tuple[Level, int, RenderInputs]] = []

    def spy(worker: str, task: RenderTask, inputs: RenderInputs, report: Report) -> None:
        seen.append((task.level, task.take, inputs))

    async with run_farm("a/0", engine=tiny(spy), spec=sparse_spec) as farm:
        job = await finished(farm, request(photo(), num_frames=13, num_inference_steps=1))
        first = stored(farm, job, "s0-0")
        before = next(inputs for level, _, inputs in seen if level == "final")
        seen.clear()
        assert farm.coordinator.rerender(job.id, 0, 1) == ["s0-0"]
        await farm.ended(job.id)
        ((level, take, inputs),) = seen
        assert (level, take) == ("final", 1)
        assert np.array_equal(inputs.video, before.video)
        assert not np.array_equal(stored(farm, job, "s0-0"), first)


async def test_auto_plans_for_the_workers_that_are_here_or_on_their_way_and_not_for_those_that_leave(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any, make: Any
) -> None:
    asked = request(photo(), mode="auto", num_frames=96)
    async with run_farm("a/0", "b/0", engine=tiny(), spec=sparse_spec) as farm:
        coordinator = farm.coordinator
        await farm.until(lambda: len(farm.ledger.state.workers) == 2)
        (note,) = coordinator.plan(asked).notes
        assert note.startswith("refine chosen: 2 workers")
        coming = [make.worker(worker_id, 4, kind="cpu") for worker_id in ("b/0", "c/0")]
        (note,) = coordinator.plan(asked, coming=coming).notes
        assert note.startswith("refine chosen: 3 workers")
        coordinator.drain("b/0")
        assert coordinator.plan(asked).mode == "chain"
        job_id = coordinator.submit(asked, coming=coming)
        assert farm.ledger.job(job_id).plan.mode == "refine"
        coordinator.cancel(job_id)


async def test_keyframes_whose_file_is_lost_are_refined_again_for_the_windows_that_need_them(
    run_farm: Any, photo: Any, sparse_spec: EngineSpec, tiny: Any
) -> None:
    farm_of = partial(run_farm, "a/0", engine=tiny(), spec=sparse_spec)
    async with farm_of() as farm:
        job_id = farm.coordinator.submit(request(photo()))
        await farm.until(lambda: farm.ledger.job(job_id).tasks["s0-0"].status == "done")
    lost = farm.ledger.job(job_id).tasks["k0-0"].artifact
    farm.storage.path(lost.sha256).unlink()
    async with farm_of() as farm:
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        assert [(e.task_id, e.reason) for e in farm.events(TaskReopened) if e.take == 0] == [
            ("k0-0", "its file is gone from the storage")
        ]
        assert job.tasks["k0-0"].artifact == lost, "refined again, it is the same file"
