"""A photo's video by draft, keyframes and windows between them, with prompts encoded once, through a farm."""

from __future__ import annotations

from typing import Any

import numpy as np

from farm.capabilities import RungSpec, StageCost, Worker
from farm.capabilities.engine_spec import EngineSpec
from farm.planning import RenderTask
from farm.reporting import job_report
from farm.scheduling.retry import MAX_TAKES
from farm.state import TaskReopened
from nodes.engines import RenderInputs
from nodes.engines.engine import Rendered, Report
from nodes.engines.procedural.engine import Procedural
from tests.farm.running.modes.drawn_camera import with_both_ends

Given = dict[str, list[tuple[str, RenderTask, RenderInputs]]]


def spec(engine: Procedural) -> EngineSpec:
    """The drawn camera as a causal model with both ends, whose prompts are encoded by a task of its own."""
    stages = (StageCost(name="text_encode"), StageCost(name="draw"))
    return with_both_ends(
        engine.spec,
        component_bytes={"text": 1},
        text_components=("text",),
        rungs=(RungSpec(name="resident", resident=("text",), stages=stages),),
    )


class Recording(Procedural):
    """Draws the camera's frames and keeps what it was given; fades nothing, invents nothing."""

    def __init__(self, given: Given, worker: Worker) -> None:
        super().__init__()
        self.spec = spec(self)
        self._given, self._worker = given, worker

    def encode_prompts(self, task: RenderTask, rung: str, report: Report) -> dict[str, Any]:
        self._given.setdefault("text", []).append((self._worker.id, task, RenderInputs()))
        return {"prompt_embeds": np.frombuffer(task.prompt.encode(), np.uint8)}

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        self._given.setdefault(task.level, []).append((self._worker.id, task, inputs))
        assert inputs.image is not None
        whole = RenderInputs(image=inputs.image)
        frames = super().render(task, whole, report).frames.copy()
        given = {0: inputs.image, **inputs.known}
        if inputs.last_image is not None:
            given[task.num_frames - 1] = inputs.last_image
        for position, frame in given.items():
            frames[position] = frame
        return Rendered(frames, {"image": frames[task.handover_index or 0]})


async def test_windows_get_their_keyframes_and_the_prompt_that_was_encoded_once(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    given: Given = {}
    engine = Recording(given, Worker(id="-", node="-", kind="cpu", device_name="", vram_bytes=0))
    async with run_farm("a/0", "b/0", engine=lambda m, w, _: Recording(given, w), spec=engine.spec) as farm:
        request = job_request(photo(), mode="infill", prompts=("pan",), num_frames=40)
        job = await farm.ended(farm.coordinator.submit(request))
        assert job.status == "succeeded", job.reason
        assert len(farm.video(job)) == 40
        clips = {s.start: farm_frames(farm, job, s.id) for s in job.plan.segments if s.level == "keyframes"}
    assert len(given["text"]) == 2, "the draft tells another rate than the windows"
    rendered = [row for level in ("draft", "keyframes", "final") for row in given[level]]
    assert all(bytes(inputs.text["prompt_embeds"]) == b"pan" for _, _, inputs in rendered)
    # What is drawn here jumps to its last frame: such windows are rendered again.
    assert sum(task.take == 0 for _, task, _ in given["final"]) == 3
    for _, task, inputs in given["final"]:
        first, last = task.frame_indices[0], task.frame_indices[-1]
        known = {task.frame_indices[position]: frame for position, frame in inputs.known.items()}
        if first:
            known[first] = inputs.image
        if inputs.last_image is not None:
            known[last] = inputs.last_image
        for start, frames in clips.items():
            for offset in range(5):
                if first <= start and start + offset <= last and (start == first or last == start + 4):
                    assert np.array_equal(known.pop(start + offset), frames[offset])
        assert known == {}, "nothing else is given"


def farm_frames(farm: Any, job: Any, segment_id: str) -> Any:
    from stitching.video_io import read_frames

    return read_frames(farm.storage.path(job.tasks[segment_id].artifact.sha256))


class Fading(Recording):
    """A texture that moves by two pixels a frame; the first ``num_takes`` takes of a window between given
    frames fade from one to the other."""

    def __init__(self, given: Given, worker: Worker, num_takes: int) -> None:
        super().__init__(given, worker)
        self._num_takes = num_takes

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        noise = np.random.default_rng(0).integers(0, 255, (task.height // 4, task.width // 4, 3))
        texture = np.kron(noise, np.ones((4, 4, 1))).astype(np.uint8)
        frames = np.stack([np.roll(texture, 2 * number, axis=1) for number in task.frame_indices])
        if task.take < self._num_takes and inputs.last_image is not None and task.level == "final":
            share = np.linspace(0, 1, task.num_frames)[:, None, None, None]
            frames = ((1 - share) * frames[0] + share * frames[-1]).astype(np.uint8)
        return Rendered(frames, {"image": frames[task.handover_index or 0]})


async def _faded(run_farm: Any, request: Any, num_takes: int) -> tuple[Any, list[Any]]:
    """The job of a model whose first takes fade, and the segments that were rendered again."""
    engine = Recording({}, Worker(id="-", node="-", kind="cpu", device_name="", vram_bytes=0))
    async with run_farm("a/0", engine=lambda m, w, _: Fading({}, w, num_takes), spec=engine.spec) as farm:
        job = await farm.ended(farm.coordinator.submit(request))
        assert job.status == "succeeded", job.reason
        return job, farm.events(TaskReopened)


async def test_windows_that_fade_are_rendered_again_the_first_one_too(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    large = {"width": 64, "height": 64, "num_frames": 40}
    request = job_request(photo(), mode="infill", prompts=("pan right quickly",), **large)
    job, reopened = await _faded(run_farm, request, num_takes=1)
    assert {event.task_id for event in reopened} == {"s0-0", "s0-1"}, "the last has no end to fade to"
    assert all("fade" in event.reason for event in reopened)
    assert job.tasks["s0-0"].artifact.fill.failed_gates == ()
    assert job.seams["s0-1"].passed
    assert "fade" in job.seams["s0-1"].measured[0].report["fill"]["failed_gates"]


async def test_what_fades_in_every_take_is_kept_and_named(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    large = {"width": 64, "height": 64, "num_frames": 40}
    request = job_request(photo(), mode="infill", prompts=("pan right quickly",), **large)
    job, reopened = await _faded(run_farm, request, num_takes=9)
    assert [event.task_id for event in reopened].count("s0-0") == MAX_TAKES - 1
    assert job.tasks["s0-0"].take == MAX_TAKES - 1
    told = {segment["id"]: segment for segment in job_report(job, {})["segments"]}
    assert "fade" in told["s0-0"]["fill"]["failed_gates"]
    assert told["s0-2"]["fill"] is None
    (kept, _) = job_report(job, {})["seams"]
    assert "fade" in kept["failed_gates"]
