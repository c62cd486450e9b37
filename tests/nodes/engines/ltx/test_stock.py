"""The transformer, the given latents, the noise levels, the loop, the VAE and the prompts against diffusers'.

What the stock pipelines draw by chance is replaced on both sides by one array: the noise of the window, of
what is given and of the decoder; and of an encoded picture they draw a sample, here its mode is taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline, LTXImageToVideoPipeline, LTXPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.ltx import pipeline_ltx, pipeline_ltx_condition, pipeline_ltx_image2video
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from numpy.typing import NDArray
from PIL import Image

from farm.planning.render_task import RenderTask
from nodes.engines.common.noise import causal_indices, frame_noise
from nodes.engines.engine import RenderInputs
from nodes.engines.ltx.conditioning import Given, window_of
from nodes.engines.ltx.engine import LTXVideo
from nodes.engines.ltx.spec import ltx_spec

pytestmark = pytest.mark.slow

Picture = Callable[[int], NDArray[np.uint8]]


@pytest.fixture(autouse=True)
def modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.fixture(scope="module")
def stock(tiny_ltx_folder: Path) -> Any:
    pipeline = LTXConditionPipeline.from_pretrained(tiny_ltx_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Drawn:
    """In place of ``randn_tensor``: what is next in line, of the shape that is asked for."""

    def __init__(self, *arrays: torch.Tensor) -> None:
        self._arrays: Iterator[torch.Tensor] = iter(arrays)

    def __call__(self, shape: Any, **_: Any) -> torch.Tensor:
        return next(self._arrays).reshape(shape).clone()


def _run_stock(stock: Any, task: RenderTask, **changes: Any) -> torch.Tensor:
    """Latents (C, L, h, w) of the stock pipeline."""
    settings = {
        "prompt": task.prompt,
        "negative_prompt": task.negative_prompt,
        "height": task.height,
        "width": task.width,
        "num_frames": task.num_frames,
        "frame_rate": task.fps,
        "num_inference_steps": task.num_inference_steps,
        "guidance_scale": task.guidance_scale,
        "output_type": "latent",
    }
    frames: torch.Tensor = stock(**(settings | changes)).frames
    return frames[0]


def _clip(picture: Picture, first: int, count: int) -> NDArray[np.uint8]:
    return np.stack([picture(first + i) for i in range(count)])


def _pictures(frames: NDArray[np.uint8]) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


def _given(
    ltx: LTXVideo, frames: NDArray[np.uint8], frame: int, noise: torch.Tensor, strength: float
) -> Given:
    return Given(ltx.encode_frames(frames), noise, frame, strength)


def _text(ltx: LTXVideo, task: RenderTask) -> list[torch.Tensor]:
    encoded = ltx.encode_prompts(task, "resident")
    ltx.load("resident")
    return [torch.from_numpy(embeds)[None] for embeds in encoded.values()]


@pytest.mark.parametrize(
    ("guidance_scale", "strength", "condition_noise"), [(3.0, 1.0, 0.15), (1.0, 0.7, 0.15), (3.0, 0.7, 0.0)]
)
def test_a_window_with_a_first_frame_a_keyframe_and_a_clip_at_its_end_is_the_stock_pipelines(
    ltx: LTXVideo,
    stock: Any,
    task: RenderTask,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    guidance_scale: float,
    strength: float,
    condition_noise: float,
) -> None:
    task = task.model_copy(update={"guidance_scale": guidance_scale})
    generator = torch.Generator().manual_seed(3)
    noise, key, end = (torch.randn(8, k, 2, 3, generator=generator) for k in (4, 1, 2))
    clips = {0: _clip(picture, 0, 1), 8: _clip(picture, 1, 1), 16: _clip(picture, 2, 9)}
    drawn = {0: noise[:, :1], 8: key, 16: end}
    given = [_given(ltx, clips[at], at, drawn[at], 1.0 if at == 0 else strength) for at in clips]
    window = window_of(noise, noise, given, fps=task.fps, places=ltx._held.placed.model.places)
    _, sigmas, _ = ltx.starting_window(task, given, None)
    ours = ltx.denoise(
        window,
        _text(ltx, task),
        sigmas=sigmas,
        guidance_scale=guidance_scale,
        condition_noise=condition_noise,
    )
    steps = [window.noise] * task.num_inference_steps
    monkeypatch.setattr(pipeline_ltx_condition, "randn_tensor", Drawn(noise, key, end, *steps))
    theirs = _run_stock(
        stock,
        task,
        conditions=[
            LTXVideoCondition(video=_pictures(frames), frame_index=at, strength=1.0 if at == 0 else strength)
            for at, frames in clips.items()
        ],
        image_cond_noise_scale=condition_noise,
    )
    assert torch.allclose(ours[:, 1:], theirs[:, 1:], atol=1e-4)
    # The stock loop leaves the last step's noise in the first frame, which is given.
    left = condition_noise * sigmas[-2] ** 2 * noise[:, 0]
    assert torch.allclose(ours[:, 0] + left, theirs[:, 0], atol=1e-4)
    assert torch.equal(ours[:, 0], given[0].latents[:, 0])
    assert not torch.allclose(ours, noise, atol=0.1)


def test_a_long_clip_within_the_window_and_a_prefix_are_the_stock_pipelines(
    ltx: LTXVideo, stock: Any, task: RenderTask, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task.model_copy(update={"frame_indices": tuple(range(49))})
    generator = torch.Generator().manual_seed(4)
    noise, within = (torch.randn(8, k, 2, 3, generator=generator) for k in (7, 4))
    clips = {0: _clip(picture, 0, 9), 16: _clip(picture, 3, 25)}
    given = [_given(ltx, clips[0], 0, noise[:, :2], 1.0), _given(ltx, clips[16], 16, within, 0.8)]
    window = window_of(noise, noise, given, fps=task.fps, places=ltx._held.placed.model.places)
    assert window.beside == 2
    _, sigmas, _ = ltx.starting_window(task, given, None)
    ours = ltx.denoise(window, _text(ltx, task), sigmas=sigmas, guidance_scale=3.0, condition_noise=0.0)
    monkeypatch.setattr(pipeline_ltx_condition, "randn_tensor", Drawn(noise, within[:, :2]))
    theirs = _run_stock(
        stock,
        task,
        conditions=[
            LTXVideoCondition(video=_pictures(clips[0]), frame_index=0),
            LTXVideoCondition(video=_pictures(clips[16]), frame_index=16, strength=0.8),
        ],
        image_cond_noise_scale=0.0,
    )
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_video_noised_to_a_strength_is_the_stock_pipelines(
    ltx: LTXVideo, stock: Any, task: RenderTask, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task.model_copy(update={"strength": 0.5})
    video = ltx.encode_frames(_clip(picture, 0, task.num_frames))
    window, sigmas, steps = ltx.starting_window(task, [], video)
    ours = ltx.denoise(window, _text(ltx, task), sigmas=sigmas, guidance_scale=3.0, steps=steps)
    monkeypatch.setattr(pipeline_ltx_condition, "randn_tensor", Drawn(window.own_latents(window.noise)))
    theirs = _run_stock(stock, task, latents=video[None], denoise_strength=0.5)
    assert list(steps) == [2, 3]
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_model_of_0_9_0_is_the_stock_image_to_video_pipeline(
    old_ltx: LTXVideo,
    old_ltx_folder: Path,
    task: RenderTask,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock: Any = LTXImageToVideoPipeline.from_pretrained(old_ltx_folder)
    stock.set_progress_bar_config(disable=True)
    clip = _clip(picture, 0, 1)
    given = [Given(old_ltx.encode_frames(clip), torch.zeros(8, 1, 2, 3), 0)]
    window, sigmas, _ = old_ltx.starting_window(task, given, None)
    embedded = _text(old_ltx, task)
    ours = old_ltx.denoise(window, embedded, sigmas=sigmas, guidance_scale=3.0)
    monkeypatch.setattr(pipeline_ltx_image2video, "randn_tensor", Drawn(window.own_latents(window.noise)))
    # Its encoder sees the padding of a prompt, which that of LTXConditionPipeline does not.
    packed: torch.Tensor = stock(
        image=Image.fromarray(clip[0]),
        **_padded(embedded),
        height=task.height,
        width=task.width,
        num_frames=task.num_frames,
        frame_rate=task.fps,
        num_inference_steps=task.num_inference_steps,
        guidance_scale=task.guidance_scale,
        output_type="latent",
    ).frames
    assert torch.allclose(ours, window.own_latents(packed[0]), atol=1e-4)
    decoded = stock.vae.decode(_as_the_vae_has_them(stock.vae, ours)).sample
    assert np.abs(old_ltx.decode(ours) - _levels(decoded)).max() <= 0.51


def test_words_alone_are_the_stock_pipelines_for_them(
    old_ltx: LTXVideo, old_ltx_folder: Path, task: RenderTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock: Any = LTXPipeline.from_pretrained(old_ltx_folder)
    stock.set_progress_bar_config(disable=True)
    window, sigmas, _ = old_ltx.starting_window(task, [], None)
    embedded = _text(old_ltx, task)
    ours = old_ltx.denoise(window, embedded, sigmas=sigmas, guidance_scale=3.0)
    monkeypatch.setattr(pipeline_ltx, "randn_tensor", Drawn(window.own_latents(window.noise)))
    packed = _run_stock(stock, task, prompt=None, negative_prompt=None, **_padded(embedded))
    assert torch.allclose(ours, window.own_latents(packed), atol=1e-4)


def _padded(embedded: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The prompt and the negative one, as pipelines take them whose encoder sees padding."""
    text = [torch.nn.functional.pad(embeds, (0, 0, 0, 20 - embeds.shape[1])) for embeds in embedded]
    masks = [torch.arange(20)[None] < embeds.shape[1] for embeds in embedded]
    return {
        "prompt_embeds": text[0],
        "prompt_attention_mask": masks[0],
        "negative_prompt_embeds": text[1],
        "negative_prompt_attention_mask": masks[1],
    }


def test_frames_are_those_of_the_stock_vae_with_the_same_last_noise(ltx: LTXVideo, stock: Any) -> None:
    generator = torch.Generator().manual_seed(6)
    latents, noise = (torch.randn(8, 5, 2, 3, generator=generator) for _ in range(2))
    shown = 0.975 * _as_the_vae_has_them(stock.vae, latents) + 0.025 * noise
    decoded = stock.vae.decode(shown, torch.tensor([0.05])).sample
    frames = ltx.decode(latents, noise)
    assert frames.shape == (33, 64, 96, 3)
    assert np.abs(frames - _levels(decoded)).max() <= 0.51


def test_a_whole_rendering_is_the_stock_pipelines_with_the_noise_that_is_keyed_by_frames(
    tiny_ltx_folder: Path,
    tmp_path: Path,
    stock: Any,
    task: RenderTask,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From pixels and words to pixels, given both ends."""
    folder = shutil.copytree(tiny_ltx_folder, tmp_path / "without-condition-noise")
    (folder / "farm.json").write_text('{"condition_noise": 0.0}')
    ltx = LTXVideo(ltx_spec(folder, model="tiny"), folder, device="cpu")
    ltx.load("resident")
    ours = ltx.render(
        task, RenderInputs(image=picture(0), last_image=picture(5)), lambda phase, done, total: None
    ).frames
    keys = causal_indices(task.frame_indices, 8)
    start, end, last = (
        torch.from_numpy(frame_noise(task.seed, which, (8, 2, 3), noise_level=level)).transpose(0, 1)
        for which, level in ((keys, 0), (causal_indices(task.frame_indices[-1:], 8), 0), (keys, 1024))
    )
    monkeypatch.setattr(pipeline_ltx_condition, "randn_tensor", Drawn(start, end, last))
    theirs: Any = stock(
        conditions=[
            LTXVideoCondition(image=Image.fromarray(picture(0)), frame_index=0),
            LTXVideoCondition(image=Image.fromarray(picture(5)), frame_index=task.num_frames - 1),
        ],
        prompt=task.prompt,
        negative_prompt=task.negative_prompt,
        height=task.height,
        width=task.width,
        num_frames=task.num_frames,
        num_inference_steps=task.num_inference_steps,
        image_cond_noise_scale=0.0,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        output_type="np",
    ).frames[0]
    assert np.abs(ours - 255 * theirs).max() <= 0.52


def _as_the_vae_has_them(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    channels = (-1, 1, 1, 1)
    return (latents * vae.latents_std.view(channels) + vae.latents_mean.view(channels))[None]


def _levels(decoded: torch.Tensor) -> NDArray[np.float32]:
    """(1, 3, F, H, W) about [-1, 1] to (F, H, W, 3) in 0 to 255."""
    levels = (decoded[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255
    return levels.detach().numpy()
