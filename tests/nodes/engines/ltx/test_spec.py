from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from farm.capabilities.engine_spec import EngineSpec, RenderShape, Rung, host_need_bytes, need_bytes
from farm.capabilities.weights import Weights
from farm.capabilities.worker import GIB
from farm.errors import CannotRun
from nodes.engines import table
from nodes.engines.folders import StoredTensor
from nodes.engines.ltx.layout import VAE_DECODER, VAE_ENCODER
from nodes.engines.ltx.spec import ltx_spec

pytestmark = pytest.mark.torch

FULL_SIZES: dict[str, dict[str, Any]] = {
    "2B": {"attention_head_dim": 64, "cross_attention_dim": 2048, "num_layers": 28},
    "13B": {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
}


@pytest.fixture
def changed(tiny_ltx_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """``changed("vae/config.json", key=value)``: a copy of the folder whose file says so."""

    def made(file: str, name: str = "copy", **values: Any) -> Path:
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(tiny_ltx_folder, folder)
        path = folder / file
        config = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(config | values))
        return folder

    return made


@pytest.mark.slow
def test_a_folder_is_known_by_its_configs_and_read_without_torch(tiny_ltx_folder: Path) -> None:
    code = (
        "import sys; from nodes.engines import spec_of; spec = spec_of(sys.argv[1]); "
        "print(spec.engine, sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, str(tiny_ltx_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ltx []"


def test_a_spec_says_what_the_weights_were_trained_for(tiny_ltx_folder: Path, old_ltx_folder: Path) -> None:
    spec = ltx_spec(tiny_ltx_folder, model="tiny")
    assert spec.takes == {"image", "last_image", "keyframes", "prefix", "text", "text_alone", "video"}
    assert spec.untrained == set()
    assert (spec.native_width, spec.native_height, spec.native_fps) == (704, 480, 25)
    assert (spec.window_frames, spec.trained_windows) == (161, (97, 121, 161))
    assert [n for n in range(1, 30) if spec.frames.allows(n)] == [9, 17, 25]
    assert (spec.overlap_frames, spec.keyframe_stride, spec.side_multiple) == (9, 8, 32)
    assert (spec.max_prefix_latents, spec.max_end_latents) == (3, 2)
    assert (spec.default_steps, spec.default_guidance_scale) == (40, 3.0)
    old = ltx_spec(old_ltx_folder, model="old")
    assert old.untrained == {"last_image", "keyframes", "prefix"}


def test_a_distilled_model_is_told_by_its_name_here_and_in_the_hubs_cache(
    changed: Callable[..., Path], tiny_ltx_folder: Path, tmp_path: Path
) -> None:
    saved = changed("model_index.json", _name_or_path="Lightricks/LTX-Video-0.9.8-13B-distilled")
    cached = tmp_path / "models--Lightricks--LTX-Video-0.9.8-13B-distilled" / "snapshots" / "abc"
    shutil.copytree(tiny_ltx_folder, cached)
    for folder in (saved, cached):
        spec = ltx_spec(folder, model="tiny")
        assert (spec.default_steps, spec.default_guidance_scale) == (8, 1.0)
    told = changed("farm.json", "told", sigmas=[1.0, 0.5], default_steps=2, window_frames=97)
    assert ltx_spec(told, model="tiny").window_frames == 97


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("vae/config.json", {"decoder_inject_noise": [True] * 4}, "draws noise of its own while it decodes"),
        ("transformer/config.json", {"patch_size": 2}, "cuts latents into patches"),
        ("transformer/config.json", {"_class_name": "LTX2VideoTransformer3DModel"}, "is LTX2Video"),
        ("scheduler/scheduler_config.json", {"_class_name": "UniPC"}, "is UniPC, expected FlowMatchEuler"),
        ("farm.json", {"window_frames": 100}, "has a window of 100 frames, and this engine renders 9 to 257"),
        ("farm.json", {"windows": [8]}, "has a window of 8 frames"),
        ("farm.json", {"steps": 3}, "steps is not known; known are .*native_width"),
    ],
)
def test_what_this_engine_does_not_run_is_refused_by_name(
    changed: Callable[..., Path], file: str, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(CannotRun, match=words):
        ltx_spec(changed(file, **values), model="tiny")


def test_a_file_in_the_transformers_place_tells_by_its_name_whether_it_is_distilled(
    tiny_ltx_folder: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    base = changed("farm.json")
    shards = list((base / "transformer").glob("*.safetensors"))
    whole = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    for path in shards:
        path.unlink()
    for name, steps in (("ltxv-2b-0.9.8-distilled.safetensors", 8), ("ltxv-2b.safetensors", 40)):
        save_file(whole, tmp_path / name)
        chosen = Weights.model_validate({"files": [str(tmp_path / name)]})
        spec = table.spec_of(str(base), chosen)
        assert spec.default_steps == steps
        plain = ltx_spec(tiny_ltx_folder, model="plain")
        assert spec.component_bytes == plain.component_bytes
        assert [each.weights.format for each in spec.in_fewer_bits] == ["int8", "float8"]


def test_a_folder_of_ltx_2_is_not_claimed(changed: Callable[..., Path]) -> None:
    folder = changed("transformer/config.json", _class_name="LTX2VideoTransformer3DModel")
    ltx = next(family for family in table.FAMILIES if family.name == "ltx")
    assert not ltx.claims(folder)


def test_every_file_that_a_folder_lacks_is_named(changed: Callable[..., Path]) -> None:
    folder = changed("farm.json")
    (folder / "tokenizer" / "spiece.model").unlink()
    next((folder / "vae").glob("*-00002-of-*")).unlink()
    with pytest.raises(CannotRun, match=r"lacks tokenizer/tokenizer\.json, vae/.*-00002-of-"):
        ltx_spec(folder, model="tiny")


def _full_spec(folder: Path, size: str, monkeypatch: pytest.MonkeyPatch) -> EngineSpec:
    """The spec of the published size: its configs and the sizes of its tensors, without their bytes."""
    import torch
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    from tests.nodes.engines.ltx.test_live_bytes import VAE

    text = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "transformer": LTXVideoTransformer3DModel(**FULL_SIZES[size]),
            "vae": AutoencoderKLLTXVideo(**VAE),
            "text_encoder": T5EncoderModel(text),
        }
    for name in ("transformer", "vae"):
        (folder / name / "config.json").write_text(parts[name].to_json_string())
    (folder / "text_encoder" / "config.json").write_text(text.to_json_string())

    def tensors(path: Path, stem: str, half: bool) -> dict[str, StoredTensor]:
        return {
            name: StoredTensor(path, 0, 2 * tensor.numel(), "BF16", tuple(tensor.shape))
            for name, tensor in parts[path.name].named_parameters()
        }

    monkeypatch.setattr("nodes.engines.ltx.spec.component_tensors", tensors)
    monkeypatch.setattr("nodes.engines.folders.sources.component_tensors", tensors)
    return ltx_spec(folder, model=size)


@pytest.mark.parametrize(
    ("size", "needs_gib"),
    [
        ("2B", {"resident": (7.8, 8.3), "evict": (4.7, 5.2), "stream": (2.8, 3.3), "disk": (2.8, 3.3)}),
        ("13B", {"resident": (28.5, 30.0), "evict": (25.5, 27.5), "stream": (2.8, 3.3), "disk": (2.8, 3.3)}),
    ],
)
def test_the_published_sizes_fit_small_cards(
    changed: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    size: str,
    needs_gib: dict[Rung, tuple[float, float]],
) -> None:
    spec = _full_spec(changed("farm.json"), size, monkeypatch)
    shape = RenderShape(num_frames=161, height=480, width=704, num_inference_steps=8, guided=False)
    needs = {rung.name: need_bytes(spec, rung, shape) / GIB for rung in spec.rungs}
    assert needs.keys() == needs_gib.keys()
    for rung, (low, high) in needs_gib.items():
        assert low <= needs[rung] <= high, needs
    guided = shape.model_copy(update={"guided": True})
    assert all(need_bytes(spec, r, guided) == need_bytes(spec, r, shape) for r in spec.rungs)
    text = {rung.name: need_bytes(spec, rung, shape, text=True) / GIB for rung in spec.rungs}
    assert text["resident"] > 9
    assert text["stream"] < 1.5
    disk = spec.rungs[-1]
    vae_bytes = spec.component_bytes[VAE_ENCODER] + spec.component_bytes[VAE_DECODER]
    assert (host_need_bytes(spec, disk), host_need_bytes(spec, disk, text=True)) == (vae_bytes, 0)
    # The stock loop's 0.102 s for a step of the 2B model are on a card of thirteen times the speed.
    step_s = spec.prior_seconds_per_mpixel_step * shape.mpixel_steps / 8
    step_s *= 1 + spec.attention_per_token * 21 * 330
    assert {"2B": 1.0, "13B": 6.0}[size] < step_s < {"2B": 4.0, "13B": 20.0}[size]
    assert 0.1 < spec.decode_steps < 3
