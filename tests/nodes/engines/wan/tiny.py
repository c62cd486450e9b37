"""Tiny models of Wan's classes with random weights, in the files of the published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.planning.render_task import RenderTask

TOKENIZER = Path(__file__).parents[4] / "models" / "tiny_wan" / "tokenizer"
#: What each folder is: its pipeline's name, its experts, its VAE.
KINDS = ("a14b", "ti2v", "vace")
TEXT_WIDTH = 16
FRAMES, STEPS = 9, 4
#: Height and width of a window; TI2V's VAE halves the size once more.
SIZES = {"a14b": (32, 48), "ti2v": (32, 64), "vace": (32, 48)}


def write_tiny_wan(folder: Path, kind: str, *, shard: str = "150KB") -> None:
    """A model folder of about 0.2 M parameters."""
    import torch
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanTransformer3DModel,
        WanVACETransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(KINDS.index(kind))
    latent = 4
    vae: dict[str, Any] = {
        "base_dim": 8,
        "z_dim": latent,
        "dim_mult": [1, 2, 2, 2],
        "num_res_blocks": 1,
        "latents_mean": [0.1 * i for i in range(latent)],
        "latents_std": [0.5 + 0.2 * i for i in range(latent)],
    }
    if kind == "ti2v":
        vae |= {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
        vae |= {"scale_factor_spatial": 16, "decoder_base_dim": 8}
    transformer: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 2 * latent + 4 if kind == "a14b" else latent,
        "out_channels": latent,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 3,
        "rope_max_seq_len": 32,
    }
    experts = ["transformer", "transformer_2"] if kind == "a14b" else ["transformer"]
    for expert in experts:
        model = (
            WanVACETransformer3DModel(**transformer, vace_layers=[0, 2], vace_in_channels=2 * latent + 64)
            if kind == "vace"
            else WanTransformer3DModel(**transformer)
        )
        for block in getattr(model, "vace_blocks", []):
            torch.nn.init.normal_(block.proj_out.weight, std=0.2)
        model.save_pretrained(folder / expert, max_shard_size=shard)
    autoencoder = AutoencoderKLWan(**vae)
    autoencoder.save_pretrained(folder / "vae")
    text = UMT5Config(
        vocab_size=1600, d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0
    )
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    ).save_pretrained(folder / "scheduler")
    class_name = {"a14b": "WanImageToVideoPipeline", "ti2v": "WanPipeline", "vace": "WanVACEPipeline"}[kind]
    transformer_class = "WanVACETransformer3DModel" if kind == "vace" else "WanTransformer3DModel"
    index: dict[str, Any] = {
        "_class_name": class_name,
        "_diffusers_version": "0.35.0",
        "boundary_ratio": 0.9 if kind == "a14b" else None,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", transformer_class],
        "transformer_2": ["diffusers", transformer_class] if kind == "a14b" else [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    if kind == "ti2v":
        index["expand_timesteps"] = True
    if kind == "a14b":
        index |= {"image_encoder": [None, None], "image_processor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))


def picture(kind: str, number: int = 0) -> NDArray[np.uint8]:
    """A smooth picture of the kind's size, each number another."""
    height, width = SIZES[kind]
    across = np.linspace(0, 3 + number, width)[None, :, None]
    down = np.linspace(0, 2, height)[:, None, None]
    waves = np.sin(across + down * np.array([1.0, 1.7, 2.3]) + number) * 110 + 120
    return waves.astype(np.uint8)


def window(kind: str, **changes: Any) -> RenderTask:
    """A guided task of nine frames."""
    height, width = SIZES[kind]
    task = RenderTask(
        model=f"tiny {kind}",
        prompt="the “camera”  pans&amp;tilts right",
        negative_prompt="a blur",
        frame_indices=tuple(range(FRAMES)),
        shot_start=0,
        shot_end=FRAMES,
        height=height,
        width=width,
        fps=16,
        num_inference_steps=STEPS,
        guidance_scale=3.5,
        seed=21,
    )
    return task.model_copy(update=changes)
