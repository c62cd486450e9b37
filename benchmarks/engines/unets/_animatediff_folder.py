"""A folder of AnimateDiff of the published sizes, in the hub's layout, with random weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, MotionAdapter, PNDMScheduler, SparseControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.engines._full_size import write_component
from benchmarks.engines.unets._svd_folder import VISION

_TYPES = {
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, **_TYPES}
#: Of version 3.
ADAPTER: dict[str, Any] = {"use_motion_mid_block": False}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
TINY_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 24,
}
#: The folder with an IP-Adapter.
LOOKING = "look"
_SMALL = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
TINY: dict[str, dict[str, Any]] = {
    "unet": {
        **_SMALL,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "motion_adapter": {
        "block_out_channels": (32, 64),
        "motion_layers_per_block": 1,
        "motion_norm_num_groups": 8,
        "motion_num_attention_heads": 4,
        "use_motion_mid_block": False,
    },
    "controlnet": {
        **_SMALL,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "motion_num_attention_heads": 4,
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    },
    "vae": {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    },
    "text": {
        "vocab_size": 600,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
}


def write_folder(home: Path, name: str, *, tiny: bool) -> Path:
    """What is missing of a folder: Stable Diffusion 1.5 with an adapter and a SparseCtrl in it; of the one
    called ``look`` also an IP-Adapter, beside links to the parts of ``square``."""
    folder = home / name
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float32 if tiny else torch.bfloat16
    if name == LOOKING:
        for part in write_folder(home, "square", tiny=tiny).iterdir():
            if not (folder / part.name).exists():
                (folder / part.name).symlink_to(part.resolve())
        _write_look(folder, dtype, tiny=tiny)
        return folder
    parts: dict[str, tuple[Any, dict[str, Any]]] = {
        "unet": (UNet2DConditionModel, UNET),
        "motion_adapter": (MotionAdapter, ADAPTER),
        "controlnet": (SparseControlNetModel, {}),
        "vae": (AutoencoderKL, VAE),
    }
    for part, (kind, settings) in parts.items():
        make = partial(kind, **(TINY[part] if tiny else settings))
        write_component(folder / part, make, None, dtype, stem="diffusion_pytorch_model")
    text = CLIPTextConfig(**(TINY["text"] if tiny else TEXT))
    write_component(folder / "text_encoder", partial(CLIPTextModel, text), text, dtype, stem="model")
    _write_tokenizer(folder / "tokenizer")
    scheduler: Any = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write_look(folder: Path, dtype: torch.dtype, *, tiny: bool) -> None:
    """The plain IP-Adapter for Stable Diffusion 1.5, and the CLIP ViT-H that sees for it."""
    vision = CLIPVisionConfig(**(TINY_VISION if tiny else VISION))
    make = partial(CLIPVisionModelWithProjection, vision)
    write_component(folder / "image_encoder", make, vision, dtype, stem="model")
    file = folder / "ip_adapter" / "ip-adapter_sd15.safetensors"
    if file.exists():
        return
    file.parent.mkdir(exist_ok=True)
    text = TINY["unet"]["cross_attention_dim"] if tiny else 768
    # Of attention to prompts, on the way down, in the middle and on the way up, as wide as its level.
    widths = (
        (32, 32, 32, 64)
        if tiny
        else (320, 320, 640, 640, 1280, 1280, 1280, *(1280,) * 3, *(640,) * 3, *(320,) * 3)
    )
    if not tiny:
        widths = (*widths[:6], *widths[7:], widths[6])  # the middle comes last
    tensors = {
        f"ip_adapter.{2 * i + 1}.to_{part}_ip.weight": 0.02 * torch.randn(width, text)
        for i, width in enumerate(widths)
        for part in "kv"
    }
    seen = vision.projection_dim
    tensors["image_proj.proj.weight"] = 0.02 * torch.randn(4 * text, seen)
    tensors["image_proj.proj.bias"] = torch.zeros(4 * text)
    tensors["image_proj.norm.weight"], tensors["image_proj.norm.bias"] = torch.ones(text), torch.zeros(text)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, file)


def _write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer that spells letters."""
    folder.mkdir(exist_ok=True)
    letters = [chr(c) for c in range(33, 127)]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "th</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h</w>\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {
        **ends,
        "pad_token": "<|endoftext|>",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
