"""The model that comes with the farm: on photographs it never saw, it moves as the prompt says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.held_out import Frames
from benchmarks.motion_judge import judge
from farm.capabilities.worker import GIB, Worker
from farm.planning.render_task import RenderTask
from nodes.engines.engine import Engine, RenderInputs
from nodes.engines.table import create_engine, spec_of
from nodes.engines.wan import FAMILY

pytestmark = pytest.mark.slow

FOLDER = FAMILY.models["tiny_wan"]
assert isinstance(FOLDER, Path)
EXAMPLES = Path(__file__).parents[2] / "examples"
SPEC = spec_of("tiny_wan")


def loaded(model: str, cores: int) -> Engine:
    worker = Worker(id="a/0", node="a", kind="cpu", device_name="CPU", vram_bytes=2 * GIB)
    engine = create_engine(model, worker, cpu_threads=cores)
    engine.load("resident")
    return engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return loaded("tiny_wan", cores=1)


def window(engine: Engine, photograph: str, prompt: str, *, side: int, steps: int, num_frames: int) -> Frames:
    """One window of the middle of a photograph, with the model's own guidance and frame rate."""
    image = ImageOps.fit(Image.open(EXAMPLES / photograph).convert("RGB"), (side, side))
    task = RenderTask(
        model=engine.spec.model,
        prompt=prompt,
        frame_indices=tuple(range(num_frames)),
        shot_start=0,
        shot_end=num_frames,
        height=side,
        width=side,
        fps=SPEC.native_fps,
        num_inference_steps=steps,
        guidance_scale=SPEC.default_guidance_scale,
        seed=1,
    )
    return engine.render(task, RenderInputs(image=np.asarray(image)), lambda *_: None).frames


@pytest.mark.long
@pytest.mark.parametrize(
    ("photograph", "prompt", "motion"),
    [
        ("rocket.jpg", "the camera pans right", "right"),
        ("chelsea.png", "the camera zooms in", "in"),
        ("rocket.jpg", "the camera holds still", "still"),
    ],
)
def test_a_held_out_photograph_moves_as_the_prompt_says(
    engine: Engine, photograph: str, prompt: str, motion: str
) -> None:
    asked = {"side": SPEC.native_width, "steps": SPEC.preview_steps, "num_frames": SPEC.window_frames}
    frames = window(engine, photograph, prompt, **asked)
    verdict = judge(frames, SPEC.native_fps, motion, "normal")
    assert verdict.followed, verdict.reason


def test_the_folder_is_a_model_by_its_path_too_and_cores_change_no_pixel(engine: Engine) -> None:
    by_path = loaded(str(FOLDER), cores=2)
    assert by_path.spec == engine.spec.model_copy(update={"model": str(FOLDER)})
    asked = {"side": 64, "steps": 1, "num_frames": 9}
    made = [window(each, "rocket.jpg", "the camera pans right", **asked) for each in (by_path, engine)]
    assert np.array_equal(*made)
