"""Chaining by hand-over and refining a video, on the tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from farm.planning.render_task import RenderTask, num_steps_run
from nodes.engines.common.anchor import channel_statistics
from nodes.engines.engine import Rendered, RenderInputs
from nodes.engines.i2vgen_xl.engine import I2VGenXL
from nodes.engines.i2vgen_xl.inputs import first_latent

pytestmark = pytest.mark.slow

HEIGHT, WIDTH, FRAMES, STEPS = 32, 48, 5, 3


def _task(**changes: Any) -> RenderTask:
    task = RenderTask(
        model="tiny",
        prompt="the cat turns",
        negative_prompt="blurry",
        frame_indices=tuple(range(FRAMES)),
        shot_start=0,
        shot_end=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        fps=8,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        seed=21,
        handover_index=FRAMES - 1,
    )
    return task.model_copy(update=changes)


def _render(engine: I2VGenXL, inputs: RenderInputs, **changes: Any) -> Rendered:
    return engine.render(_task(**changes), inputs, lambda phase, done, total: None)


def test_the_hand_over_is_the_frame_with_its_latent_and_statistics(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    rendered = _render(tiny_engine, RenderInputs(image=tiny_image), handover_index=2)
    latent = rendered.handover["latent"]
    assert np.array_equal(rendered.handover["image"], rendered.frames[2])
    assert latent.shape == (4, HEIGHT // 4, WIDTH // 4)
    assert latent.dtype == np.float32
    assert np.allclose(rendered.handover["mean"], latent.mean(axis=(1, 2)), atol=1e-6)
    assert np.allclose(rendered.handover["std"], latent.std(axis=(1, 2)), atol=1e-6)
    decoded = tiny_engine.decode(torch.from_numpy(latent)[None])[0]
    assert np.abs(decoded.astype(int) - rendered.frames[2]).max() <= 1
    assert _render(tiny_engine, RenderInputs(image=tiny_image), handover_index=None).handover == {}


def test_a_handed_over_latent_replaces_the_image_through_the_vae(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    first = _render(tiny_engine, RenderInputs(image=tiny_image))
    start = np.asarray(first.handover["image"], dtype=np.uint8)
    chained = _task(frame_indices=tuple(range(4, 4 + FRAMES)))
    by_latent = _render(
        tiny_engine, RenderInputs(image=start, handover=first.handover), frame_indices=chained.frame_indices
    )
    by_image = _render(tiny_engine, RenderInputs(image=start), frame_indices=chained.frame_indices)
    noise, _ = tiny_engine.initial_latents(chained)
    conditioning = tiny_engine.encode(
        start,
        chained.prompt,
        chained.negative_prompt,
        num_frames=FRAMES,
        fps=8,
        guidance_scale=4.0,
        first_latent=np.asarray(first.handover["latent"], dtype=np.float32),
    )
    expected = tiny_engine.denoise(noise, conditioning, num_inference_steps=STEPS)
    assert np.array_equal(by_latent.handover["latent"], expected[-1].numpy())
    assert not np.array_equal(by_latent.handover["latent"], by_image.handover["latent"])


def test_an_anchored_latent_takes_the_first_segments_statistics_by_its_strength(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    latent = np.random.default_rng(4).normal(2, 3, (4, 8, 12)).astype(np.float32)
    anchor = {"mean": np.arange(4, dtype=np.float32), "std": np.arange(1, 5, dtype=np.float32)}
    inputs = RenderInputs(image=tiny_image, handover={"latent": latent}, anchor=anchor)
    means = {}
    for strength in (0.0, 0.25, 1.0):
        pulled = first_latent(_task(anchor_strength=strength), inputs, (4, 8, 12))
        assert pulled is not None
        means[strength] = channel_statistics(pulled)
    assert np.allclose(means[1.0]["mean"], anchor["mean"], atol=1e-4)
    assert np.allclose(means[1.0]["std"], anchor["std"], atol=1e-4)
    assert np.allclose(means[0.25]["mean"], 0.75 * means[0.0]["mean"] + 0.25 * anchor["mean"], atol=1e-4)
    free = _render(tiny_engine, inputs)
    held = _render(tiny_engine, inputs, anchor_strength=1.0)
    assert not np.array_equal(free.frames, held.frames)


def test_refining_a_video_keeps_more_of_it_the_lower_the_strength(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    video = np.stack([np.roll(tiny_image, 3 * f, axis=1) for f in range(FRAMES)])
    clean = tiny_engine.encode_video(video)
    distances = []
    for strength in (0.1, 0.5, 1.0):
        steps: list[int] = []
        rendered = tiny_engine.render(
            _task(strength=strength, num_inference_steps=10, guidance_scale=1.0, handover_index=2),
            RenderInputs(image=tiny_image, video=video),
            lambda phase, done, total, steps=steps: steps.append(total) if phase == "denoise" else None,
        )
        assert steps[-1] == round(10 * strength)
        distances.append(float(np.abs(rendered.handover["latent"] - clean[2].numpy()).mean()))
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[-1]


@pytest.mark.parametrize("num_inference_steps", [1, 3, 10, 50])
def test_the_planner_counts_the_steps_that_are_run_over_a_video(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8], num_inference_steps: int
) -> None:
    for strength in (0.01, 0.29, 0.5, 0.6, 0.99, 1.0):
        task = _task(frame_indices=(0,), strength=strength, num_inference_steps=num_inference_steps)
        _, steps = tiny_engine.initial_latents(task, tiny_image[None])
        assert len(steps) == num_steps_run(num_inference_steps, strength), strength


def test_a_video_without_a_keyframe_is_conditioned_on_its_first_frame(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    video = np.stack([np.roll(tiny_image, f, axis=1) for f in range(FRAMES)])
    alone = _render(tiny_engine, RenderInputs(video=video), strength=0.5)
    keyed = _render(tiny_engine, RenderInputs(video=video, image=video[0]), strength=0.5)
    other = _render(tiny_engine, RenderInputs(video=video, image=video[0, ::-1]), strength=0.5)
    assert np.array_equal(alone.frames, keyed.frames)
    assert not np.array_equal(alone.handover["latent"], other.handover["latent"])


@pytest.mark.parametrize(
    ("changes", "inputs", "named"),
    [
        ({"height": 34}, {}, "height x width is 34x48"),
        ({"frame_indices": tuple(range(33))}, {}, "num_frames is 33"),
        ({"strength": 0.5}, {}, "strength is 0.5 and the input video is missing"),
        ({}, {"last_image": np.zeros((HEIGHT, WIDTH, 3), np.uint8)}, "last_image is given"),
        ({}, {"image": None}, "image is missing"),
        ({}, {"image": np.zeros((8, 8, 3), np.uint8)}, r"image is \(8, 8, 3\)"),
        ({"strength": 0.5}, {"video": np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)}, r"video is \(2, 32"),
        ({}, {"handover": {"latent": np.zeros((4, 2, 2), np.float32)}}, r"handover latent is \(4, 2, 2\)"),
    ],
)
def test_a_task_that_does_not_fit_its_inputs_is_refused_by_name(
    tiny_engine: I2VGenXL,
    tiny_image: NDArray[np.uint8],
    changes: dict[str, Any],
    inputs: dict[str, Any],
    named: str,
) -> None:
    with pytest.raises(ValueError, match=named):
        _render(tiny_engine, RenderInputs(**{"image": tiny_image, **inputs}), **changes)
