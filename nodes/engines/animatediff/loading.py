"""Read a model folder into memory: weights on the host, motion modules within their U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, SparseControlNetModel, UNetMotionModel
from transformers import CLIPTextModel, CLIPTokenizer

from nodes.engines.animatediff.layout import (
    ADAPTER,
    CONTROL,
    DENOISER,
    TEXT_ENCODER,
    UNET,
    VAE,
    AnimateDiffFolder,
    read_folder,
)
from nodes.engines.animatediff.model import Model
from nodes.engines.animatediff.unet import Denoiser
from nodes.engines.common import read_component, reading, set_attention
from nodes.engines.engine import Attentions
from nodes.engines.folders import component_tensors
from nodes.engines.weights import load_weights

#: What motion modules were trained with, whatever the pictures' model was: of the settings of a folder's own
#: scheduler these are not taken.
_TRAINED_WITH = {
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
    "steps_offset": 1,
}


def read_model(path: Path, *, dtype: torch.dtype, attention: Attentions) -> Model:
    """Load every component onto the host in ``dtype``.

    Raises:
        CannotRun: a file is damaged or missing, weights are missing from it, or the attention kernels do not
            load.
    """
    folder = read_folder(path)
    with reading():
        unet = _read_unet(folder, dtype)
        stems = folder.weights()

        def read(kind: Any, component: str) -> Any:
            return read_component(kind, path / component, stem=stems[component], dtype=dtype)

        control = None if folder.control is None else read(SparseControlNetModel, CONTROL)
        vae, text_encoder = read(AutoencoderKL, VAE), read(CLIPTextModel, TEXT_ENCODER)
        tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer")
    for each in (unet, control):
        if each is not None:
            set_attention(each, attention)
    denoiser = Denoiser(unet, control).eval()
    return Model(
        folder=folder,
        components={DENOISER: denoiser, VAE: vae, TEXT_ENCODER: text_encoder},
        tokenizer=tokenizer,
        scheduler=scheduler_of(folder.scheduler),
    )


def scheduler_of(config: Mapping[str, Any]) -> Any:
    """DDIM, which has neither memory nor noise of its own; that of an AnimateDiff pipeline as it is saved."""
    if config.get("_class_name") == "DDIMScheduler":
        return DDIMScheduler.from_config(dict(config))  # type: ignore[no-untyped-call]
    return DDIMScheduler.from_config({**config, **_TRAINED_WITH})  # type: ignore[no-untyped-call]


def _read_unet(folder: AnimateDiffFolder, dtype: torch.dtype) -> Any:
    stem = folder.weights()[UNET]
    half = dtype != torch.float32
    tensors = component_tensors(folder.path / UNET, stem, half=half)
    if folder.adapter is None:
        return load_weights(UNetMotionModel, folder.path / UNET, tensors, dtype=dtype)
    config = motion_config(folder.unet, folder.adapter)

    class WithMotion(UNetMotionModel):
        """The class with the config that its two folders make together."""

        @classmethod
        def load_config(cls, *_: Any, **__: Any) -> dict[str, Any]:
            return config

    # Both name their tensors as the whole does.
    tensors = {**tensors, **component_tensors(folder.path / ADAPTER, stem, half=half)}
    return load_weights(WithMotion, folder.path / UNET, tensors, dtype=dtype)


def motion_config(unet: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a U-Net with the adapter within, as ``UNetMotionModel.from_unet2d`` makes it."""
    names = ("motion_num_attention_heads", "motion_max_seq_length", "use_motion_mid_block")
    layers = {
        "motion_layers_per_block": "layers_per_block",
        "motion_transformer_layers_per_mid_block": "temporal_transformer_layers_per_mid_block",
        "motion_transformer_layers_per_block": "temporal_transformer_layers_per_block",
    }
    taken = (
        *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "act_fn"),
        *("downsample_padding", "mid_block_scale_factor", "norm_num_groups", "norm_eps"),
        *("cross_attention_dim", "transformer_layers_per_block", "use_linear_projection"),
    )

    def with_motion(kind: str, way: str) -> str:
        return f"CrossAttn{way}BlockMotion" if "CrossAttn" in kind else f"{way}BlockMotion"

    return {
        "_class_name": "UNetMotionModel",
        **{name: unet[name] for name in taken if unet.get(name) is not None},
        **{name: adapter[name] for name in names if name in adapter},
        **{ours: adapter[theirs] for theirs, ours in layers.items() if adapter.get(theirs) is not None},
        "num_attention_heads": unet.get("num_attention_heads") or unet.get("attention_head_dim", 8),
        "down_block_types": [with_motion(kind, "Down") for kind in unet["down_block_types"]],
        "up_block_types": [with_motion(kind, "Up") for kind in unet["up_block_types"]],
    }
