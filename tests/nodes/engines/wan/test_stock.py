"""Beside diffusers' own pipelines with the same inputs, in float32: text, condition, every step, frames.

The stock scheduler is UniPC of first order without its corrector, which is Euler's step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nodes.engines.engine import RenderInputs, unheard
from nodes.engines.wan.model import Given
from tests.nodes.engines.wan.tiny import FRAMES, SIZES, STEPS, picture, window

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
WanFolder = Callable[[str], Path]
WanEngine = Callable[..., Any]


@pytest.fixture(scope="module")
def stock(wan_folder: WanFolder) -> Callable[[str], Any]:
    """``stock("ti2v")``: the stock pipeline over the same folder."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanVACEPipeline

    @cache
    def pipeline(kind: str) -> Any:
        named = WanVACEPipeline if kind == "vace" else WanImageToVideoPipeline
        made = named.from_pretrained(wan_folder(kind))
        made.scheduler = UniPCMultistepScheduler.from_config(
            made.scheduler.config, solver_order=1, disable_corrector=list(range(64))
        )
        made.set_progress_bar_config(disable=True)
        return made

    return pipeline


def _conditioned(engine: Any, kind: str, *places: int) -> Given:
    height, width = SIZES[kind]
    known = {place: picture(kind, number) for number, place in enumerate(places)}
    given: Given = engine.condition(known, num_frames=FRAMES, height=height, width=width)
    return given


def _every_step(engine: Any, kind: str, given: Given, **changes: Any) -> list[torch.Tensor]:
    """The latents (C, L, h, w) after each step."""
    task = window(kind, **changes)
    text = engine.text_of(task, RenderInputs())
    noise = engine.noise_of(task, num_references=given.num_references)(0)
    latents, steps = engine.initial_latents(task, noise)
    after = []
    for step in steps:
        after.append(engine.denoise(latents, text, given, steps=[step]))
        latents = torch.cat([latents[:, : given.num_references], after[-1]], dim=1)
    whole = engine.denoise(noise, text, given, steps=steps)
    if given.num_references == 0:
        assert torch.equal(whole, after[-1])  # no step has a memory
    return [*after[:-1], whole]


def _stock_steps(pipeline: Any, kind: str, noise: torch.Tensor, **inputs: Any) -> list[torch.Tensor]:
    task = window(kind)
    after: list[torch.Tensor] = []

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        after.append(tensors["latents"][0].clone())
        return tensors

    height, width = SIZES[kind]
    with torch.no_grad():
        last = pipeline(
            prompt=task.prompt,
            negative_prompt=task.negative_prompt,
            height=height,
            width=width,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=3.5,
            latents=noise[None],
            output_type="latent",
            callback_on_step_end=keep,
            **inputs,
        ).frames[0]
    return [*after[:-1], last]


def _images(kind: str, *numbers: int) -> list[Image.Image]:
    return [Image.fromarray(picture(kind, number)) for number in numbers]


@pytest.mark.parametrize("kind", ["a14b"])
def test_prompts_are_encoded_as_the_stock_pipeline_does(
    wan_engine: WanEngine, stock: Callable[[str], Any], kind: str
) -> None:
    engine, task = wan_engine(kind), window(kind)
    text = engine.text_of(task, RenderInputs())
    with torch.no_grad():
        theirs = stock(kind).encode_prompt(task.prompt, task.negative_prompt, max_sequence_length=512)
    for ours, stocks in zip(text.rows, theirs, strict=True):
        assert torch.allclose(ours, stocks, atol=TOLERANCE)


@pytest.mark.parametrize("places", [(0,), (0, FRAMES - 1)], ids=["first", "first and last"])
def test_every_step_from_given_ends_equals_the_stock_pipeline(
    wan_engine: WanEngine, stock: Callable[[str], Any], places: tuple[int, ...]
) -> None:
    engine, pipeline = wan_engine("a14b"), stock("a14b")
    given = _conditioned(engine, "a14b", *places)
    noise = engine.noise_of(window("a14b"))(0)
    images = dict(zip(("image", "last_image"), _images("a14b", *range(len(places))), strict=False))
    prepared = {name: pipeline.video_processor.preprocess(image) for name, image in images.items()}
    with torch.no_grad():
        _, condition = pipeline.prepare_latents(
            prepared["image"], 1, 4, *SIZES["a14b"], FRAMES, torch.float32, None, None, noise[None],
            prepared.get("last_image"),
        )  # fmt: skip
    assert given.channels is not None
    assert torch.allclose(given.channels, condition[0], atol=TOLERANCE)
    ours = _every_step(engine, "a14b", given)
    theirs = _stock_steps(pipeline, "a14b", noise, **images)
    for mine, stocks in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, stocks, atol=TOLERANCE)


def test_a_replaced_first_latent_equals_the_stock_pipeline(
    wan_engine: WanEngine, stock: Callable[[str], Any]
) -> None:
    engine = wan_engine("ti2v")
    given = _conditioned(engine, "ti2v", 0)
    noise = engine.noise_of(window("ti2v"))(0)
    ours = _every_step(engine, "ti2v", given)
    theirs = _stock_steps(stock("ti2v"), "ti2v", noise, image=_images("ti2v", 0)[0])
    assert given.in_place is not None
    for mine, stocks in zip(ours, theirs, strict=True):
        assert torch.allclose(mine[:, 1:], stocks[:, 1:], atol=TOLERANCE)
    assert torch.allclose(ours[-1], theirs[-1], atol=TOLERANCE)


def test_words_alone_equal_the_stock_pipeline_for_them(
    wan_engine: WanEngine, stock: Callable[[str], Any]
) -> None:
    from diffusers import WanPipeline

    engine, beside = wan_engine("ti2v"), stock("ti2v")
    parts = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")
    pipeline = WanPipeline(**{name: getattr(beside, name) for name in parts}, expand_timesteps=True)
    pipeline.set_progress_bar_config(disable=True)
    given = _conditioned(engine, "ti2v")
    ours = _every_step(engine, "ti2v", given)
    theirs = _stock_steps(pipeline, "ti2v", engine.noise_of(window("ti2v"))(0))
    for mine, stocks in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, stocks, atol=TOLERANCE)
    alone = engine.render(window("ti2v"), RenderInputs(), unheard)
    assert np.array_equal(alone.frames, engine.decode(ours[-1]))


@pytest.mark.parametrize("references", [0, 1])
def test_a_video_with_a_mask_equals_the_stock_pipeline(
    wan_engine: WanEngine, stock: Callable[[str], Any], references: int
) -> None:
    engine, pipeline = wan_engine("vace"), stock("vace")
    height, width = SIZES["vace"]
    video = np.stack([picture("vace", number) for number in range(FRAMES)])
    mask = np.zeros((FRAMES, height, width), dtype=bool)
    mask[3:, 5:20, 8:] = True
    shown = [picture("vace", 40)] * references
    given = engine.condition(
        {}, num_frames=FRAMES, height=height, width=width, video=video, mask=mask, references=shown
    )
    noise = engine.noise_of(window("vace"), num_references=references)(0)
    masks = [Image.fromarray(each.astype(np.uint8) * 255) for each in mask]
    ours = _every_step(engine, "vace", given)
    theirs = _stock_steps(
        pipeline,
        "vace",
        noise,
        video=[Image.fromarray(frame) for frame in video],
        mask=masks,
        reference_images=[Image.fromarray(each) for each in shown] or None,
    )
    with torch.no_grad():
        prepared = pipeline.preprocess_conditions(
            [Image.fromarray(frame) for frame in video],
            masks,
            [Image.fromarray(each) for each in shown] or None,
            1,
            height,
            width,
            FRAMES,
            torch.float32,
            torch.device("cpu"),
        )
        latents = pipeline.prepare_video_latents(*prepared, None, torch.device("cpu"))
        control = torch.cat([latents, pipeline.prepare_masks(prepared[1], prepared[2])], dim=1)
    assert given.control is not None
    assert torch.allclose(given.control, control[0], atol=TOLERANCE)
    assert torch.allclose(ours[-1], theirs[-1][:, references:], atol=TOLERANCE)
    if not references:
        for mine, stocks in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, stocks, atol=TOLERANCE)


def test_a_window_over_a_video_with_a_mask_and_references_equals_the_stock_pipeline(
    wan_engine: WanEngine, stock: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = wan_engine("vace")
    height, width = SIZES["vace"]
    video = np.stack([picture("vace", number) for number in range(FRAMES)])
    mask = np.zeros((FRAMES, height, width), dtype=bool)
    mask[2:, 8:24, 8:32] = True
    shown = [picture("vace", 40), picture("vace", 41)]
    made = []
    decode = engine.decode
    monkeypatch.setattr(engine, "decode", lambda x, **how: made.append(x) or decode(x, **how))
    inputs = RenderInputs(video=video, mask=mask, references=shown)
    frames = engine.render(window("vace", strength=1.0), inputs, lambda *_: None).frames
    assert frames.shape == video.shape
    theirs = _stock_steps(
        stock("vace"),
        "vace",
        engine.noise_of(window("vace"), num_references=2)(0),
        video=[Image.fromarray(frame) for frame in video],
        mask=[Image.fromarray(each.astype(np.uint8) * 255) for each in mask],
        reference_images=[Image.fromarray(each) for each in shown],
    )
    assert torch.allclose(made[0], theirs[-1][:, 2:], atol=TOLERANCE)


@pytest.mark.parametrize("rung", ["resident", "stream"])
@pytest.mark.parametrize("kind", ["a14b", "ti2v"])
def test_latents_are_decoded_one_at_a_time_to_the_frames_of_the_whole_clip(
    wan_engine: WanEngine, stock: Callable[[str], Any], kind: str, rung: str
) -> None:
    engine, vae = wan_engine(kind, rung), stock(kind).vae
    latents = engine.noise_of(window(kind))(0)
    channels = (1, -1, 1, 1, 1)
    mean, std = (
        torch.tensor(getattr(vae.config, f"latents_{name}")).view(channels) for name in ("mean", "std")
    )
    with torch.no_grad():
        whole = vae.decode(latents[None] * std + mean).sample[0]
    pixels = ((whole.permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).numpy()
    told: list[tuple[int, int]] = []
    frames = engine.decode(latents, on_latent=lambda done, total: told.append((done, total)))
    assert np.abs(frames - pixels).max() <= 0.51
    bands = 1 if rung == "resident" else 2
    assert told == [(step // bands, 3) for step in range(1, 3 * bands + 1)]


@pytest.mark.parametrize("kind", ["a14b", "ti2v"])
def test_a_video_is_encoded_a_latent_at_a_time_to_the_latents_of_the_whole_clip(
    wan_engine: WanEngine, stock: Callable[[str], Any], kind: str
) -> None:
    video = np.stack([picture(kind, number) for number in range(FRAMES)])
    vae = stock(kind).vae
    channels = (1, -1, 1, 1, 1)
    mean, std = (
        torch.tensor(getattr(vae.config, f"latents_{name}")).view(channels) for name in ("mean", "std")
    )
    with torch.no_grad():
        pixels = torch.from_numpy(video).permute(3, 0, 1, 2)[None] / 127.5 - 1
        whole = (vae.encode(pixels).latent_dist.mode() - mean) / std
    assert torch.allclose(wan_engine(kind).encode_video(video), whole[0], atol=TOLERANCE)


@pytest.mark.parametrize("num_steps", [2, 4, 7])
def test_levels_and_timesteps_are_the_stock_schedulers(stock: Callable[[str], Any], num_steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    from nodes.engines.wan.steps import schedule

    for scheduler in (
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        FlowMatchEulerDiscreteScheduler(shift=5.0),
    ):
        scheduler.set_timesteps(num_steps)
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        steps = schedule(config, num_steps)
        assert [step.timestep for step in steps] == pytest.approx(scheduler.timesteps.tolist(), abs=1e-3)
        sigmas = [*(step.sigma for step in steps), steps[-1].next_sigma]
        assert sigmas == pytest.approx(scheduler.sigmas.tolist(), abs=2e-6)
