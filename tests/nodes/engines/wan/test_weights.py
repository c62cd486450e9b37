"""A Wan with other weights than its folder's, or kept otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from farm.capabilities import LoraFile, host_need_bytes
from nodes.engines.common import placing
from nodes.engines.engine import RenderInputs
from nodes.engines.folders import WeightFormat
from nodes.engines.wan.engine import Wan
from nodes.engines.wan.spec import wan_spec
from nodes.engines.weights import WeightSource, file_span
from tests.nodes.engines.wan.tiny import picture, window

WanFolder = Callable[[str], Path]


def latents(folder: Path, weights: Mapping[str, WeightSource], rung: Any = "resident") -> torch.Tensor:
    """What a window is denoised to, (C, L, h, w)."""
    engine = Wan(wan_spec(folder, model="tiny a14b"), source=folder, device="cpu", weights=weights)
    engine.load(rung)
    task = window("a14b", handover_index=0, handover_latents=2)
    made = engine.render(task, RenderInputs(image=picture("a14b")), lambda phase, done, total: None)
    return torch.from_numpy(np.asarray(made.handover["latents"]))


def off(made: torch.Tensor, true: torch.Tensor) -> float:
    return float((made - true).square().mean().sqrt() / true.square().mean().sqrt())


@pytest.fixture(scope="module")
def plain(wan_folder: WanFolder) -> torch.Tensor:
    return latents(wan_folder("a14b"), {})


@pytest.fixture
def lora(tmp_path: Path) -> LoraFile:
    """A distinct change of one layer, in the names of Wan's authors."""
    torch.manual_seed(1)
    layer = "diffusion_model.blocks.1.ffn.0"
    pair = {f"{layer}.lora_down.weight": torch.randn(2, 24), f"{layer}.lora_up.weight": torch.randn(32, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    return LoraFile(path=tmp_path / "lora.safetensors")


@pytest.mark.parametrize("format", ["int8", "float8"])
@pytest.mark.parametrize("rung", ["resident", "stream", "disk"])
def test_every_rung_of_a_format_renders_what_the_resident_one_does_and_nearly_what_16_bits_do(
    wan_folder: WanFolder,
    plain: torch.Tensor,
    format: WeightFormat,
    rung: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 1024)
    folder = wan_folder("a14b")
    choice = {name: WeightSource(format=format) for name in ("transformer", "transformer_2")}
    made = latents(folder, choice, rung)
    assert 0 < off(made, plain) < 0.05
    if rung != "resident":
        assert off(made, latents(folder, choice)) < 10 ** (-50 / 20)


def test_a_lora_changes_the_expert_it_is_for(
    wan_folder: WanFolder, plain: torch.Tensor, lora: LoraFile
) -> None:
    folder = wan_folder("a14b")
    names = ("transformer", "transformer_2")
    each = [latents(folder, {name: WeightSource(loras=(lora,))}) for name in names]
    assert off(each[0], plain) > 1e-3
    assert off(each[1], plain) > 1e-3
    assert off(each[0], each[1]) > 1e-3
    weak = WeightSource(loras=(LoraFile(path=lora.path, scale=0.0),))
    assert off(latents(folder, {"transformer": weak}), plain) < 1e-5


def test_a_gguf_file_takes_an_experts_place(
    wan_folder: WanFolder, plain: torch.Tensor, lora: LoraFile, tmp_path: Path
) -> None:
    folder = wan_folder("a14b")
    path = tmp_path / "low.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in WanTransformer3DModel.from_pretrained(folder / "transformer_2").state_dict().items():
        fits = tensor.ndim == 2 and tensor.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if fits else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert 0 < off(latents(folder, {"transformer_2": WeightSource(file=path)}), plain) < 0.05
    high = latents(folder, {"transformer": WeightSource(file=path)})  # the other expert's weights
    assert off(high, plain) > 0.05
    assert off(latents(folder, {"transformer_2": WeightSource(file=path, loras=(lora,))}), plain) > 1e-3


def test_weights_wait_in_their_files_at_the_disk_rung_and_need_no_memory_there(
    wan_folder: WanFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.engines.wan.spec._OWN_TASK_BYTES", 0)  # as with a large encoder
    folder = wan_folder("a14b")
    spec = wan_spec(folder, model="tiny a14b")
    needs = {rung.name: host_need_bytes(spec, rung) for rung in spec.rungs}
    texts = {rung.name: host_need_bytes(spec, rung, text=True) for rung in spec.rungs}
    assert needs["stream"] > 2 * spec.component_bytes["transformer"]
    assert needs["disk"] == spec.component_bytes["vae"]
    assert (texts["stream"] > 0, texts["disk"]) == (True, 0)
    engine = Wan(spec, source=folder, device="cpu", dtype=torch.bfloat16)
    engine.load("stream")  # into memory: the files are in float32
    assert not any(layers_in_files(engine))
    engine.load("disk")
    assert all(layers_in_files(engine))
    assert len(list((folder / "farm_weights" / "transformer_2").glob("plain-bfloat16-*"))) == 1
    task = window("a14b")
    made = engine.render(task, RenderInputs(image=picture("a14b")), lambda phase, done, total: None)
    assert len(made.frames) == task.num_frames
    assert all(layers_in_files(engine))


def layers_in_files(engine: Wan) -> list[bool]:
    experts = [engine._held.placed.model.components[name] for name in ("transformer", "transformer_2")]
    return [file_span(expert.stock.blocks[0].ffn.net[2].weight) is not None for expert in experts]
