"""Read a model folder into memory: weights on the host, the UNet prepared for every rung."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from farm.errors import CannotRun
from nodes.engines.common import fold_temporal_convs, read_component, reading, set_attention, wrap_in_pieces
from nodes.engines.engine import Attentions
from nodes.engines.folders import read_json
from nodes.engines.i2vgen_xl.conditioning import PenultimateText
from nodes.engines.i2vgen_xl.layout import LAYOUT
from nodes.engines.i2vgen_xl.model import Model
from nodes.engines.i2vgen_xl.one_row import prepare_for_one_row


def read_model(folder: Path, *, dtype: torch.dtype, attention: Attentions, one_row: bool = False) -> Model:
    """Load every component onto the host in ``dtype``, the UNet for one batch row at a time if ``one_row``.

    Raises:
        CannotRun: a file is damaged, weights are missing from it, the scheduler is not DDIM, or the attention
            kernels do not load.
    """
    with reading():
        return _read_model(folder, dtype, attention, one_row)


def _read_model(folder: Path, dtype: torch.dtype, attention: Attentions, one_row: bool) -> Model:
    def read(kind: Any, component: str) -> Any:
        return read_component(kind, folder / component, stem=LAYOUT.weights[component], dtype=dtype)

    scheduler_class = read_json(folder, "scheduler/scheduler_config.json").get("_class_name")
    if scheduler_class != "DDIMScheduler":
        raise CannotRun(
            f"the scheduler of {folder} is {scheduler_class}, expected DDIMScheduler: only a scheduler "
            "without memory or noise of its own lets windows be split and fused between steps"
        )
    image_processor = read_json(folder, "feature_extractor/preprocessor_config.json")
    components = {
        "unet": read(I2VGenXLUNet, "unet"),
        "vae": read(AutoencoderKL, "vae"),
        "text_encoder": PenultimateText(read(CLIPTextModel, "text_encoder")).eval(),
        "image_encoder": read(CLIPVisionModelWithProjection, "image_encoder"),
    }
    unet = components["unet"]
    fold_temporal_convs(unet)
    wrap_in_pieces(unet)
    set_attention(unet, attention)
    if one_row:
        prepare_for_one_row(unet)
    crop = image_processor["crop_size"]
    return Model(
        components=components,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),  # type: ignore[no-untyped-call]
        clip_size=int(crop["width"] if isinstance(crop, dict) else crop),
        clip_mean=image_processor["image_mean"],
        clip_std=image_processor["image_std"],
    )
