"""A photo's video that waits for its user after its keyframes, through a whole farm with a drawn camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from farm.capabilities.engine_spec import EngineSpec
from farm.errors import InvalidInput, NotReady
from farm.planning.render_task import RenderTask
from farm.running.reviewing import approve_keyframes, remake_keyframe, replace_keyframe
from farm.scheduling.waiting import waiting
from farm.state.events import KeyframesReady, TaskAssigned
from farm.state.state import Job
from nodes.engines.engine import Rendered, RenderInputs, Report
from nodes.engines.procedural.engine import Procedural
from nodes.hosting.review_here import looked_at
from stitching.video_io import read_frames
from tests.farm.running.modes.drawn_camera import with_both_ends


class Drawn(Procedural):
    """The drawn camera as a causal model with both ends; its seed decides where the camera goes."""

    def __init__(self, given: dict[tuple[str, ...], RenderInputs]) -> None:
        super().__init__()
        self.spec: EngineSpec = with_both_ends(self.spec)
        self._given = given

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        self._given[task.level, str(task.frame_indices[0])] = inputs
        assert inputs.image is not None
        frames = super().render(task, RenderInputs(image=inputs.image), report).frames.copy()
        given = {0: inputs.image, **inputs.known}
        if inputs.last_image is not None:
            given[task.num_frames - 1] = inputs.last_image
        for position, frame in given.items():
            frames[position] = frame
        return Rendered(frames, {"image": frames[task.handover_index or 0]})


def frames_of(farm: Any, job: Job, segment: str) -> Any:
    return read_frames(farm.storage.path(job.tasks[segment].artifact.sha256))


def keyframe_picture(farm: Any, job: Job, number: int) -> Any:
    keyframe = job.keyframes[number - 1]
    return frames_of(farm, job, keyframe.segment)[keyframe.position]


async def test_windows_wait_for_keyframes_that_were_made_again_replaced_and_approved(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    given: dict[Any, RenderInputs] = {}
    engine = Drawn(given)
    request = job_request(photo(), mode="infill", num_frames=40, review=True)
    async with run_farm("a/0", "b/0", engine=lambda m, w, _: Drawn(given), spec=engine.spec) as farm:
        other = farm.coordinator.submit(request.model_copy(update={"seed": 5}))
        job = farm.ledger.job(farm.coordinator.submit(request))
        await farm.until(lambda: job.review_told and farm.ledger.job(other).review_told)
        assert [(k.number, k.frame) for k in job.keyframes] == [(1, 12), (2, 24)]
        said = waiting(farm.ledger.state, job)
        assert said is not None
        assert f"farm review {job.id}" in said.reason

        first = keyframe_picture(farm, job, 1)
        assert await remake_keyframe(farm.coordinator, job.id, 2, seed=5) == 5
        with pytest.raises(NotReady, match="still to be rendered"):
            approve_keyframes(farm.coordinator, job.id)
        await farm.until(lambda: job.review_told)
        for number in (1, 2):
            wanted = keyframe_picture(farm, farm.ledger.job(other), number)
            assert np.array_equal(keyframe_picture(farm, job, number), wanted), "as a job of that seed has it"
        assert not np.array_equal(keyframe_picture(farm, job, 1), first), "it is of the same draft"

        clip = job.tasks["k0-0"].artifact
        picture = photo(1, side=32)
        await replace_keyframe(farm.coordinator, job.id, 1, picture)
        await farm.until(lambda: job.review_told)
        assert job.tasks["k0-0"].artifact != clip, "the clip grows out of the picture"
        shown = frames_of(farm, job, "k0-0")
        replaced = cv2.imread(str(picture.path))[..., ::-1]
        assert np.array_equal(shown[0], replaced)

        assert not [e for e in farm.events(TaskAssigned) if job.tasks[e.task_id].segment.level == "final"]
        told = [e for e in farm.events(KeyframesReady) if e.job_id == job.id]
        assert len(told) == 3, "when they were there, and each time they were there again"
        approve_keyframes(farm.coordinator, job.id)
        await farm.ended(job.id)
        assert job.status == "succeeded", job.reason
        assert len(farm.video(job)) == 40
        assert np.array_equal(given["final", "12"].image, replaced)
        with pytest.raises(InvalidInput, match="are approved"):
            await remake_keyframe(farm.coordinator, job.id, 1)
        farm.coordinator.delete(job.id)
        await farm.until(lambda: not farm.storage.path(picture.sha256).exists())


async def test_a_draft_goes_on_from_the_picture_that_stands_where_it_was_handed_over(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    given: dict[Any, RenderInputs] = {}
    engine = Drawn(given)
    request = job_request(
        photo(), mode="infill", num_frames=110, window_frames=9, overlap_frames=1, review=True
    )
    async with run_farm("a/0", engine=lambda m, w, _: Drawn(given), spec=engine.spec) as farm:
        job = farm.ledger.job(farm.coordinator.submit(request))
        await farm.until(lambda: job.awaits_review)
        handed = job.tasks["d0-0"].segment.handover_index
        number = next(k.number for k in job.keyframes if (k.segment, k.position) == ("d0-0", handed))
        done = job.num_done
        picture = photo(1, side=32)
        await replace_keyframe(farm.coordinator, job.id, number, picture)
        assert job.num_done == done, "what is behind it stays until it is made again"
        await remake_keyframe(farm.coordinator, job.id, number + 1)
        assert job.tasks["d0-0"].status == "done"
        await farm.until(lambda: job.awaits_review)
        image = given["draft", str(job.keyframes[number - 1].frame)].image
        assert np.array_equal(image, cv2.imread(str(picture.path))[..., ::-1])


async def test_a_killed_coordinator_comes_back_into_the_same_review(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    engine = Drawn({})
    request = job_request(photo(), mode="infill", num_frames=40, review=True)
    async with run_farm("a/0", engine=lambda m, w, _: Drawn({}), spec=engine.spec) as farm:
        job = farm.ledger.job(farm.coordinator.submit(request))
        await farm.until(lambda: job.awaits_review)
        await remake_keyframe(farm.coordinator, job.id, 1)  # and it is killed while that is made
    async with run_farm("a/0", engine=lambda m, w, _: Drawn({}), spec=engine.spec) as farm:
        again = farm.ledger.job(job.id)
        assert again.held
        assert again.tasks["d0-0"].seed == 1
        await farm.until(lambda: again.awaits_review)
        approve_keyframes(farm.coordinator, job.id)
        await farm.ended(job.id)
        assert again.status == "succeeded"


async def test_a_person_at_a_terminal_is_asked_until_they_approve_or_leave(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Drawn({})
    request = job_request(
        photo(), mode="infill", num_frames=40, window_frames=17, overlap_frames=1, review=True
    )
    photo(1, side=32)
    answers = [
        *("what?", f"replace 1 {tmp_path / 'photo1.png'}", "back 1", "back 1", "again 2 9"),
        *("quit", "", "render"),
    ]
    asked = iter(answers)

    async def ask(prompt: str) -> str:
        return next(asked)

    async with run_farm("a/0", engine=lambda m, w, _: Drawn({}), spec=engine.spec) as farm:
        job = farm.ledger.job(farm.coordinator.submit(request))
        await farm.until(lambda: job.awaits_review)
        folder = tmp_path / "keyframes"
        assert await looked_at(farm.coordinator, job, folder, ask), "something is made again"
        said = capsys.readouterr().err
        assert "'what?' is nothing that can be done here; type render, again N" in said
        assert "keyframe 1 is photo1.png now" in said
        assert "keyframe 1 of" in said
        assert "was not replaced" in said
        assert "keyframe 2 is made again, and with it 1: they come of the same draft" in said
        await farm.until(lambda: job.awaits_review)
        assert job.tasks["d0-0"].seed == 9
        for _ in ("quit", "the end of the input"):
            assert not await looked_at(farm.coordinator, job, folder, ask)
            assert f"`farm review {job.id} --approve" in capsys.readouterr().err
        assert len(list(folder.iterdir())) == 4, "of two keyframes, made twice"
        assert await looked_at(farm.coordinator, job, folder, ask)
        await farm.ended(job.id)
        assert job.status == "succeeded"
        assert not await looked_at(farm.coordinator, job, folder, None), "nobody is asked without a terminal"
