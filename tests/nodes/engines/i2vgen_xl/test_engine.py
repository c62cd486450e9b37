from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from PIL import Image
from transformers.utils import logging as transformers_logging

from farm.capabilities.engine_spec import EngineSpec, Rung
from farm.errors import CannotRun
from farm.planning.render_task import RenderTask
from nodes.engines.engine import Cancelled, OutOfMemory, Rendered, RenderInputs
from nodes.engines.i2vgen_xl.engine import I2VGenXL
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec
from nodes.work.attempt_log import AttemptLog

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


@pytest.fixture
def stock_pipeline(tiny_i2vgen_xl_folder: Path) -> Any:
    from diffusers import I2VGenXLPipeline

    pipeline = I2VGenXLPipeline.from_pretrained(tiny_i2vgen_xl_folder)
    pipeline.set_progress_bar_config(disable=True)
    # The stock text path reads ``text_model``, which transformers 5.6 dropped.
    if not hasattr(pipeline.text_encoder, "text_model"):
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    return pipeline


@pytest.fixture(scope="module")
def resident(_tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]) -> Rendered:
    """What the shared engine renders at its first rung, of the task as it is."""
    _tiny_engine.load("resident")
    return _render(_tiny_engine, RenderInputs(image=tiny_image))


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_latents_and_frames_equal_the_stock_pipelines(
    tiny_engine: I2VGenXL, stock_pipeline: Any, tiny_image: NDArray[np.uint8], guidance_scale: float
) -> None:
    task = _task(guidance_scale=guidance_scale)
    noise, _ = tiny_engine.initial_latents(task)
    conditioning = tiny_engine.encode(
        tiny_image,
        task.prompt,
        task.negative_prompt,
        num_frames=FRAMES,
        fps=8,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(5),
    )
    ours = tiny_engine.denoise(noise, conditioning, num_inference_steps=STEPS)
    torch.manual_seed(5)  # the stock pipeline draws its image latent from the global generator
    stock = (
        stock_pipeline(
            prompt=task.prompt,
            negative_prompt=task.negative_prompt,
            image=Image.fromarray(tiny_image),
            height=HEIGHT,
            width=WIDTH,
            target_fps=8,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=guidance_scale,
            latents=noise.transpose(0, 1)[None],
            output_type="latent",
        )
        .frames[0]
        .transpose(0, 1)
    )
    assert torch.allclose(ours, stock, atol=1e-4)
    decoded = stock_pipeline.decode_latents(stock.transpose(0, 1)[None], decode_chunk_size=1)[0]
    pixels = ((decoded.permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).detach().numpy()
    assert np.abs(tiny_engine.decode(ours) - pixels).max() <= 0.51


def test_without_a_generator_the_image_latent_is_the_mode_and_never_changes(
    tiny_engine: I2VGenXL, stock_pipeline: Any, tiny_image: NDArray[np.uint8]
) -> None:
    torch.manual_seed(1)
    conditioning = tiny_engine.encode(tiny_image, "a", num_frames=3, fps=8, guidance_scale=1.0)
    pixels = torch.from_numpy(tiny_image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    vae = stock_pipeline.vae
    mode = vae.encode(pixels).latent_dist.mode().detach() * vae.config.scaling_factor
    assert torch.allclose(conditioning.image_latents[:, :, 0], mode, atol=1e-5)
    assert conditioning.image_latents[0, 0, 1:, 0, 0].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("rung", ["evict", "chunk", "cfg_split", "stream", "stream_cfg_split"])
def test_every_rung_renders_what_the_resident_one_does(
    resident: Rendered, tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8], rung: Rung
) -> None:
    tiny_engine.load(rung)
    got = _render(tiny_engine, RenderInputs(image=tiny_image))
    assert np.allclose(got.handover["latent"], resident.handover["latent"], atol=1e-4)
    assert np.abs(got.frames.astype(int) - resident.frames).max() <= 1


def test_the_frames_are_a_picture_and_move(resident: Rendered) -> None:
    frames = resident.frames
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 5
    assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 1


@pytest.mark.long
def test_a_second_engine_in_another_process_renders_the_same_bytes(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8], tiny_i2vgen_xl_folder: Path, tmp_path: Path
) -> None:
    here = hashlib.sha256(_render(tiny_engine, RenderInputs(image=tiny_image)).frames.tobytes()).hexdigest()
    np.save(tmp_path / "image.npy", tiny_image)
    code = f"""
import hashlib, torch, numpy as np
from pathlib import Path
from farm.planning import RenderTask
from nodes.engines import RenderInputs
from nodes.engines.i2vgen_xl.engine import I2VGenXL
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec
torch.set_num_threads(2)
folder = Path({str(tiny_i2vgen_xl_folder)!r})
engine = I2VGenXL(i2vgen_xl_spec(folder, model="tiny"), source=folder, device="cpu")
engine.load("resident")
task = RenderTask.model_validate_json({_task().model_dump_json()!r})
inputs = RenderInputs(image=np.load({str(tmp_path / "image.npy")!r}))
frames = engine.render(task, inputs, lambda phase, done, total: None).frames
print(hashlib.sha256(frames.tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


@pytest.mark.parametrize(
    "change", [{"seed": 22}, {"take": 1}, {"noise_level": 1}, {"prompt": "rain"}, {"fps": 24}]
)
def test_another_seed_take_level_prompt_or_rate_renders_other_frames(
    resident: Rendered, tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8], change: dict[str, Any]
) -> None:
    other = _render(tiny_engine, RenderInputs(image=tiny_image), **change)
    assert not np.array_equal(resident.handover["latent"], other.handover["latent"])


def test_a_schedule_run_in_pieces_ends_where_the_whole_one_does(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    noise, steps = tiny_engine.initial_latents(_task())
    conditioning = tiny_engine.encode(tiny_image, "a cat", num_frames=FRAMES, fps=8, guidance_scale=4.0)
    whole = tiny_engine.denoise(noise, conditioning, num_inference_steps=STEPS)
    half = tiny_engine.denoise(noise, conditioning, num_inference_steps=STEPS, steps=steps[:1])
    rest = tiny_engine.denoise(half, conditioning, num_inference_steps=STEPS, steps=steps[1:])
    assert torch.equal(whole, rest)
    assert not torch.equal(whole, half)


def test_windows_that_overlap_start_from_the_same_latents(tiny_engine: I2VGenXL) -> None:
    left, _ = tiny_engine.initial_latents(_task(frame_indices=(0, 1, 2, 3)))
    right, _ = tiny_engine.initial_latents(_task(frame_indices=(2, 3, 4, 5)))
    assert torch.equal(left[2:], right[:2])


@pytest.mark.parametrize("num_frames", [1, 2, 17])
def test_windows_of_any_length_render(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8], num_frames: int
) -> None:
    changes = {"frame_indices": tuple(range(num_frames)), "num_inference_steps": 1, "handover_index": None}
    assert len(_render(tiny_engine, RenderInputs(image=tiny_image), **changes).frames) == num_frames


def test_every_step_is_reported_in_order(tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]) -> None:
    heard: list[tuple[str, int, int]] = []
    tiny_engine.render(_task(), RenderInputs(image=tiny_image), lambda *report: heard.append(report))
    assert [r for r in heard if r[0] == "denoise"] == [("denoise", i, STEPS) for i in range(STEPS + 1)]
    assert list(dict.fromkeys(phase for phase, _, _ in heard)) == ["encode", "denoise", "decode"]


@pytest.mark.parametrize("rung", ["resident", "stream"])
def test_a_cancelled_render_stops_between_steps_and_the_engine_renders_again(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8], rung: Rung
) -> None:
    tiny_engine.load(rung)
    expected = _render(tiny_engine, RenderInputs(image=tiny_image))
    heard: list[int] = []

    def cancel_after_one(phase: str, done: int, total: int) -> None:
        if phase == "denoise":
            heard.append(done)
            if done == 1:
                raise Cancelled

    with pytest.raises(Cancelled):
        tiny_engine.render(_task(), RenderInputs(image=tiny_image), cancel_after_one)
    assert heard == [0, 1]
    assert np.array_equal(_render(tiny_engine, RenderInputs(image=tiny_image)).frames, expected.frames)


def test_values_that_are_not_finite_stop_the_render_at_their_step(
    tiny_engine: I2VGenXL, tiny_image: NDArray[np.uint8]
) -> None:
    with pytest.raises(FloatingPointError, match=r"step \d of 3 gave values that are not finite"):
        _render(tiny_engine, RenderInputs(image=tiny_image), guidance_scale=3e38)


def test_out_of_memory_unloads_the_engine_and_it_renders_again(
    tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path, tiny_image: NDArray[np.uint8]
) -> None:
    engine = I2VGenXL(tiny_spec, source=tiny_i2vgen_xl_folder, device="cpu")
    engine.load("chunk")

    def exhaust(phase: str, done: int, total: int) -> None:
        if phase == "denoise" and done == 1:
            torch.empty(2**55, dtype=torch.uint8)

    with pytest.raises(OutOfMemory):
        engine.render(_task(), RenderInputs(image=tiny_image), exhaust)
    with pytest.raises(ValueError, match=r"call load\(rung\) first"):
        _render(engine, RenderInputs(image=tiny_image))
    engine.load("chunk")
    assert len(_render(engine, RenderInputs(image=tiny_image)).frames) == FRAMES


def test_a_rung_the_model_does_not_offer_is_refused(tiny_engine: I2VGenXL) -> None:
    with pytest.raises(ValueError, match="rung is 'turbo': tiny offers resident, evict"):
        tiny_engine.load("turbo")


def test_a_folder_with_half_precision_files_alone_loads(
    tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path, tmp_path: Path, tiny_image: NDArray[np.uint8]
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    for path in folder.glob("*/*.safetensors"):
        if ".fp16." not in path.name:
            path.unlink()
    engine = I2VGenXL(i2vgen_xl_spec(folder, model="tiny"), source=folder, device="cpu")
    engine.load("resident")
    assert len(_render(engine, RenderInputs(image=tiny_image), num_inference_steps=1).frames) == FRAMES
    assert engine.spec.component_bytes == tiny_spec.component_bytes


def test_a_model_with_weights_missing_from_a_file_is_refused(
    tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "holes"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop("conv_in.weight")
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CannotRun, match=r"lacks 1 weights \(conv_in.weight"):
        I2VGenXL(tiny_spec, source=folder, device="cpu").load("resident")


def test_a_scheduler_with_a_memory_of_its_own_is_refused(
    tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "solver"
    shutil.copytree(tiny_i2vgen_xl_folder, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"_class_name": "DPMSolverMultistepScheduler"}
    path.write_text(json.dumps(config))
    with pytest.raises(CannotRun, match="DPMSolverMultistepScheduler, expected DDIMScheduler"):
        I2VGenXL(tiny_spec, source=folder, device="cpu").load("resident")


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_xformers_that_cannot_be_used_is_refused_with_what_to_do(
    tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path
) -> None:
    engine = I2VGenXL(tiny_spec, source=tiny_i2vgen_xl_folder, device="cpu", attention="xformers")
    with pytest.raises(CannotRun, match="use attention='sdpa'"):
        engine.load("resident")


def test_what_its_libraries_warn_of_reaches_the_attempts_log(tiny_engine: I2VGenXL) -> None:
    log = AttemptLog()
    with log.listening():
        diffusers_logging.get_logger("diffusers.models").warning("odd weights")
        transformers_logging.get_logger("transformers.models").warning("odd words")
    assert "WARNING diffusers.models: odd weights" in log.text()
    assert "WARNING transformers.models: odd words" in log.text()
