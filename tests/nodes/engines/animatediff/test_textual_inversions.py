"""Words that a text encoder is taught, against diffusers' own loading of the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from farm.capabilities.weights import Weights
from farm.errors import InvalidInput
from farm.planning.prompt_notes import prompt_notes
from nodes.engines.animatediff.engine import AnimateDiff
from nodes.engines.animatediff.layout import DENOISER, TEXT_ENCODER
from nodes.engines.animatediff.spec import animatediff_spec
from nodes.engines.folders import sources_of

pytestmark = pytest.mark.slow


def test_words_are_encoded_as_diffusers_loads_them(tiny_animatediff_folder: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    one, three = (torch.randn(shape, generator=generator) for shape in ((1, 32), (3, 32)))
    save_file({"<cat-toy>": one}, tmp_path / "toy.safetensors")
    save_file({"emb_params": three}, tmp_path / "bad-hands.safetensors")
    style = {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": torch.ones(
            1, 64
        ),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight": torch.ones(64, 1),
    }
    save_file(style, tmp_path / "style.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("toy", "bad-hands", "style")]
    weights = Weights.model_validate({"loras": files})
    spec = animatediff_spec(tiny_animatediff_folder, model="tiny", weights=weights)
    plain = animatediff_spec(tiny_animatediff_folder, model="tiny")
    assert spec.taught_words == ("<cat-toy>", "bad-hands")
    assert spec.component_bytes[TEXT_ENCODER] - plain.component_bytes[TEXT_ENCODER] == 2 * 4 * 32
    engine = AnimateDiff(
        spec,
        tiny_animatediff_folder,
        device="cpu",
        weights=sources_of(weights, (DENOISER,), "tiny")[DENOISER],
    )
    engine.load("resident")
    prompts = ("a <cat-toy> turns", "blurry, bad-hands, red")
    ours = engine.encode(*prompts, known={}, num_frames=1, guidance_scale=4.0).text
    parts: dict[str, Any] = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    stock: Any = StableDiffusionPipeline(
        **parts,
        text_encoder=CLIPTextModel.from_pretrained(tiny_animatediff_folder / "text_encoder").eval(),
        tokenizer=CLIPTokenizer.from_pretrained(tiny_animatediff_folder / "tokenizer"),
        requires_safety_checker=False,
    )
    stock.load_textual_inversion(files[0])
    stock.load_textual_inversion(files[1], token="bad-hands")
    with torch.no_grad():
        theirs = stock.encode_prompt(prompts[0], "cpu", 1, True, negative_prompt=prompts[1])
    assert torch.allclose(ours, torch.cat(theirs[::-1]), atol=1e-4)
    untaught = AnimateDiff(plain, tiny_animatediff_folder, device="cpu")
    untaught.load("resident")
    before = untaught.encode(*prompts, known={}, num_frames=1, guidance_scale=4.0).text
    assert not torch.allclose(ours, before, atol=0.01)
    (told,) = prompt_notes(("a <cat-toy> turns",), spec)
    assert told.startswith("no prompt says bad-hands")
    assert prompt_notes(prompts[:1], spec, negative_prompt=prompts[1]) == ()


@pytest.mark.parametrize(
    ("name", "tensors", "scale", "said"),
    [
        ("wide", {"emb_params": torch.ones(2, 768)}, "", "vectors of 768 numbers, and the text encoder"),
        ("broken", {"emb_params": torch.full((1, 32), torch.nan)}, "", "not finite"),
        ("strong", {"emb_params": torch.ones(1, 32)}, ":0.5", "which has no scale"),
        ("x", {"a": torch.ones(32)}, "", "a word that tiny knows; rename"),
        ("xl", {"clip_g": torch.ones(1, 32), "clip_l": torch.ones(1, 32)}, "", "has no key of a LoRA"),
    ],
)
def test_what_cannot_be_taught_is_refused_when_the_spec_is_read(
    tiny_animatediff_folder: Path,
    tmp_path: Path,
    name: str,
    tensors: dict[str, torch.Tensor],
    scale: str,
    said: str,
) -> None:
    save_file(tensors, tmp_path / f"{name}.safetensors")
    weights = Weights.model_validate({"loras": [f"{tmp_path / name}.safetensors{scale}"]})
    with pytest.raises(InvalidInput, match=said):
        animatediff_spec(tiny_animatediff_folder, model="tiny", weights=weights)
