from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.engine_spec import EngineSpec, RenderShape, need_bytes
from farm.capabilities.worker import GIB
from farm.errors import CannotRun
from farm.planning.planner import plan
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from nodes.engines import table
from nodes.engines.svd.spec import svd_spec

pytestmark = pytest.mark.torch

GB = 10**9


@pytest.fixture
def changed(tiny_svd_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """``changed("vae/config.json", key=value)``: a copy of the folder whose file says so."""

    def made(file: str, **values: Any) -> Path:
        folder = shutil.copytree(tiny_svd_folder, tmp_path / "copy")
        path = folder / file
        config = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(config | values))
        return folder

    return made


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """Of SVD-XT: its configs, and the headers of its files with holes for the numbers."""
    from tests.nodes.engines.svd.full_size import write_headers

    folder = tmp_path_factory.mktemp("svd") / "full"
    write_headers(folder)
    return svd_spec(folder, model="svd-xt")


def _need(spec: EngineSpec, rung: str, window: tuple[int, int, int]) -> int:
    width, height, frames = window
    shape = RenderShape(num_frames=frames, height=height, width=width, num_inference_steps=25, guided=True)
    return need_bytes(spec, next(r for r in spec.rungs if r.name == rung), shape)


@pytest.mark.slow
def test_a_folder_is_known_by_its_pipeline_and_read_without_torch(tiny_svd_folder: Path) -> None:
    code = (
        "import sys; from nodes.engines import spec_of; spec = spec_of(sys.argv[1]); "
        "print(spec.engine, sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, str(tiny_svd_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "svd []"


def test_a_spec_says_what_the_weights_were_trained_for(tiny_svd_folder: Path, full: EngineSpec) -> None:
    tiny = svd_spec(tiny_svd_folder, model="tiny")
    assert (tiny.window_frames, full.window_frames) == (14, 25)
    assert (full.trained_windows, full.trained_sides) == ((25,), (576, 1024))
    assert full.takes == {"image", "video"}
    assert (full.default_steps, full.default_guidance_scale, full.native_fps) == (25, 3.0, 7)
    assert (full.side_multiple, tiny.side_multiple) == (64, 8)
    assert full.frames.allows(1)
    assert not full.frames.allows(33)


def test_the_full_model_weighs_what_its_files_say_less_what_is_not_kept(full: EngineSpec) -> None:
    # Queries and keys of attention to one token are not kept; the VAE's encoder is in float32.
    assert full.component_bytes["unet"] == 2 * 1_474_233_322
    assert full.component_bytes["vae_encoder"] == 4 * 34_163_664
    assert full.component_bytes["vae_decoder"] == 2 * 63_579_183
    assert full.on("cpu").component_bytes["unet"] == 4 * 1_474_233_322


@pytest.mark.parametrize(
    ("cap_gb", "window", "rung"),
    [
        (8, (1024, 576, 25), "resident"),
        (6, (1024, 576, 25), "evict"),
        (4, (1024, 576, 25), "stream"),
        (6, (1024, 576, 14), "evict"),
        (3, (1024, 576, 14), "stream"),
    ],
)
def test_caps_hold_windows_as_trained_at_the_rung_that_is_expected(
    full: EngineSpec, cap_gb: int, window: tuple[int, int, int], rung: str
) -> None:
    needs = {each.name: _need(full, each.name, window) for each in full.rungs}
    assert next(name for name, need in needs.items() if need <= cap_gb * GB) == rung
    assert needs["resident"] == max(needs.values())
    assert needs["stream_cfg_split"] == min(needs.values())


def test_a_tiny_model_needs_a_tiny_card(tiny_svd_folder: Path) -> None:
    spec = svd_spec(tiny_svd_folder, model="tiny")
    assert _need(spec, "resident", (128, 128, 14)) - spec.context_bytes < 0.6 * GIB


@pytest.mark.parametrize(
    ("file", "values", "named"),
    [
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "expected UNetSpatioTemporal"),
        ("farm.json", {"motion": 3}, "motion is not known; known are .*motion_bucket_id"),
    ],
)
def test_a_folder_of_another_unet_or_with_wrong_facts_is_refused(
    changed: Callable[..., Path], file: str, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(CannotRun, match=named):
        svd_spec(changed(file, **values), model="tiny")


def test_its_names_are_pinned_and_under_a_licence_that_is_accepted_once() -> None:
    for name in ("svd", "svd-xt"):
        licence = table.licence_of(name)
        assert licence is not None
        assert licence.restricts_use
        entry = next(model for model in table.known_models() if model["model"] == name)
        assert (entry["engine"], entry["takes"]) == ("svd", ["image", "video"])


def _request(**changes: Any) -> JobRequest:
    photo = MediaInfo(kind="image", width=1024, height=576, num_frames=1, sha256="", path=Path("a.png"))
    values: dict[str, Any] = {"inputs": (photo,), "model": "svd-xt", "num_frames": 60, "fps": Fraction(7)}
    return JobRequest(**(values | changes))


def test_a_job_is_a_chain_in_windows_as_trained_and_what_is_not_read_is_told(full: EngineSpec) -> None:
    made = plan(_request(prompts=("a ship sails",), negative_prompt="blurry"), full)
    assert (made.mode, made.window_frames, made.width, made.height) == ("chain", 25, 1024, 576)
    assert "svd-xt does not read prompts: what is written is not used" in made.notes
    assert not any("prompt" in note for note in plan(_request(), full).notes)


def test_eight_frames_are_rendered_where_they_are_asked_for_and_the_plan_says_so(full: EngineSpec) -> None:
    made = plan(_request(window_frames=8), full)
    assert made.window_frames == 8
    assert "svd-xt was trained on windows of 25 frames, and not on 8" in made.notes
    assert not any("trained on windows" in note for note in plan(_request(), full).notes)


def test_a_photo_is_refined_over_a_draft_and_nothing_ends_on_a_picture(full: EngineSpec) -> None:
    refined = plan(_request(mode="refine"), full)
    assert {segment.level for segment in refined.segments} == {"draft", "keyframes", "final"}
    with pytest.raises(CannotRun, match="mode infill needs a model that takes a last image; svd-xt does not"):
        plan(_request(mode="infill"), full)
