from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from farm.capabilities.engine_spec import Rung
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from farm.planning.render_task import RenderTask
from nodes.engines.common import placing
from nodes.engines.engine import Rendered, RenderInputs
from nodes.engines.svd.engine import StableVideoDiffusion, picture_noise
from nodes.engines.svd.layout import IMAGE_ENCODER, UNET
from nodes.engines.svd.loading import read_model
from nodes.engines.table import create_engine
from nodes.engines.weights import file_span
from tests.nodes.engines.svd.conftest import FRAMES, HEIGHT, STEPS, WIDTH

pytestmark = pytest.mark.slow

Picture = NDArray[np.uint8]
WORKER = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=8 * GIB)


def _render(engine: StableVideoDiffusion, task: RenderTask, inputs: RenderInputs, **changes: Any) -> Rendered:
    return engine.render(task.model_copy(update=changes), inputs, lambda phase, done, total: None)


def _psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Decibels, over the range of the first."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(np.ptp(one.astype(np.float64)) ** 2 / error))


@pytest.fixture(scope="module")
def resident(_svd: StableVideoDiffusion, task: RenderTask, picture: Picture) -> Rendered:
    """What the shared engine renders at its first rung, of the task as it is."""
    _svd.load("resident")
    return _render(_svd, task, RenderInputs(image=picture))


@pytest.mark.parametrize("rung", ["evict", "cfg_split", "stream", "stream_cfg_split", "disk"])
def test_every_rung_renders_what_the_resident_one_does(
    svd: StableVideoDiffusion,
    task: RenderTask,
    picture: Picture,
    resident: Rendered,
    rung: Rung,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small groups: the layers of a tiny model pass through the ring one by one too.
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 8192)
    assert [each.name for each in svd.spec.rungs] == [
        *("resident", "evict", "cfg_split", "stream", "stream_cfg_split", "disk")
    ]
    svd.load(rung)
    assert (UNET in svd._held.placed._rings) == (rung.startswith("stream") or rung == "disk")
    got = _render(svd, task, RenderInputs(image=picture))
    assert _psnr(resident.frames, got.frames) >= 50
    assert np.allclose(got.handover["mean"], resident.handover["mean"], atol=1e-4)


def test_a_model_that_waits_on_the_disk_is_mapped_from_its_files(tiny_svd_folder: Path) -> None:
    model = read_model(tiny_svd_folder, dtype=torch.float32, attention="sdpa", in_files=True)
    for name in (UNET, IMAGE_ENCODER):
        weights = list(model.components[name].parameters())
        mapped = [weight for weight in weights if file_span(weight) is not None]
        assert sum(w.nbytes for w in mapped) > 0.99 * sum(w.nbytes for w in weights)


def test_a_folder_of_half_precision_alone_is_rendered_by_the_ordinary_path_on_any_number_of_cores(
    tiny_svd_folder: Path, tmp_path: Path, task: RenderTask, picture: Picture, resident: Rendered
) -> None:
    folder = shutil.copytree(tiny_svd_folder, tmp_path / "half")
    for path in folder.glob("*/*.safetensors*"):
        if ".fp16." not in path.name:
            path.unlink()
    frames = []
    for threads in (1, 2):
        engine = create_engine(str(folder), WORKER, cpu_threads=threads)
        assert isinstance(engine, StableVideoDiffusion)
        engine.load("resident")
        frames.append(_render(engine, task, RenderInputs(image=picture)).frames)
    assert np.array_equal(*frames)
    assert frames[0].shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert frames[0].std() > 5
    assert _psnr(resident.frames, frames[0]) > 30  # of weights in half precision


def test_a_chain_goes_on_from_the_frame_that_is_handed_over_and_is_pulled_to_its_first_window(
    svd: StableVideoDiffusion, task: RenderTask, picture: Picture, resident: Rendered
) -> None:
    assert resident.handover.keys() == {"image", "mean", "std"}
    assert np.array_equal(resident.handover["image"], resident.frames[-1])
    known = svd.encode(picture, num_frames=1, fps=8, guidance_scale=1.0, noise=0 * picture_noise(task))
    expected = known.image_latents[0].mean(dim=(1, 2)).numpy()
    anchor = {"mean": expected + 3, "std": np.ones(4, np.float32)}
    free = _render(svd, task, RenderInputs(image=picture, anchor=anchor), anchor_strength=0.0)
    pulled = _render(svd, task, RenderInputs(image=picture, anchor=anchor), anchor_strength=1.0)
    assert _psnr(resident.frames, free.frames) >= 50
    assert _psnr(resident.frames, pulled.frames) < 40


def test_a_video_is_refined_in_the_last_of_the_steps_and_its_first_frame_is_the_picture(
    svd: StableVideoDiffusion, task: RenderTask, picture: Picture
) -> None:
    video = np.stack([picture] * FRAMES)
    refining = task.model_copy(update={"strength": 0.4, "handover_index": None})
    latents, steps = svd.initial_latents(refining, video)
    assert list(steps) == [STEPS - 1]
    clean = svd.encode_video(video)
    spread = float((latents - clean).std())
    assert spread == pytest.approx(float(svd._held.placed.model.scheduler.sigmas[STEPS - 1]), rel=0.2)
    heard: list[tuple[str, int, int]] = []
    alone = svd.render(refining, RenderInputs(video=video), lambda *report: heard.append(report))
    keyed = _render(svd, refining, RenderInputs(video=video, image=picture))
    assert np.array_equal(alone.frames, keyed.frames)
    assert [report for report in heard if report[0] == "denoise"] == [("denoise", 0, 1), ("denoise", 1, 1)]
    assert heard[-1] == ("decode", FRAMES, FRAMES)


@pytest.mark.parametrize(
    ("changes", "inputs", "named"),
    [
        ({"height": 36}, {}, "height x width is 36x48"),
        ({"frame_indices": tuple(range(33))}, {}, "num_frames is 33: tiny renders 1 to 32"),
        ({}, {"last_image": np.zeros((HEIGHT, WIDTH, 3), np.uint8)}, "last_image is given"),
        ({}, {"image": None}, "image is missing"),
    ],
)
def test_a_task_that_does_not_fit_its_inputs_is_refused_by_name(
    svd: StableVideoDiffusion,
    task: RenderTask,
    picture: Picture,
    changes: dict[str, Any],
    inputs: dict[str, Any],
    named: str,
) -> None:
    with pytest.raises(ValueError, match=named):
        _render(svd, task, RenderInputs(**{"image": picture, **inputs}), **changes)


def test_values_that_are_not_finite_stop_the_render_at_their_step(
    svd: StableVideoDiffusion, task: RenderTask, picture: Picture
) -> None:
    with pytest.raises(FloatingPointError, match=r"step \d of 3 gave values that are not finite"):
        _render(svd, task, RenderInputs(image=picture), guidance_scale=3e38)


def test_a_scheduler_for_another_prediction_is_refused(tiny_svd_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_svd_folder, tmp_path / "other")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    with pytest.raises(CannotRun, match="predicts epsilon, expected EulerDiscreteScheduler and v_prediction"):
        create_engine(str(folder), WORKER).load("resident")
