"""Real windows between two frames of a filmed photograph move as asked; told to hold still, they fade."""

from __future__ import annotations

import os

import pytest

from farm.capabilities.worker import GIB, Worker
from farm.planning.render_task import RenderTask
from nodes.engines import Engine, RenderInputs, create_engine
from nodes.work.output_check import measured_fill
from tests.stitching.fill.test_measures import SIDE_PX, film, photographed

pytestmark = pytest.mark.long  # windows of the real model

NUM_FRAMES, FPS = 17, 8


@pytest.fixture(scope="module")
def tiny_wan() -> Engine:
    worker = Worker(id="a/cpu0", node="a", kind="cpu", device_name="CPU", vram_bytes=4 * GIB)
    engine = create_engine("tiny_wan", worker, cpu_threads=os.cpu_count() or 1)
    engine.load("resident")
    return engine


def fill(engine: Engine, name: str, motion: str, prompt: str) -> tuple[str, ...]:
    """The gates that a window between the camera's two ends fails."""
    clip = film(photographed(name), motion, NUM_FRAMES)
    task = RenderTask(
        model="tiny_wan",
        prompt=prompt,
        frame_indices=tuple(range(NUM_FRAMES)),
        shot_start=0,
        shot_end=NUM_FRAMES,
        height=SIDE_PX,
        width=SIDE_PX,
        fps=FPS,
        num_inference_steps=engine.spec.default_steps,
        guidance_scale=engine.spec.default_guidance_scale,
        seed=0,
    )
    inputs = RenderInputs(image=clip[0], last_image=clip[-1])
    found = measured_fill(task, inputs, engine.render(task, inputs, lambda *_: None).frames)
    assert found is not None
    return found.failed_gates


@pytest.mark.parametrize(
    ("name", "motion", "prompt"),
    [
        ("chelsea", "right", "the camera pans right"),
        ("rocket", "right", "the camera pans right"),
        ("coffee", "in", "the camera zooms in"),
    ],
)
def test_a_window_that_moves_as_its_ends_do_passes(
    tiny_wan: Engine, name: str, motion: str, prompt: str
) -> None:
    assert fill(tiny_wan, name, motion, prompt) == ()


@pytest.mark.parametrize(
    ("name", "motion"),
    [("chelsea", "right"), ("rocket", "right"), ("coffee", "in"), ("immunohistochemistry", "right")],
)
def test_a_window_told_to_hold_still_between_different_ends_fades_and_is_told(
    tiny_wan: Engine, name: str, motion: str
) -> None:
    assert "fade" in fill(tiny_wan, name, motion, "the camera holds still")
