"""Prompts, given frames, U-Net with motion modules and SparseCtrl, loop and VAE against diffusers'
AnimateDiffSparseControlNetPipeline over the same folder.

Of an encoded picture the stock pipeline draws a sample, outside its generator; here its mode is taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AnimateDiffSparseControlNetPipeline,
    LCMScheduler,
    SparseControlNetModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.schedulers import scheduling_lcm
from numpy.typing import NDArray
from PIL import Image

from farm.planning.render_task import RenderTask
from nodes.engines.animatediff.denoise import step_noise
from nodes.engines.animatediff.engine import AnimateDiff
from nodes.engines.animatediff.spec import animatediff_spec
from nodes.engines.common import slicing
from nodes.engines.engine import RenderInputs, unheard
from tests.nodes.engines.animatediff.conftest import FRAMES, SCHEDULER, stock_parts

pytestmark = pytest.mark.slow

Picture = Callable[[int], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def stock(tiny_animatediff_folder: Path) -> Any:
    pipeline = AnimateDiffSparseControlNetPipeline(
        **stock_parts(tiny_animatediff_folder),
        controlnet=SparseControlNetModel.from_pretrained(tiny_animatediff_folder / "controlnet").eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("guidance_scale", "places", "elements_at_once"), [(4.0, (0, 2), 2**26), (1.0, (3,), 20_000)]
)
def test_latents_and_frames_equal_the_stock_pipelines(
    animatediff: AnimateDiff,
    stock: Any,
    task: RenderTask,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    guidance_scale: float,
    places: tuple[int, ...],
    elements_at_once: int,
) -> None:
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    # A few elements cut every layer; then resnets run as those with more weights than a group of the ring.
    monkeypatch.setattr(slicing, "ELEMENTS_AT_ONCE", elements_at_once)
    monkeypatch.setattr(slicing, "RING_GROUP_BYTES", 2**26 if elements_at_once == 2**26 else 0)
    noise, _ = animatediff.initial_latents(task)
    known = {place: picture(place) for place in places}
    conditioning = animatediff.encode(
        task.prompt, task.negative_prompt, known=known, num_frames=FRAMES, guidance_scale=guidance_scale
    )
    ours = animatediff.denoise(noise, conditioning, num_inference_steps=task.num_inference_steps)
    theirs = stock(
        prompt=task.prompt,
        negative_prompt=task.negative_prompt,
        height=task.height,
        width=task.width,
        num_frames=FRAMES,
        num_inference_steps=task.num_inference_steps,
        guidance_scale=guidance_scale,
        conditioning_frames=[Image.fromarray(frame) for frame in known.values()],
        controlnet_frame_indices=list(places),
        latents=noise.transpose(0, 1)[None],
        output_type="latent",
    ).frames[0]
    theirs = theirs.transpose(0, 1)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, noise, atol=0.1)
    decoded = stock.decode_latents(theirs.transpose(0, 1)[None])[0]
    pixels = ((decoded.permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).detach().numpy()
    assert np.abs(animatediff.decode(ours) - pixels).max() <= 0.51


def test_words_alone_equal_the_stock_pipeline_for_them(
    animatediff: AnimateDiff, stock: Any, task: RenderTask
) -> None:
    parts = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    pipeline: Any = AnimateDiffPipeline(**{name: getattr(stock, name) for name in parts}, motion_adapter=None)
    pipeline.set_progress_bar_config(disable=True)
    noise, _ = animatediff.initial_latents(task)
    conditioning = animatediff.encode(
        task.prompt, task.negative_prompt, known={}, num_frames=FRAMES, guidance_scale=4.0
    )
    ours = animatediff.denoise(noise, conditioning, num_inference_steps=task.num_inference_steps)
    theirs = pipeline(
        prompt=task.prompt,
        negative_prompt=task.negative_prompt,
        height=task.height,
        width=task.width,
        num_frames=FRAMES,
        num_inference_steps=task.num_inference_steps,
        guidance_scale=4.0,
        latents=noise.transpose(0, 1)[None],
        output_type="latent",
    ).frames[0]
    assert torch.allclose(ours, theirs.transpose(0, 1), atol=1e-4)
    rendered = animatediff.render(task, RenderInputs(), unheard).frames
    assert np.array_equal(rendered, animatediff.decode(ours))


def test_the_steps_of_lcm_equal_the_stock_pipelines_with_noise_that_is_keyed_by_frames(
    tiny_animatediff_folder: Path,
    tmp_path: Path,
    stock: Any,
    task: RenderTask,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(tiny_animatediff_folder, tmp_path / "lcm")
    (folder / "farm.json").write_text('{"sampler": "lcm"}')
    engine = AnimateDiff(animatediff_spec(folder, model="tiny"), folder, device="cpu")
    engine.load("resident")
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    noise, _ = engine.initial_latents(task)
    added = step_noise(engine._held, task)
    assert added is not None
    steps = range(task.num_inference_steps - 1)
    assert not torch.equal(added(0), added(1))
    later = step_noise(engine._held, task.model_copy(update={"frame_indices": (2, 3, 4, 5)}))
    assert later is not None
    assert torch.equal(added(1)[2:], later(1)[:2])
    conditioning = engine.encode(task.prompt, known={0: picture(0)}, num_frames=FRAMES, guidance_scale=1.0)
    ours = engine.denoise(noise, conditioning, num_inference_steps=task.num_inference_steps, noise=added)
    unguided = task.model_copy(update={"guidance_scale": 1.0})
    rendered = engine.render(unguided, RenderInputs(image=picture(0)), unheard).frames
    assert np.array_equal(rendered, engine.decode(ours))
    drawn = iter([added(step).transpose(0, 1)[None] for step in steps])
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: next(drawn))
    lcm = LCMScheduler.from_config(SCHEDULER, beta_schedule="linear")
    before, stock.scheduler = stock.scheduler, lcm
    theirs = stock(
        prompt=task.prompt,
        height=task.height,
        width=task.width,
        num_frames=FRAMES,
        num_inference_steps=task.num_inference_steps,
        guidance_scale=1.0,
        conditioning_frames=[Image.fromarray(picture(0))],
        controlnet_frame_indices=[0],
        latents=noise.transpose(0, 1)[None],
        output_type="latent",
    ).frames[0]
    stock.scheduler = before
    assert torch.allclose(ours, theirs.transpose(0, 1), atol=1e-4)
