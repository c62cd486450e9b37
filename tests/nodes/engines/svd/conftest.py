"""A tiny Stable Video Diffusion of the real one's classes, in the files of the hub, and an engine of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.planning.render_task import RenderTask

if TYPE_CHECKING:
    from nodes.engines.svd.engine import StableVideoDiffusion

HEIGHT, WIDTH, FRAMES, STEPS = 32, 48, 3, 3

UNET: dict[str, Any] = {
    "sample_size": 16,
    "num_frames": 14,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "num_attention_heads": (2, 4),
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
}
VAE: dict[str, Any] = {
    "block_out_channels": (32, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
}
#: The stock pipeline scales every picture to 224 x 224.
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 56,
    "projection_dim": 32,
}
#: As the hub has it.
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def write_tiny_svd(folder: Path) -> None:
    """Write the whole folder: seeded random weights, plain in shards and in half precision whole."""
    import torch
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        parts: dict[str, Any] = {
            "unet": UNetSpatioTemporalConditionModel(**UNET),
            "vae": AutoencoderKLTemporalDecoder(**VAE),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)),
        }
        for part in ("unet", "vae"):
            for name, parameter in parts[part].named_parameters():
                if "mix_factor" in name:  # all alike as they are made
                    torch.nn.init.normal_(parameter)
    for name, part in parts.items():
        part.half().save_pretrained(folder / name, variant="fp16")
        part.float().save_pretrained(folder / name, max_shard_size="300KB")
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    index = {
        "_class_name": "StableVideoDiffusionPipeline",
        "_diffusers_version": "0.24.0.dev0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def tiny_svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svd") / "tiny"
    folder.mkdir()
    write_tiny_svd(folder)
    return folder


@pytest.fixture(scope="session")
def _svd(tiny_svd_folder: Path) -> StableVideoDiffusion:
    from nodes.engines.svd.engine import StableVideoDiffusion
    from nodes.engines.svd.spec import svd_spec

    # Every rung of a card, on a CPU.
    return StableVideoDiffusion(svd_spec(tiny_svd_folder, model="tiny"), tiny_svd_folder, device="cpu")


@pytest.fixture
def svd(_svd: StableVideoDiffusion) -> StableVideoDiffusion:
    """The shared engine at its first rung."""
    _svd.load("resident")
    return _svd


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """A smooth picture (H, W, 3)."""
    across = np.linspace(0, 255, WIDTH, dtype=np.float32)[None, :, None]
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    made: NDArray[np.uint8] = (across * down + np.array([40, 120, 200]) * (1 - down)).astype(np.uint8)
    return made


@pytest.fixture(scope="session")
def task() -> RenderTask:
    return RenderTask(
        model="tiny",
        frame_indices=tuple(range(FRAMES)),
        shot_start=0,
        shot_end=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        fps=8,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        seed=21,
        handover_index=FRAMES - 1,
    )
