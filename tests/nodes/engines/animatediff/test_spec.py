from __future__ import annotations

import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.capabilities.engine_spec import EngineSpec, RenderShape, need_bytes
from farm.errors import CannotRun
from farm.planning.planner import plan
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from nodes.engines.animatediff.facts import ModelFacts
from nodes.engines.animatediff.layout import DENOISER, AnimateDiffFolder
from nodes.engines.animatediff.spec import _Cost, animatediff_spec
from nodes.engines.table import spec_of

pytestmark = pytest.mark.torch

GB = 10**9


@pytest.mark.slow
def test_a_folder_is_told_by_its_adapter_and_read_without_torch(tiny_animatediff_folder: Path) -> None:
    code = (
        "import sys; from nodes.engines import spec_of; spec = spec_of(sys.argv[1]); "
        "print(spec.engine, sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, str(tiny_animatediff_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "animatediff []"


def test_a_folder_of_pictures_alone_is_told_what_it_lacks(
    tiny_animatediff_folder: Path, tmp_path: Path
) -> None:
    lacks = shutil.ignore_patterns("motion_adapter")
    folder = shutil.copytree(tiny_animatediff_folder, tmp_path / "pictures", ignore=lacks)
    with pytest.raises(CannotRun, match=r"put the folder of a motion adapter .* into it, as motion_adapter"):
        spec_of(str(folder))


def test_a_spec_says_what_the_weights_were_trained_for(tiny_animatediff_folder: Path) -> None:
    spec = animatediff_spec(tiny_animatediff_folder, model="tiny")
    assert spec.takes == {"image", "last_image", "keyframes", "text", "text_alone", "video"}
    assert (spec.window_frames, spec.native_width, spec.native_fps) == (16, 512, 8)
    assert not spec.knows_rates
    assert spec.side_multiple == 8


@pytest.mark.parametrize(
    ("file", "values", "named"),
    [
        (
            "unet/config.json",
            {"_class_name": "UNet3DConditionModel"},
            "is UNet3DConditionModel, expected",
        ),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "Stable Diffusion XL"),
        ("controlnet/config.json", {"use_simplified_condition_embedding": False}, "SparseCtrl for scribbles"),
        ("farm.json", {"windows": 3}, "windows is not known"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tiny_animatediff_folder: Path, tmp_path: Path, file: str, values: dict[str, Any], named: str
) -> None:
    folder = shutil.copytree(tiny_animatediff_folder, tmp_path / "other")
    config = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(config | values))
    with pytest.raises(CannotRun, match=named):
        animatediff_spec(folder, model="tiny")


@pytest.mark.parametrize(
    ("cap_gb", "rung", "size"),
    [(6, "evict", (512, 512)), (8, "resident", (512, 768)), (4, "stream", (512, 512))],
)
def test_caps_hold_the_articles_windows_at_the_rung_that_is_expected(
    tiny_animatediff_folder: Path, cap_gb: int, rung: str, size: tuple[int, int]
) -> None:
    tiny = animatediff_spec(tiny_animatediff_folder, model="tiny")
    needs = _full_needs(tiny, *size)
    assert next(name for name, need in needs.items() if need <= cap_gb * GB) == rung


def _full_needs(tiny: EngineSpec, width: int, height: int) -> dict[str, int]:
    """Of the published sizes: version 3 of the motion modules, and its SparseCtrl."""
    held = {DENOISER: [4_000_000] * 886, "vae": [4_000_000] * 42, "text_encoder": [4_000_000] * 62}
    folder = AnimateDiffFolder(
        path=Path(),
        unet={"block_out_channels": [320, 640, 1280, 1280]},
        adapter={},
        look=None,
        control={},
        vae={"block_out_channels": [128, 256, 512, 512]},
        scheduler={},
    )
    from nodes.engines.animatediff.placements import placements

    cost = _Cost.of(folder, ModelFacts(), held, "cuda")
    rungs = tuple(cost.rung(placement) for placement in placements("cuda"))
    full = tiny.model_copy(update={"rungs": rungs, "component_bytes": cost.component_bytes})
    shape = RenderShape(num_frames=16, height=height, width=width, num_inference_steps=25, guided=True)
    return {rung.name: need_bytes(full, rung, shape) for rung in rungs}


def test_motion_modules_for_few_steps_say_how_they_are_run(
    tiny_animatediff_folder: Path, tmp_path: Path
) -> None:
    from nodes.engines.animatediff.loading import read_model

    folder = shutil.copytree(tiny_animatediff_folder, tmp_path / "lightning")
    few = {"default_steps": 4, "default_guidance_scale": 1.0, "timestep_spacing": "trailing"}
    (folder / "farm.json").write_text(json.dumps(few))
    spec = animatediff_spec(folder, model="tiny")
    assert (spec.default_steps, spec.default_guidance_scale) == (4, 1.0)
    scheduler = read_model(folder, dtype=torch.float32, attention="sdpa").scheduler
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_a_photo_is_chained_and_keyframes_are_rendered_between(tiny_animatediff_folder: Path) -> None:
    spec = animatediff_spec(tiny_animatediff_folder, model="tiny")
    photo = MediaInfo(kind="image", width=512, height=512, num_frames=1, sha256="", path=Path("a.png"))
    asked: dict[str, Any] = {"model": "tiny", "prompts": ("a cat",), "fps": Fraction(8), "num_frames": 48}
    assert plan(JobRequest(inputs=(photo,), **asked), spec).mode == "chain"
    between = plan(JobRequest(inputs=(photo, photo, photo), mode="infill", **asked), spec)
    assert between.mode == "infill"
    assert not any("was not trained" in note for note in between.notes)
