"""The picture's embedding and latent, the conditions, the loop, the rising guidance and the VAE against
diffusers' StableVideoDiffusionPipeline, whose noise of the window and of the picture is replaced by ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion
from numpy.typing import NDArray
from PIL import Image

from farm.planning.render_task import RenderTask
from nodes.engines.common import slicing
from nodes.engines.svd.engine import StableVideoDiffusion, picture_noise

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stock(tiny_svd_folder: Path) -> Any:
    pipeline = StableVideoDiffusionPipeline.from_pretrained(tiny_svd_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Drawn:
    """In place of ``randn_tensor``: what is next in line, of the shape that is asked for."""

    def __init__(self, *arrays: torch.Tensor) -> None:
        self._arrays: Iterator[torch.Tensor] = iter(arrays)

    def __call__(self, shape: Any, **_: Any) -> torch.Tensor:
        return next(self._arrays).reshape(shape).clone()


@pytest.mark.parametrize(("guidance_scale", "elements_at_once"), [(3.0, 2**26), (1.0, 20_000)])
def test_latents_and_frames_equal_the_stock_pipelines(
    svd: StableVideoDiffusion,
    stock: Any,
    task: RenderTask,
    picture: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    guidance_scale: float,
    elements_at_once: int,
) -> None:
    # A few elements cut every layer; then resnets run as those with more weights than a group of the ring.
    monkeypatch.setattr(slicing, "ELEMENTS_AT_ONCE", elements_at_once)
    monkeypatch.setattr(slicing, "RING_GROUP_BYTES", 2**26 if elements_at_once == 2**26 else 0)
    task = task.model_copy(update={"guidance_scale": guidance_scale})
    start, _ = svd.initial_latents(task)
    given = picture_noise(task)
    conditioning = svd.encode(
        picture, num_frames=task.num_frames, fps=task.fps, guidance_scale=guidance_scale, noise=given
    )
    ours = svd.denoise(start, conditioning, num_inference_steps=task.num_inference_steps)
    noise = start / svd._held.placed.model.scheduler.init_noise_sigma
    monkeypatch.setattr(
        pipeline_stable_video_diffusion, "randn_tensor", Drawn(torch.from_numpy(given), noise)
    )
    theirs = stock(
        Image.fromarray(picture),
        height=task.height,
        width=task.width,
        num_frames=task.num_frames,
        num_inference_steps=task.num_inference_steps,
        max_guidance_scale=guidance_scale,
        fps=8,
        output_type="latent",
    ).frames[0]
    assert torch.allclose(ours, theirs, atol=1e-4)
    decoded = stock.decode_latents(theirs[None], task.num_frames, decode_chunk_size=1)[0]
    pixels = ((decoded.permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).detach().numpy()
    assert np.abs(svd.decode(ours) - pixels).max() <= 0.51
