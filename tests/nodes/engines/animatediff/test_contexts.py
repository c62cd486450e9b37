"""Windows longer than a context: parts that overlap, averaged in each step, from noise that they share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from farm.capabilities.engine_spec import RenderShape, need_bytes
from farm.planning.planner import plan
from farm.planning.render_task import RenderTask
from farm.request.job import JobRequest
from nodes.engines.animatediff.contexts import contexts, noise_keys
from nodes.engines.animatediff.engine import AnimateDiff
from nodes.engines.animatediff.spec import animatediff_spec
from nodes.engines.engine import RenderInputs, unheard

pytestmark = pytest.mark.slow

CONTEXT, LONG = 4, 9


@pytest.fixture(scope="module")
def folder(tiny_animatediff_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("contexts") / "short"
    shutil.copytree(tiny_animatediff_folder, made)
    (made / "farm.json").write_text(f'{{"window_frames": {CONTEXT}}}')
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> AnimateDiff:
    made = AnimateDiff(animatediff_spec(folder, model="tiny").on("cpu"), folder, device="cpu")
    made.load("resident")
    return made


@pytest.mark.parametrize(("num_frames", "size"), [(16, 16), (17, 16), (40, 16), (64, 16), (9, 4), (256, 16)])
def test_contexts_cover_every_frame_and_share_some_with_the_next(num_frames: int, size: int) -> None:
    found = contexts(num_frames, size)
    assert {frame for context in found for frame in context} == set(range(num_frames))
    assert {len(context) for context in found} == {size}
    assert all(one.stop - other.start >= round(size / 4) for one, other in pairwise(found))


def test_noise_is_that_of_earlier_frames_and_the_same_for_a_frame_in_every_window() -> None:
    keys = noise_keys(range(100, 164), 100, 16, seed=5)
    assert keys[:16] == list(range(100, 116))
    assert set(keys) == set(keys[:16])
    for first in range(16, 64, 12):
        assert len(set(keys[first : first + 12])) == len(keys[first : first + 12]), (
            "no two alike side by side"
        )
    assert noise_keys(range(130, 150), 100, 16, seed=5) == keys[30:50]
    assert noise_keys(range(100, 164), 100, 16, seed=6) != keys
    apart = noise_keys(range(100, 100 + 3 * 20, 3), 100, 16, seed=5)
    assert apart == [100 + 3 * (key - 100) for key in keys[:20]]


@pytest.mark.parametrize("given", [False, True])
def test_every_step_is_the_average_of_what_the_stock_unet_makes_of_each_context(
    engine: AnimateDiff,
    folder: Path,
    task: RenderTask,
    picture: Callable[[int], Any],
    given: bool,
) -> None:
    task = task.model_copy(
        update={"frame_indices": tuple(range(LONG)), "guidance_scale": 1.0, "handover_index": None}
    )
    noise, steps = engine.initial_latents(task)
    assert noise.shape[0] == LONG
    keys = noise_keys(task.frame_indices, 0, CONTEXT, task.seed)
    assert torch.equal(noise[6], noise[keys[6]])
    known = {0: picture(0), 6: picture(1)} if given else {}
    conditioning = engine.encode(task.prompt, known=known, num_frames=LONG, guidance_scale=1.0)
    ours = engine.denoise(noise, conditioning, num_inference_steps=3)
    rendered = engine.render(
        task, RenderInputs(image=known.get(0), known={6: known[6]} if given else {}), unheard
    )
    assert np.array_equal(rendered.frames, engine.decode(ours))
    scheduler = engine._held.placed.model.scheduler
    scheduler.set_timesteps(3)
    if given:
        return
    parts = [kind.from_pretrained(folder / name) for kind, name in _PARTS]
    unet: Any = UNetMotionModel.from_unet2d(*parts).eval()
    latents = noise
    for step in steps:
        total, seen = torch.zeros_like(latents), torch.zeros(LONG, 1, 1, 1)
        for context in ([0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]):
            text = conditioning.text.repeat_interleave(CONTEXT, dim=0)
            with torch.no_grad():
                made = unet(latents[context].transpose(0, 1)[None], scheduler.timesteps[step], text).sample
            total[context] += made[0].transpose(0, 1)
            seen[context] += 1
        latents = scheduler.step(total / seen, scheduler.timesteps[step], latents).prev_sample
    assert torch.allclose(ours, latents, atol=1e-4)


_PARTS: tuple[tuple[Any, str], ...] = ((UNet2DConditionModel, "unet"), (MotionAdapter, "motion_adapter"))


def test_a_long_window_takes_the_memory_of_a_context_and_the_plan_says_how_it_is_made(folder: Path) -> None:
    spec = animatediff_spec(folder, model="tiny")

    def need(frames: int) -> int:
        shape = RenderShape(num_frames=frames, height=512, width=512, num_inference_steps=3, guided=True)
        return need_bytes(spec, spec.rungs[0], shape)

    assert need(64) == need(CONTEXT) > need(1)
    words: dict[str, Any] = {"model": "tiny", "prompts": ("a ship",), "num_frames": 64, "window_frames": 64}
    made = plan(JobRequest(**words), spec)
    assert len(made.segments) == 1
    assert any(
        "denoised in overlapping parts of 4, which takes no more memory" in note for note in made.notes
    )
