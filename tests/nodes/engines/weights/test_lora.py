from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import save_file
from torch import nn

from farm.capabilities import LoraFile
from farm.errors import CannotRun, InvalidInput
from nodes.engines.common import reading
from nodes.engines.folders import WeightFormat, component_tensors, file_tensors
from nodes.engines.streaming.weight_ring import WeightRing
from nodes.engines.weights import QuantisedLinear, converted, load_weights

pytestmark = pytest.mark.torch
STEM = "diffusion_pytorch_model"
LAYERS = ["blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.1.ffn.net.0.proj", "proj_out"]


@pytest.fixture
def component(tiny_wan: Callable[..., Path]) -> Path:
    return tiny_wan(attention_head_dim=32, ffn_dim=96, text_dim=32, freq_dim=32)


@pytest.fixture
def stock(component: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = WanTransformer3DModel.from_pretrained(component).state_dict()
    return state


def load(component: Path, loras: Sequence[LoraFile], dtype: torch.dtype = torch.float32) -> Any:
    with reading():
        return load_weights(
            WanTransformer3DModel,
            component,
            component_tensors(component, STEM, half=True),
            dtype=dtype,
            rename=convert_wan_transformer_to_diffusers,
            loras=loras,
        )


def convert(
    component: Path, loras: Sequence[LoraFile], format: WeightFormat, dtype: torch.dtype = torch.float32
) -> Any:
    with reading():
        made = converted(
            WanTransformer3DModel,
            component,
            component_tensors(component, STEM, half=True),
            format=format,
            dtype=dtype,
            rename=convert_wan_transformer_to_diffusers,
            loras=loras,
        )
        return load_weights(WanTransformer3DModel, component, made, dtype=dtype)


def pairs(stock: dict[str, torch.Tensor], rank: int = 3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of each layer, down and up."""
    torch.manual_seed(4)
    shapes = {layer: stock[f"{layer}.weight"].shape for layer in LAYERS}
    return {
        layer: (torch.randn(rank, shape[1]) / 8, torch.randn(shape[0], rank) / 8)
        for layer, shape in shapes.items()
    }


def run(model: Any) -> torch.Tensor:
    torch.manual_seed(9)
    with torch.no_grad():
        out: torch.Tensor = model(
            torch.randn(1, 4, 3, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 32), return_dict=False
        )[0]
    return out


KeysOf = Callable[[str, Callable[[str], str]], tuple[str, str, str]]
FORMS: dict[str, KeysOf] = {
    "peft": lambda name, _: (f"transformer.{name}.lora_A.weight", f"transformer.{name}.lora_B.weight", ""),
    "adapter": lambda name, _: (
        f"base_model.model.{name}.lora_A.default.weight",
        f"base_model.model.{name}.lora_B.default.weight",
        "",
    ),
    "authors": lambda name, theirs: (
        f"diffusion_model.{theirs(name + '.')}lora_down.weight",
        f"diffusion_model.{theirs(name + '.')}lora_up.weight",
        f"diffusion_model.{theirs(name + '.')}alpha",
    ),
    "kohya": lambda name, theirs: (
        f"lora_unet_{theirs(name + '.').rstrip('.').replace('.', '_')}.lora_down.weight",
        f"lora_unet_{theirs(name + '.').rstrip('.').replace('.', '_')}.lora_up.weight",
        f"lora_unet_{theirs(name + '.').rstrip('.').replace('.', '_')}.alpha",
    ),
    "kohya of diffusers": lambda name, _: (
        f"lora_transformer_{name.replace('.', '_')}.lora_down.weight",
        f"lora_transformer_{name.replace('.', '_')}.lora_up.weight",
        f"lora_transformer_{name.replace('.', '_')}.alpha",
    ),
}


def write(
    path: Path,
    stock: dict[str, torch.Tensor],
    theirs: Callable[[str], str],
    form: str = "peft",
    alpha: float = 6.0,
) -> LoraFile:
    tensors = {}
    for layer, (down, up) in pairs(stock).items():
        keys = FORMS[form](layer, theirs)
        tensors |= {keys[0]: down, keys[1]: up}
        if keys[2]:
            tensors[keys[2]] = torch.tensor(alpha)
    save_file(tensors, path)
    return LoraFile(path=path)


@pytest.mark.parametrize("form", FORMS)
def test_a_lora_is_merged_whatever_form_its_keys_have(
    tmp_path: Path,
    component: Path,
    stock: dict[str, torch.Tensor],
    of_authors: Callable[[str], str],
    form: str,
) -> None:
    file = write(tmp_path / "lora.safetensors", stock, of_authors, form)
    model = load(component, [LoraFile(path=file.path, scale=0.5)])
    scale = 0.5 * (6 / 3 if "lora_A" not in str(FORMS[form]("x", of_authors)) else 1)
    expected = dict(stock)
    for layer, (down, up) in pairs(stock).items():
        expected[f"{layer}.weight"] = stock[f"{layer}.weight"] + scale * up @ down
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


def test_several_loras_add_up_and_are_rounded_once(
    tmp_path: Path, component: Path, stock: dict[str, torch.Tensor], of_authors: Callable[[str], str]
) -> None:
    one = write(tmp_path / "one.safetensors", stock, of_authors)
    two = write(tmp_path / "two.safetensors", stock, of_authors, "authors")
    model = load(component, [one, LoraFile(path=two.path, scale=-0.25)], torch.bfloat16)
    for layer, (down, up) in pairs(stock).items():
        whole = stock[f"{layer}.weight"] + up @ down + -0.25 * 2 * up @ down
        assert (model.get_submodule(layer).weight - whole).abs().max() <= whole.abs().max() * 2**-8
        assert model.get_submodule(layer).weight.dtype == torch.bfloat16


def test_differences_of_weights_biases_norms_and_modulation_are_added(
    tmp_path: Path, component: Path, stock: dict[str, torch.Tensor]
) -> None:
    changed = {
        "blocks.0.self_attn.q.diff_b": "blocks.0.attn1.to_q.bias",
        "blocks.0.norm3.diff": "blocks.0.norm2.weight",
        "blocks.0.norm3.diff_b": "blocks.0.norm2.bias",
        "blocks.1.self_attn.norm_k.diff": "blocks.1.attn1.norm_k.weight",
        "head.head.diff": "proj_out.weight",
        "blocks.1.diff_m": "blocks.1.scale_shift_table",
        "patch_embedding.diff": "patch_embedding.weight",
    }
    torch.manual_seed(7)
    values = {key: torch.randn(stock[name].shape) for key, name in changed.items()}
    values["blocks.1.diff_m"] = values["blocks.1.diff_m"].squeeze(0)
    path = tmp_path / "diff.safetensors"
    save_file({f"diffusion_model.{key}": value for key, value in values.items()}, path)
    double = [LoraFile(path=path, scale=2.0)]
    for model in (load(component, double), convert(component, double, "plain")):
        state = model.state_dict()
        for key, name in changed.items():
            torch.testing.assert_close(state[name], stock[name] + 2 * values[key].view(stock[name].shape))
        assert sum(not torch.equal(state[name], stock[name]) for name in stock) == len(changed)


def test_a_lora_is_merged_before_a_conversion_which_is_one_of_its_own(
    tmp_path: Path, component: Path, stock: dict[str, torch.Tensor], of_authors: Callable[[str], str]
) -> None:
    file = write(tmp_path / "lora.safetensors", stock, of_authors, "authors")
    merged = load(component, [file])
    assert torch.equal(convert(component, [file], "plain").proj_out.weight, merged.proj_out.weight)
    small = convert(component, [file], "int8")
    for layer in LAYERS:
        weight = merged.get_submodule(layer).weight
        assert (small.get_submodule(layer).weight - weight).abs().max() <= weight.abs().max() / 127 * 0.51
    without = convert(component, [], "int8")
    assert not torch.equal(without.proj_out.weight, small.proj_out.weight)
    place = component.parent / "farm_weights" / "transformer"
    convert(component, [LoraFile(path=file.path, scale=0.5)], "int8")
    assert len(list(place.glob("int8-float32-*"))) == 3
    write(file.path, stock, of_authors, "authors", alpha=3.0)
    convert(component, [file], "int8")
    assert len(list(place.glob("int8-float32-*"))) == 4


@pytest.fixture
def q8(tmp_path: Path, stock: dict[str, torch.Tensor]) -> Path:
    writer = gguf.GGUFWriter(tmp_path / "q8.gguf", "wan")
    for name, tensor in stock.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "q8.gguf"


def test_beside_blocks_of_a_gguf_file_loras_are_one_branch_and_computed_with(
    tmp_path: Path,
    component: Path,
    q8: Path,
    stock: dict[str, torch.Tensor],
    of_authors: Callable[[str], str],
) -> None:
    one = write(tmp_path / "one.safetensors", stock, of_authors, "kohya")
    two = LoraFile(path=write(tmp_path / "two.safetensors", stock, of_authors).path, scale=-0.5)
    rename = convert_wan_transformer_to_diffusers
    with reading():
        model: Any = load_weights(
            WanTransformer3DModel,
            component,
            file_tensors(q8),
            dtype=torch.float32,
            rename=rename,
            loras=[one, two],
        )
        merged: Any = load_weights(
            WanTransformer3DModel, component, file_tensors(q8), dtype=torch.float32, rename=rename
        )
    for layer, (down, up) in pairs(stock).items():
        small = model.get_submodule(layer)
        assert isinstance(small, QuantisedLinear)
        assert small.lora_down is not None
        assert small.lora_down.shape[0] == 2 * 3
        plain = nn.Linear(small.in_features, small.out_features)
        plain.bias = small.bias
        plain.weight = nn.Parameter(small.weight + 1.5 * up @ down, requires_grad=False)
        path, _, leaf = layer.rpartition(".")
        setattr(merged.get_submodule(path), leaf, plain)
    expected = run(merged)
    torch.testing.assert_close(run(model), expected, atol=1e-4, rtol=1e-4)
    with WeightRing(model, "cpu", group_bytes=32 * 2**10, slots=2):
        torch.testing.assert_close(run(model), expected, atol=1e-4, rtol=1e-4)


def test_a_whole_difference_beside_a_weight_in_fewer_bits_is_refused(
    tmp_path: Path, component: Path, q8: Path, stock: dict[str, torch.Tensor]
) -> None:
    save_file({"proj_out.diff": torch.zeros(stock["proj_out.weight"].shape)}, tmp_path / "diff.safetensors")
    with reading(), pytest.raises(InvalidInput, match=r"proj_out\.weight by a whole difference.*16 bits"):
        load_weights(
            WanTransformer3DModel,
            component,
            file_tensors(q8),
            dtype=torch.float32,
            loras=[LoraFile(path=tmp_path / "diff.safetensors")],
        )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["blocks.7.attn1.to_q.lora_A.weight", "blocks.7.attn1.to_q.lora_B.weight"],
         r"2 of the 4 keys of .* match no layer of the model \(blocks\.7\.attn1\.to_q\.lora_A\.weight"),
        (["proj_out.lora_A.weight"], r"1 of the 3 keys .*\(proj_out\.lora_A\.weight"),
        (["proj_out.dora_scale"], r"1 of the 3 keys .*\(proj_out\.dora_scale.*no LoRA of a form"),
        (["lora_te_text_model_0_q.lora_down.weight"], r"1 of the 3 keys .*lora_te_text"),
        (["lora_unet_blocks_7_self_attn_q.lora_down.weight"], r"1 of the 3 keys .*blocks_7_self_attn_q"),
        (["proj_out.lora_A.weight", "proj_out.lora_B.weight"],
         r"changes proj_out\.weight by \(3, 3\) x \(3, 3\), but the model's is \(16, 64\)"),
        (["proj_out.diff_b"], r"changes proj_out\.bias by \(3, 3\), but the model's is \(16,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_one_error_that_names_it(
    tmp_path: Path, component: Path, stock: dict[str, torch.Tensor], keys: list[str], said: str
) -> None:
    name = "blocks.0.attn1.to_k"
    fits = {f"{name}.lora_A.weight": torch.zeros(3, 64), f"{name}.lora_B.weight": torch.zeros(64, 3)}
    path = tmp_path / "lora.safetensors"
    save_file({**fits, **{key: torch.zeros(3, 3) for key in keys}}, path)
    for act in (
        lambda: load(component, [LoraFile(path=path)]),
        lambda: convert(component, [LoraFile(path=path)], "int8"),
    ):
        with pytest.raises(InvalidInput, match=said) as told:
            act()
        assert told.value.param == "loras"


def test_a_lora_that_is_not_there_is_told_before_anything_is_converted(
    component: Path, tmp_path: Path
) -> None:
    with pytest.raises(CannotRun, match=r"none\.safetensors is no file"):
        convert(component, [LoraFile(path=tmp_path / "none.safetensors")], "int8")
