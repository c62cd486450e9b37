from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.capabilities.engine_spec import Rung
from farm.capabilities.worker import GIB, Worker
from farm.planning.render_task import RenderTask
from nodes.engines.animatediff.engine import AnimateDiff
from nodes.engines.animatediff.layout import DENOISER
from nodes.engines.animatediff.spec import animatediff_spec
from nodes.engines.common import placing
from nodes.engines.engine import Rendered, RenderInputs
from nodes.engines.table import create_engine, spec_of
from tests.nodes.engines.animatediff.conftest import FRAMES, HEIGHT, STEPS, WIDTH

pytestmark = pytest.mark.slow

Picture = Callable[[int], NDArray[np.uint8]]
WORKER = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=8 * GIB)


def _render(engine: AnimateDiff, task: RenderTask, inputs: RenderInputs, **changes: Any) -> Rendered:
    return engine.render(task.model_copy(update=changes), inputs, lambda phase, done, total: None)


def _psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Decibels, over the range of the first."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(np.ptp(one.astype(np.float64)) ** 2 / error))


@pytest.fixture(scope="module")
def resident(_animatediff: AnimateDiff, task: RenderTask, picture: Picture) -> Rendered:
    """What the shared engine renders at its first rung between two given frames."""
    _animatediff.load("resident")
    return _render(_animatediff, task, RenderInputs(image=picture(0), last_image=picture(3)))


@pytest.mark.parametrize("rung", ["evict", "cfg_split", "stream", "stream_cfg_split", "disk"])
def test_every_rung_renders_what_the_resident_one_does(
    animatediff: AnimateDiff,
    task: RenderTask,
    picture: Picture,
    resident: Rendered,
    rung: Rung,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small groups: the layers of a tiny model pass through the ring one by one too.
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 8192)
    assert [each.name for each in animatediff.spec.rungs] == [
        *("resident", "evict", "cfg_split", "stream", "stream_cfg_split", "disk")
    ]
    animatediff.load(rung)
    assert (DENOISER in animatediff._held.placed._rings) == (rung.startswith("stream") or rung == "disk")
    got = _render(animatediff, task, RenderInputs(image=picture(0), last_image=picture(3)))
    assert _psnr(resident.frames, got.frames) >= 50
    assert np.array_equal(got.handover["image"], got.frames[-1])


def test_given_frames_are_drawn_to_where_they_stand(
    animatediff: AnimateDiff, task: RenderTask, picture: Picture, resident: Rendered
) -> None:
    same = RenderInputs(known={0: picture(0), FRAMES - 1: picture(3)})
    moved = RenderInputs(image=picture(0), known={1: picture(3)})
    assert _psnr(resident.frames, _render(animatediff, task, same).frames) >= 50
    assert _psnr(resident.frames, _render(animatediff, task, moved).frames) < 45


def test_a_pipelines_own_folder_with_its_motion_modules_within_renders_the_same(
    tiny_animatediff_folder: Path, tmp_path: Path, task: RenderTask, picture: Picture, resident: Rendered
) -> None:
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    folder = shutil.copytree(tiny_animatediff_folder, tmp_path / "saved")
    parts = [
        kind.from_pretrained(folder / name)
        for kind, name in ((UNet2DConditionModel, "unet"), (MotionAdapter, "motion_adapter"))
    ]
    for name in ("unet", "motion_adapter"):
        shutil.rmtree(folder / name)
    UNetMotionModel.from_unet2d(*parts).save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "AnimateDiffSparseControlNetPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    frames = []
    for threads in (1, 2):
        engine = create_engine(str(folder), WORKER, cpu_threads=threads)
        assert isinstance(engine, AnimateDiff)
        engine.load("resident")
        frames.append(_render(engine, task, RenderInputs(image=picture(0), last_image=picture(3))).frames)
    assert np.array_equal(*frames)
    assert frames[0].shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert _psnr(resident.frames, frames[0]) >= 50
    assert animatediff_spec(folder, model="tiny").component_bytes[DENOISER] == pytest.approx(
        animatediff_spec(tiny_animatediff_folder, model="tiny").component_bytes[DENOISER], rel=0.01
    )


def test_without_a_sparsectrl_a_video_is_refined_and_frames_alone_are_refused(
    tiny_animatediff_folder: Path, tmp_path: Path, task: RenderTask, picture: Picture
) -> None:
    folder = shutil.copytree(
        tiny_animatediff_folder, tmp_path / "plain", ignore=shutil.ignore_patterns("controlnet")
    )
    assert spec_of(str(folder)).takes == {"text", "text_alone", "video"}
    engine = create_engine(str(folder), WORKER)
    assert isinstance(engine, AnimateDiff)
    engine.load("cfg_split")
    video = np.stack([picture(0)] * FRAMES)
    over = {"strength": 0.5, "handover_index": None}
    heard: list[tuple[str, int, int]] = []
    refined = engine.render(
        task.model_copy(update=over), RenderInputs(video=video), lambda *report: heard.append(report)
    )
    # A keyframe that a refined video has is not read.
    keyed = _render(engine, task, RenderInputs(video=video, image=picture(1)), **over)
    assert np.array_equal(refined.frames, keyed.frames)
    assert [total for phase, _, total in heard if phase == "denoise"] == [int(STEPS * 0.5)] * 2
    with pytest.raises(ValueError, match=r"1 frames are given, and .* takes none: put a SparseCtrl"):
        _render(engine, task, RenderInputs(image=picture(0)))


@pytest.mark.parametrize(
    ("changes", "inputs", "named"),
    [
        ({"height": 36}, {}, "height x width is 36x48"),
        ({"frame_indices": tuple(range(257))}, {}, "num_frames is 257: tiny renders 1 to 256"),
        ({}, {"known": {9: np.zeros((HEIGHT, WIDTH, 3), np.uint8)}}, "frame 9 of 4"),
        ({}, {"last_image": np.zeros((8, 8, 3), np.uint8)}, r"frame 3 of 4 is \(8, 8, 3\)"),
    ],
)
def test_a_task_that_does_not_fit_its_inputs_is_refused_by_name(
    animatediff: AnimateDiff,
    task: RenderTask,
    picture: Picture,
    changes: dict[str, Any],
    inputs: dict[str, Any],
    named: str,
) -> None:
    with pytest.raises(ValueError, match=named):
        _render(animatediff, task, RenderInputs(**{"image": picture(0), **inputs}), **changes)
