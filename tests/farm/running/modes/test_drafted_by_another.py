"""A photo's video whose keyframes another model drafts, smaller, through a farm."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from farm.capabilities import FrameRule, Weights, Worker
from farm.capabilities.engine_spec import EngineSpec
from nodes.engines.procedural.engine import Procedural
from tests.farm.running.modes.test_infilled_image import Given, Recording, spec


@cache
def specs() -> dict[str, EngineSpec]:
    """The model of the video, and a lighter one of other sizes and windows."""
    whole = spec(Procedural())
    video = whole.model_copy(
        update={
            "takes": whole.takes | {"video"},
            "max_end_latents": 1,
            "default_strength": 0.5,
            "side_multiple": 16,
        }
    )
    other = whole.model_copy(
        update={
            "model": "procedural-mild",
            "frames": FrameRule(max_frames=9),
            "window_frames": 9,
            "native_width": 40,
            "native_height": 40,
        }
    )
    return {video.model: video, "procedural-mild": other}


class Drawing(Recording):
    """Draws as ``Recording``, as one of the two models."""

    def __init__(self, given: Given, model: str, worker: Worker) -> None:
        super().__init__(given, worker)
        self.spec = specs()[model]


async def test_another_model_drafts_small_and_its_keyframes_are_scaled_and_refined(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    given: Given = {}

    def engine(model: str, worker: Worker, weights: Weights) -> Drawing:
        return Drawing(given, model, worker)

    async with run_farm("a/0", "b/0", engine=engine) as farm:
        farm.coordinator.spec_of = lambda model, weights: specs()[model]
        request = job_request(
            photo(),
            mode="auto",
            draft_model="procedural-mild",
            prompts=("pan",),
            num_frames=40,
            width=64,
            height=64,
        )
        job = await farm.ended(farm.coordinator.submit(request))
        assert job.status == "succeeded", job.reason
        assert len(farm.video(job)) == 40
    plan = job.plan
    small = (plan.draft.width, plan.draft.height)
    assert small[0] * small[1] < plan.width * plan.height / 2
    for _, task, inputs in given["draft"]:
        assert (task.model, task.width, task.height) == ("procedural-mild", *small)
        assert bytes(inputs.text["prompt_embeds"]) == b"pan"
    assert {task.model for _, task, _ in given["text"]} == {"procedural-mild", plan.model}
    assert len(given["keyframes"]) == 2
    for _, task, inputs in given["keyframes"]:
        assert (task.model, task.strength) == (plan.model, plan.strength)
        assert inputs.video.shape == (5, plan.height, plan.width, 3), "what was drafted small, at full size"
        assert np.array_equal(inputs.video[0], inputs.image)
    assert {task.model for _, task, _ in given["final"]} == {plan.model}
