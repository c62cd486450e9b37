"""Folders of Stable Video Diffusion of the published sizes, in the hub's layout, with random weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.engines._full_size import write_component

SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
UNET = {"sample_size": 96, "num_attention_heads": (5, 10, 20, 20)}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "layers_per_block": 2,
}
#: ViT-H, by which IP-Adapters of AnimateDiff see too.
VISION = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}
TINY = {
    "unet": {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "num_attention_heads": (2, 4),
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96,
    },
    "vae": {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "layers_per_block": 1,
    },
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "patch_size": 56,
        "projection_dim": 32,
    },
}
#: Of a window, as the UNet's config says it.
FRAMES = {"svd": 14, "xt": 25}


def write_folder(home: Path, name: str, *, tiny: bool) -> Path:
    """What is missing of a folder in the hub's layout; the parts that both share are links."""
    folder = home / name
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float32 if tiny else torch.bfloat16
    settings = {"num_frames": FRAMES[name], **(TINY["unet"] if tiny else UNET)}
    stem = "diffusion_pytorch_model"
    write_component(
        folder / "unet", lambda: UNetSpatioTemporalConditionModel(**settings), None, dtype, stem=stem
    )
    vae = TINY["vae"] if tiny else VAE
    write_component(home / "vae", lambda: AutoencoderKLTemporalDecoder(**vae), None, dtype, stem=stem)
    config = CLIPVisionConfig(**(TINY["vision"] if tiny else VISION))
    encoder = partial(CLIPVisionModelWithProjection, config)
    write_component(home / "image_encoder", encoder, config, dtype, stem="model")
    for part in ("vae", "image_encoder"):
        if not (folder / part).is_symlink():
            (folder / part).symlink_to((home / part).resolve(), target_is_directory=True)
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    index = {
        "_class_name": "StableVideoDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
