from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_wan_transformer_to_diffusers,
)
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from farm.errors import CannotRun
from nodes.engines.common import reading
from nodes.engines.folders import file_tensors, gguf_file
from nodes.engines.streaming.weight_ring import WeightRing
from nodes.engines.weights import GgufLinear, ScaledLinear, converted, load_weights

pytestmark = pytest.mark.torch
WIDE = {"attention_head_dim": 32, "ffn_dim": 96, "text_dim": 32, "freq_dim": 32}


@pytest.fixture
def base(tiny_wan: Callable[..., Path]) -> Path:
    return tiny_wan(**WIDE)


@pytest.fixture
def stock(base: Path) -> Any:
    return WanTransformer3DModel.from_pretrained(base).eval()


def load(path: Path, base: Path, dtype: torch.dtype = torch.float32) -> Any:
    with reading():
        return load_weights(
            WanTransformer3DModel,
            base,
            file_tensors(path),
            dtype=dtype,
            rename=convert_wan_transformer_to_diffusers,
        )


def run(model: Any) -> torch.Tensor:
    torch.manual_seed(9)
    with torch.no_grad():
        out: torch.Tensor = model(
            torch.randn(1, 4, 3, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 32), return_dict=False
        )[0]
    return out


def assert_same(model: Any, stock: Any) -> None:
    # Where a tensor lies in memory may change the last bits of a product on a CPU.
    torch.testing.assert_close(run(model), run(stock), atol=1e-5, rtol=1e-5)


def write_gguf(path: Path, arrays: Mapping[str, tuple[NDArray[Any], str]]) -> None:
    """Tensors by name with the type that each is written in."""
    writer = gguf.GGUFWriter(path, "wan")
    for name, (array, type_name) in arrays.items():
        type_of = gguf.GGMLQuantizationType[type_name]
        writer.add_tensor(name, gguf.quantize(array, type_of), raw_dtype=type_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def quantised_file(tmp_path: Path, stock: Any, of_authors: Callable[[str], str]) -> Path:
    """The stock model as GGUF; it gets the values that the file has."""
    arrays = {}
    for number, (name, tensor) in enumerate(stock.state_dict().items()):
        type_name = ("Q8_0", "Q5_1", "F16", "BF16")[number % 4] if tensor.ndim == 2 else "F32"
        array = tensor.numpy()
        type_of = gguf.GGMLQuantizationType[type_name]
        values = gguf.dequantize(gguf.quantize(array, type_of), type_of)
        tensor.copy_(torch.from_numpy(values.reshape(tensor.shape)))
        # llama.cpp leaves dimensions of one away.
        shape = array.shape[1:] if name.endswith("scale_shift_table") else array.shape
        arrays[of_authors(name)] = (array.reshape(shape), type_name)
    write_gguf(tmp_path / "wan.gguf", arrays)
    return tmp_path / "wan.gguf"


def test_a_gguf_file_of_the_authors_names_computes_what_its_values_do(
    quantised_file: Path, base: Path, stock: Any
) -> None:
    model = load(quantised_file, base)
    assert {type(each) for each in model.modules()} >= {GgufLinear, nn.Linear}
    assert_same(model, stock)


def test_quantised_weights_of_layers_that_are_kept_in_float32_are_float32(
    quantised_file: Path, base: Path
) -> None:
    model = load(quantised_file, base, torch.bfloat16)
    for layer in (
        model.condition_embedder.time_embedder.linear_1,
        model.condition_embedder.time_embedder.linear_2,
    ):
        assert type(layer) is nn.Linear
        assert layer.weight.dtype == torch.float32
    assert model.patch_embedding.weight.dtype == torch.bfloat16


def test_a_gguf_model_passes_through_the_weight_ring_unchanged(quantised_file: Path, base: Path) -> None:
    model = load(quantised_file, base)
    expected = run(model)
    with WeightRing(model, "cpu", group_bytes=32 * 2**10, slots=2):
        assert torch.equal(run(model), expected)


def test_a_header_says_what_a_gguf_file_is_and_how_large(quantised_file: Path, stock: Any) -> None:
    found = gguf_file(quantised_file)
    assert found.architecture == "wan"
    assert len(found.tensors) == len(stock.state_dict())
    patch = found.tensors["patch_embedding.weight"]
    assert (patch.type, patch.shape) == ("F32", tuple(stock.patch_embedding.weight.shape))
    eighths = [t for t in found.tensors.values() if t.type == "Q8_0"]
    assert sum(t.nbytes for t in eighths) == sum(np.prod(t.shape) // 32 * 34 for t in eighths)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("theirs", [True, False], ids=["authors", "diffusers"])
def test_a_single_file_is_read_under_whichever_names_it_has(
    tmp_path: Path, base: Path, stock: Any, of_authors: Callable[[str], str], prefix: str, theirs: bool
) -> None:
    path = tmp_path / "one.safetensors"
    named = {prefix + (of_authors(n) if theirs else n): t for n, t in stock.state_dict().items()}
    save_file(named, path)
    assert_same(load(path, base), stock)


def test_a_float8_file_with_a_scale_for_each_tensor_stays_float8(
    tmp_path: Path, base: Path, stock: Any, of_authors: Callable[[str], str]
) -> None:
    tensors = {}
    for name, tensor in stock.state_dict().items():
        if tensor.ndim == 2:
            scale = tensor.abs().max() / 448
            small = (tensor / scale).to(torch.float8_e4m3fn)
            tensors[of_authors(name)] = small
            tensors[of_authors(name).removesuffix("weight") + "scale_weight"] = scale
            tensor.copy_(small.float() * scale)
        else:
            tensors[of_authors(name)] = tensor
    save_file(tensors, tmp_path / "fp8.safetensors")
    model = load(tmp_path / "fp8.safetensors", base)
    assert isinstance(model.blocks[0].attn1.to_q, ScaledLinear)
    torch.testing.assert_close(run(model), run(stock))
    with reading(), pytest.raises(CannotRun, match="is F8_E4M3, in fewer bits already"):
        converted(
            WanTransformer3DModel,
            base,
            file_tensors(tmp_path / "fp8.safetensors"),
            format="int8",
            dtype=torch.float32,
            rename=convert_wan_transformer_to_diffusers,
        )


def test_single_files_are_converted_each_beside_itself(
    tmp_path: Path, base: Path, stock: Any, of_authors: Callable[[str], str]
) -> None:
    folders = []
    for name in ("high", "low", "high"):
        path = tmp_path / f"{name}.safetensors"
        if not path.exists():
            save_file({of_authors(n): t for n, t in stock.state_dict().items()}, path)
        with reading():
            made = converted(
                WanTransformer3DModel,
                base,
                file_tensors(path),
                format="plain",
                dtype=torch.float32,
                rename=convert_wan_transformer_to_diffusers,
            )
            model = load_weights(WanTransformer3DModel, base, made, dtype=torch.float32)
        assert_same(model, stock)
        folders.append(next(iter(made.values())).path.parent)
    assert folders[0] == folders[2] != folders[1]
    assert all(folder.is_dir() and folder.is_relative_to(tmp_path / "farm_weights") for folder in folders)


def test_the_transformer_of_an_ltx_file_is_taken_out_of_it(tmp_path: Path) -> None:
    torch.manual_seed(2)
    stock = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=16,
    )
    stock.save_pretrained(tmp_path / "transformer")
    theirs = {
        "proj_in": "patchify_proj",
        "time_embed": "adaln_single",
        "norm_q": "q_norm",
        "norm_k": "k_norm",
    }
    tensors = {"vae.encoder.conv_in.weight": torch.zeros(3)}
    for name, tensor in stock.state_dict().items():
        for ours, other in theirs.items():
            name = name.replace(ours, other)
        tensors[f"model.diffusion_model.{name}"] = tensor
    save_file(tensors, tmp_path / "ltx.safetensors")
    with reading():
        model = load_weights(
            LTXVideoTransformer3DModel,
            tmp_path / "transformer",
            file_tensors(tmp_path / "ltx.safetensors"),
            dtype=torch.float32,
            rename=convert_ltx_transformer_checkpoint_to_diffusers,
        )
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert len(model.state_dict()) == len(stock.state_dict())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.gguf", None, "is no file"),
        ("pickle.ckpt", b"x", "ends with .ckpt"),
        ("empty.gguf", b"", "is no GGUF file, or was cut short"),
        ("other.gguf", b"GGML" + bytes(60), "is no GGUF file, or was cut short"),
        (
            "cut.gguf",
            b"GGUF" + bytes([3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]),
            "is no GGUF file, or was cut short",
        ),
        ("other.safetensors", b"x" * 40, "is not a safetensors file"),
    ],
)
def test_what_is_no_weight_file_is_told(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CannotRun, match=said):
        file_tensors(tmp_path / name)


def test_a_gguf_file_that_was_cut_short_is_told(quantised_file: Path) -> None:
    quantised_file.write_bytes(quantised_file.read_bytes()[:-500])
    with pytest.raises(CannotRun, match="is no GGUF file, or was cut short"):
        file_tensors(quantised_file)


def test_a_block_format_that_is_not_known_is_told_with_those_that_are(
    tmp_path: Path, base: Path, stock: Any
) -> None:
    arrays = {name: (tensor.numpy(), "F32") for name, tensor in stock.state_dict().items()}
    path = tmp_path / "odd.gguf"
    write_gguf(path, arrays)
    tensors = file_tensors(path)
    odd = tensors["proj_out.weight"]
    tensors["proj_out.weight"] = type(odd)(odd.path, odd.offset, odd.nbytes, "IQ2_XXS", odd.shape)
    with reading(), pytest.raises(CannotRun, match=r"is IQ2_XXS: known are .*Q4_K"):
        load_weights(WanTransformer3DModel, base, tensors, dtype=torch.float32)
