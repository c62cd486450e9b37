"""A tiny Stable Diffusion 1.5 with a motion adapter and a SparseCtrl in its folder, and an engine of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.planning.render_task import RenderTask
from tests.conftest import TINY_TEXT, TINY_VAE, write_tokenizer
from tests.nodes.engines.conftest import smooth_picture

if TYPE_CHECKING:
    from nodes.engines.animatediff.engine import AnimateDiff

HEIGHT, WIDTH, FRAMES, STEPS = 32, 48, 4, 3

UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}
ADAPTER: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "motion_layers_per_block": 1,
    "motion_norm_num_groups": 8,
    "motion_num_attention_heads": 4,
    "use_motion_mid_block": True,
}
CONTROL: dict[str, Any] = {
    **{name: UNET[name] for name in ("block_out_channels", "layers_per_block", "norm_num_groups")},
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "motion_num_attention_heads": 4,
}
#: Of Stable Diffusion 1.5.
SCHEDULER: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def tiny_parts() -> dict[str, Any]:
    """The models by their folders; what is written as zeros, and would do nothing, is drawn."""
    import torch
    from diffusers import AutoencoderKL, MotionAdapter, SparseControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(13)
        text = CLIPTextConfig(
            vocab_size=516, bos_token_id=514, eos_token_id=515, pad_token_id=515, **TINY_TEXT
        )
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**UNET),
            "motion_adapter": MotionAdapter(**ADAPTER),
            "controlnet": SparseControlNetModel(**CONTROL),
            "vae": AutoencoderKL(**TINY_VAE),
            "text_encoder": CLIPTextModel(text),
        }
        for name, part in parts.items():
            for key, parameter in part.named_parameters():
                if (name == "controlnet" and "controlnet_" in key) or "motion_modules" in key:
                    torch.nn.init.normal_(parameter, std=0.1)
    return parts


def write_tiny_animatediff(folder: Path, *, control: bool = True) -> None:
    """Write the whole folder: seeded random weights, plain in shards and in half precision whole."""
    from diffusers import PNDMScheduler

    folder.mkdir()
    assert write_tokenizer(folder / "tokenizer") == 516
    for name, part in tiny_parts().items():
        if control or name != "controlnet":
            part.half().save_pretrained(folder / name, variant="fp16")
            part.float().save_pretrained(folder / name, max_shard_size="300KB")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def tiny_animatediff_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animatediff") / "tiny"
    write_tiny_animatediff(folder)
    return folder


@pytest.fixture(scope="session")
def _animatediff(tiny_animatediff_folder: Path) -> AnimateDiff:
    from nodes.engines.animatediff.engine import AnimateDiff
    from nodes.engines.animatediff.spec import animatediff_spec

    # Every rung of a card, on a CPU.
    spec = animatediff_spec(tiny_animatediff_folder, model="tiny")
    return AnimateDiff(spec, tiny_animatediff_folder, device="cpu")


@pytest.fixture
def animatediff(_animatediff: AnimateDiff) -> AnimateDiff:
    """The shared engine at its first rung."""
    _animatediff.load("resident")
    return _animatediff


@pytest.fixture(scope="session")
def picture() -> Callable[[int], NDArray[np.uint8]]:
    """``picture(n)``: a smooth picture (H, W, 3), another for every n."""
    return lambda n: smooth_picture(n, HEIGHT, WIDTH)


@pytest.fixture(scope="session")
def task() -> RenderTask:
    return RenderTask(
        model="tiny",
        prompt="the cat turns",
        negative_prompt="blurry",
        frame_indices=tuple(range(FRAMES)),
        shot_start=0,
        shot_end=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        fps=8,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        seed=21,
        handover_index=FRAMES - 1,
    )


def stock_parts(folder: Path) -> dict[str, Any]:
    """What every stock pipeline of AnimateDiff is made of, its scheduler as the documentation has it for
    Stable Diffusion's folders."""
    from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    kinds: dict[str, Any] = {
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "motion_adapter": MotionAdapter,
    }
    scheduler = DDIMScheduler(
        **{name: SCHEDULER[name] for name in ("beta_end", "beta_start", "set_alpha_to_one")},
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="linspace",
        steps_offset=1,
    )
    parts = {name: kind.from_pretrained(folder / name).eval() for name, kind in kinds.items()}
    return parts | {"tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"), "scheduler": scheduler}
