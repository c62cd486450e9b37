from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import save_file

from farm.capabilities import LoraFile
from nodes.engines.common import read_component, reading
from nodes.engines.folders import WeightSource
from nodes.engines.streaming.weight_ring import WeightRing
from nodes.engines.weights import GgufLinear, ScaledLinear, file_span, read_weights

pytestmark = pytest.mark.torch
STEM = "diffusion_pytorch_model"
TO_Q = "blocks.0.attn1.to_q"


@pytest.fixture
def component(tiny_wan: Callable[..., Path]) -> Path:
    return tiny_wan(attention_head_dim=32, ffn_dim=96, text_dim=32, freq_dim=32)


@pytest.fixture
def q8(tmp_path: Path, component: Path) -> Path:
    writer = gguf.GGUFWriter(tmp_path / "q8.gguf", "wan")
    for name, tensor in WanTransformer3DModel.from_pretrained(component).state_dict().items():
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "q8.gguf"


@pytest.fixture
def lora(tmp_path: Path) -> LoraFile:
    torch.manual_seed(1)
    pair = {f"{TO_Q}.lora_A.weight": torch.randn(2, 64), f"{TO_Q}.lora_B.weight": torch.randn(64, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    return LoraFile(path=tmp_path / "lora.safetensors")


def read(component: Path, source: WeightSource, dtype: torch.dtype = torch.bfloat16) -> Any:
    with reading():
        return read_weights(
            WanTransformer3DModel,
            component,
            source,
            stem=STEM,
            dtype=dtype,
            rename=convert_wan_transformer_to_diffusers,
        )


def run(model: Any, dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(9)
    latents, text = torch.randn(1, 4, 3, 8, 8).to(dtype), torch.randn(1, 5, 32).to(dtype)
    with torch.no_grad():
        out: torch.Tensor = model(latents, torch.tensor([500.0]), text, return_dict=False)[0]
    return out.float()


def test_without_a_choice_a_component_is_the_folders(component: Path) -> None:
    with reading():
        stock = read_component(WanTransformer3DModel, component, stem=STEM, dtype=torch.bfloat16)
    assert torch.equal(run(read(component, WeightSource()), torch.bfloat16), run(stock, torch.bfloat16))
    assert not (component.parent / "farm_weights").exists()


def test_a_format_is_converted_with_its_loras_and_a_gguf_file_stays_as_it_is(
    component: Path, q8: Path, lora: LoraFile
) -> None:
    small = read(component, WeightSource(loras=(lora,), format="int8"))
    assert isinstance(small.blocks[0].attn1.to_q, ScaledLinear)
    assert small.blocks[0].attn1.to_q.lora_down is None
    blocks = read(component, WeightSource(file=q8, loras=(lora,), format="int8"))
    assert isinstance(blocks.blocks[0].attn1.to_q, GgufLinear)
    assert blocks.blocks[0].attn1.to_q.lora_down is not None
    merged = read(component, WeightSource(loras=(lora,)))
    expected = run(merged, torch.bfloat16)
    for model in (small, blocks):
        off = (run(model, torch.bfloat16) - expected).square().mean().sqrt()
        assert off < 0.06 * expected.square().mean().sqrt()


@pytest.mark.parametrize("source", ["plain", "int8", "float8", "gguf"])
def test_every_format_streamed_from_its_files_computes_as_it_does_resident(
    component: Path, q8: Path, source: str
) -> None:
    choice = WeightSource(file=q8) if source == "gguf" else WeightSource(format=source, in_files=True)  # type: ignore[arg-type]
    model = read(component, choice, torch.float32)
    expected = run(model, torch.float32)
    span = file_span(next(model.blocks[0].attn1.to_q.parameters()))
    assert span is not None
    for from_files in (False, True):
        ring = WeightRing(model, "cpu", group_bytes=32 * 2**10, slots=2, from_files=from_files)
        with ring:
            got = run(model, torch.float32)
        ring.detach()
        peak = expected.abs().max()
        assert 20 * torch.log10(peak / (got - expected).square().mean().sqrt().clamp(min=1e-30)) > 50
