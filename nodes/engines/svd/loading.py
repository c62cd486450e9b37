"""Read a model folder into memory: weights on the host, the UNet prepared for every rung."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPVisionModelWithProjection

from farm.errors import CannotRun
from nodes.engines.common import fold_temporal_convs, read_component, reading, set_attention
from nodes.engines.engine import Attentions
from nodes.engines.folders import WeightSource, check_folder, model_facts, read_json
from nodes.engines.svd.facts import ModelFacts
from nodes.engines.svd.layout import IMAGE_ENCODER, LAYOUT, UNET, VAE, VAE_DECODER, VAE_ENCODER
from nodes.engines.svd.model import Model
from nodes.engines.svd.unet import SlicedUNet
from nodes.engines.svd.vae import FrameDecoder, LatentEncoder
from nodes.engines.weights import read_weights

_SCHEDULER = "EulerDiscreteScheduler"


def read_model(folder: Path, *, dtype: torch.dtype, attention: Attentions, in_files: bool = False) -> Model:
    """Load every component onto the host in ``dtype``; the VAE's encoder in float32 where its config asks so.

    ``in_files``: UNet and image encoder can be streamed from files.

    Raises:
        CannotRun: a file is damaged or missing, weights are missing from it, the scheduler is of another
            kind, or the attention kernels do not load.
    """
    check_folder(folder, LAYOUT)
    with reading():
        return _read_model(folder, dtype, attention, in_files)


def _read_model(folder: Path, dtype: torch.dtype, attention: Attentions, in_files: bool) -> Model:
    source, stems = WeightSource(in_files=in_files), LAYOUT.weights

    def read(kind: Any, component: str) -> Any:
        return read_weights(kind, folder / component, source, stem=stems[component], dtype=dtype)

    config = read_json(folder, "scheduler/scheduler_config.json")
    kind, predicts = config.get("_class_name"), config.get("prediction_type")
    if (kind, predicts) != (_SCHEDULER, "v_prediction"):
        raise CannotRun(
            f"the scheduler of {folder} is {kind} and predicts {predicts}, expected {_SCHEDULER} and "
            "v_prediction: only without memory or noise of its own can steps be run anywhere"
        )
    image_processor = read_json(folder, "feature_extractor/preprocessor_config.json")
    unet = read(UNetSpatioTemporalConditionModel, UNET)
    vae = read_component(AutoencoderKLTemporalDecoder, folder / VAE, stem=stems[VAE], dtype=dtype)
    image_encoder = read(CLIPVisionModelWithProjection, IMAGE_ENCODER)
    fold_temporal_convs(unet)
    set_attention(unet, attention)
    encoder = LatentEncoder(vae).eval()
    return Model(
        components={
            UNET: SlicedUNet(unet).eval(),
            # Half precision is not enough for some pictures (force_upcast).
            VAE_ENCODER: encoder.float() if vae.config.force_upcast else encoder,
            VAE_DECODER: FrameDecoder(vae).eval(),
            IMAGE_ENCODER: image_encoder,
        },
        scheduler=EulerDiscreteScheduler.from_pretrained(folder / "scheduler"),  # type: ignore[no-untyped-call]
        facts=model_facts(folder, ModelFacts),
        clip_size=int(image_encoder.config.image_size),
        clip_mean=image_processor["image_mean"],
        clip_std=image_processor["image_std"],
        latent_channels=int(vae.config.latent_channels),
        scaling_factor=float(vae.config.scaling_factor),
        pixels_per_latent=2 ** (len(vae.config.block_out_channels) - 1),
    )
