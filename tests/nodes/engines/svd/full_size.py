"""SVD-XT as the hub has it: the configs of its parts, and headers of its files without the numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from tests.nodes.engines.live_bytes import on_meta
from tests.nodes.engines.svd.conftest import SCHEDULER

UNET: dict[str, Any] = {
    "sample_size": 96,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlockSpatioTemporal",) * 3, "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", *("CrossAttnUpBlockSpatioTemporal",) * 3),
    "num_attention_heads": (5, 10, 20, 20),
    "num_frames": 25,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 768,
}


def unet_on_meta() -> Any:
    """The UNet without memory; mixing factors are made on the host whatever is asked for."""
    return on_meta(lambda: UNetSpatioTemporalConditionModel(**UNET)).to("meta").bfloat16()


def vae_on_meta() -> Any:
    return on_meta(lambda: AutoencoderKLTemporalDecoder(**VAE)).to("meta").bfloat16()


def write_headers(folder: Path) -> None:
    """A folder from which a spec is read, and no model."""
    parts = {"unet": unet_on_meta(), "vae": vae_on_meta()}
    for name, module in parts.items():
        module.save_config(folder / name)
        shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        _write(folder / name / "diffusion_pytorch_model.fp16.safetensors", shapes)
    (folder / "image_encoder").mkdir()
    _write(folder / "image_encoder" / "model.fp16.safetensors", {"whole": (632_076_800,)})
    for name, config in (
        ("image_encoder/config.json", {}),
        ("scheduler/scheduler_config.json", {**SCHEDULER, "_class_name": "EulerDiscreteScheduler"}),
        ("feature_extractor/preprocessor_config.json", {}),
        ("model_index.json", {"_class_name": "StableVideoDiffusionPipeline"}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(config))


def _write(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * torch.float16.itemsize
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
