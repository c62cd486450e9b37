"""Checkpoints in one file and LoRAs, as people have them, in place of or added to a folder's weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.capabilities.weights import Weights
from farm.errors import CannotRun, InvalidInput
from nodes.engines.animatediff.layout import DENOISER, TEXT_ENCODER
from nodes.engines.animatediff.loading import read_model
from nodes.engines.animatediff.spec import animatediff_spec
from nodes.engines.folders import WeightSource, sources_of
from nodes.engines.table import spec_of
from nodes.engines.weights.layers import ScaledLinear

#: Of the tiny U-Net, as Stable Diffusion's authors name them.
_AUTHORS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "down_blocks.0.resnets.0.": "input_blocks.1.0.",
    "down_blocks.0.attentions.0.": "input_blocks.1.1.",
    "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.",
    "down_blocks.1.resnets.0.": "input_blocks.3.0.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
    "up_blocks.0.resnets.0.": "output_blocks.0.0.",
    "up_blocks.0.resnets.1.": "output_blocks.1.0.",
    "up_blocks.0.upsamplers.0.conv.": "output_blocks.1.1.conv.",
    "up_blocks.1.resnets.0.": "output_blocks.2.0.",
    "up_blocks.1.attentions.0.": "output_blocks.2.1.",
    "up_blocks.1.resnets.1.": "output_blocks.3.0.",
    "up_blocks.1.attentions.1.": "output_blocks.3.1.",
}
_IN_RESNETS = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}


def _as_authors_name_it(name: str) -> str:
    ours = next(each for each in _AUTHORS if name.startswith(each))
    rest = name.removeprefix(ours)
    if ".resnets." in ours:
        inner = next(each for each in _IN_RESNETS if rest.startswith(each))
        rest = _IN_RESNETS[inner] + rest.removeprefix(inner)
    return _AUTHORS[ours] + rest


@pytest.fixture(scope="module")
def unet(tiny_animatediff_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(tiny_animatediff_folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")


@pytest.fixture(scope="module")
def plain(tiny_animatediff_folder: Path) -> dict[str, Any]:
    """The folder's components as they are."""
    return _read(tiny_animatediff_folder, WeightSource())


def _read(folder: Path, source: WeightSource) -> dict[str, Any]:
    return read_model(folder, dtype=torch.float32, attention="sdpa", weights=source).components


def test_a_checkpoint_in_one_file_takes_the_place_of_the_unets_weights(
    tiny_animatediff_folder: Path, tmp_path: Path, unet: dict[str, torch.Tensor], plain: dict[str, Any]
) -> None:
    folder = shutil.copytree(
        tiny_animatediff_folder,
        tmp_path / "base",
        ignore=lambda path, names: [
            name for name in names if Path(path).name == "unet" and name.endswith(".safetensors")
        ],
    )
    file = tmp_path / "style.safetensors"
    tensors = {f"model.diffusion_model.{_as_authors_name_it(name)}": 2 * t for name, t in unet.items()}
    # What such files hold beside it.
    tensors |= {"first_stage_model.x": torch.zeros(3), "cond_stage_model.y": torch.zeros(3)}
    save_file({**tensors, "alphas_cumprod": torch.zeros(1000)}, file)
    with pytest.raises(CannotRun, match="lacks unet/diffusion_pytorch_model"):
        animatediff_spec(folder, model="tiny")
    weights = Weights.model_validate({"files": [str(file)]})
    spec = animatediff_spec(folder, model="tiny", weights=weights)
    whole = animatediff_spec(tiny_animatediff_folder, model="tiny")
    assert spec.component_bytes == whole.component_bytes
    assert spec.weights == weights
    before = plain[DENOISER].state_dict()
    made = _read(folder, sources_of(weights, (DENOISER,), "tiny")[DENOISER])[DENOISER].state_dict()
    assert made.keys() == before.keys()
    for name, tensor in made.items():
        is_of_unet = name.startswith("unet.") and "motion" not in name
        assert torch.allclose(tensor, (2 if is_of_unet else 1) * before[name], atol=1e-2), name


@pytest.mark.slow
def test_loras_of_pictures_and_of_motion_change_unet_and_text_encoder(
    tiny_animatediff_folder: Path, tmp_path: Path, plain: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(1)

    def pair(prefix: str, ends: tuple[str, str], width: int) -> dict[str, torch.Tensor]:
        down, up = (torch.randn(shape, generator=generator) for shape in ((2, width), (width, 2)))
        return {f"{prefix}{ends[0]}.weight": down, f"{prefix}{ends[1]}.weight": up}

    kohya, dotted = (".lora_down", ".lora_up"), (".lora.down", ".lora.up")
    style = {
        **pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", kohya, 32),
        **pair("lora_te_text_model_encoder_layers_0_self_attn_q_proj", kohya, 32),
    }
    motion = pair("unet.down_blocks.1.motion_modules.0.transformer_blocks.0.attn2.to_k", dotted, 64)
    save_file(style, tmp_path / "style.safetensors")
    save_file(motion, tmp_path / "motion.safetensors")
    asked = [f"{tmp_path / 'style.safetensors'}:0.5", str(tmp_path / "motion.safetensors")]
    weights = Weights.model_validate({"loras": asked})
    assert spec_of(str(tiny_animatediff_folder), weights).engine == "animatediff"
    made = _read(tiny_animatediff_folder, sources_of(weights, (DENOISER,), "tiny")[DENOISER])
    changed = {
        f"{component} {name}": tensor - plain[component].state_dict()[name]
        for component in (DENOISER, TEXT_ENCODER)
        for name, tensor in made[component].state_dict().items()
        if not torch.equal(tensor, plain[component].state_dict()[name])
    }
    expected = {
        r"denoiser unet\.down\.0\.attentions\.0\..*attn1\.to_q\.weight": (style, "lora_unet", 0.5),
        r"denoiser unet\.down\.1\.motions\.0\..*attn2\.to_k\.weight": (motion, "unet", 1.0),
        r"text_encoder .*encoder\.layers\.0\.self_attn\.q_proj\.weight": (style, "lora_te", 0.5),
    }
    assert len(changed) == len(expected)
    for pattern, (tensors, prefix, scale) in expected.items():
        found = next(value for name, value in changed.items() if re.fullmatch(pattern, name))
        down, up = (t for name, t in sorted(tensors.items()) if name.startswith(prefix))
        assert torch.allclose(found, scale * up @ down, atol=1e-4)


def test_what_does_not_fit_is_refused_when_the_spec_is_read(
    tiny_animatediff_folder: Path, tmp_path: Path, unet: dict[str, torch.Tensor]
) -> None:
    def asked(**weights: Any) -> None:
        animatediff_spec(tiny_animatediff_folder, model="tiny", weights=Weights.model_validate(weights))

    other = tmp_path / "other.safetensors"
    save_file({f"{name}.other": t[:7].clone() for name, t in unet.items()}, other)
    with pytest.raises(InvalidInput, match="made for another model"):
        asked(files=[str(other)])
    down, up = torch.ones(2, 99), torch.ones(99, 2)
    wide = {"lora_unet_x.lora_down.weight": down, "lora_unet_x.lora_up.weight": up}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(InvalidInput, match="changes a matrix of 99x99"):
        asked(loras=[str(tmp_path / "wide.safetensors")])


@pytest.mark.parametrize(("format", "most"), [("int8", 0.02), ("float8", 0.08)])
def test_linear_layers_of_unet_and_sparsectrl_are_kept_in_fewer_bits(
    tiny_animatediff_folder: Path, tmp_path: Path, plain: dict[str, Any], format: str, most: float
) -> None:
    folder = shutil.copytree(tiny_animatediff_folder, tmp_path / "model")
    weights = Weights.model_validate({"format": format})
    spec, whole = (animatediff_spec(folder, model="tiny", weights=each) for each in (weights, Weights()))
    assert [each.weights.format for each in whole.in_fewer_bits] == ["int8", "float8"]
    made = _read(folder, sources_of(weights, (DENOISER,), "tiny")[DENOISER])[DENOISER]
    held = {id(t): t.nbytes for t in made.state_dict(keep_vars=True).values()}
    assert spec.on("cpu").component_bytes[DENOISER] == pytest.approx(sum(held.values()), rel=0.02)
    assert spec.component_bytes[DENOISER] < 0.8 * whole.component_bytes[DENOISER]
    inputs = (torch.ones(2, 4, 8, 8), torch.tensor(5.0), torch.ones(1, 7, 32), torch.ones(2, 5, 8, 8))
    assert {module.format for module in made.modules() if isinstance(module, ScaledLinear)} == {format}
    with torch.no_grad():
        expected, got = plain[DENOISER](*inputs), made(*inputs)
    assert 0 < float((got - expected).square().mean() / expected.square().mean()) ** 0.5 < most
