"""Read a model folder into memory: weights on the host, the UNet prepared for every rung."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from farm.errors import CannotRun
from nodes.engine import Attentions
from nodes.engines.i2vgen_xl_conditioning import PenultimateText
from nodes.engines.i2vgen_xl_folder import read_json, variant
from nodes.engines.i2vgen_xl_memory import fold_temporal_convs, set_attention
from nodes.engines.i2vgen_xl_one_row import prepare_for_one_row
from nodes.engines.i2vgen_xl_pieces import wrap_in_pieces

#: While one thread builds a model, the libraries make every other thread's weights without memory too.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Model:
    """The parts of one model. ``components`` maps unet, vae, text_encoder and image_encoder to modules."""

    components: dict[str, Any]
    tokenizer: Any
    scheduler: Any
    clip_size: int
    clip_mean: list[float]
    clip_std: list[float]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a frame of ``height`` x ``width`` pixels."""
        scale = 2 ** (len(self.components["vae"].config.block_out_channels) - 1)
        return int(self.components["unet"].config.in_channels), height // scale, width // scale


def read_model(folder: Path, *, dtype: torch.dtype, attention: Attentions, one_row: bool = False) -> Model:
    """Load every component onto the host in ``dtype``, the UNet for one batch row at a time if ``one_row``.

    Raises:
        CannotRun: a file is damaged, weights are missing from it, the scheduler is not DDIM, or the attention
            kernels do not load.
    """
    with _ONE_AT_A_TIME:
        return _read_model(folder, dtype, attention, one_row)


def _read_model(folder: Path, dtype: torch.dtype, attention: Attentions, one_row: bool) -> Model:
    # A worker reports its own phases.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # What they warn of belongs into the attempt's log; by themselves they write to stderr only.
    for logging in (transformers_logging, diffusers_logging):
        logging.enable_propagation()
    scheduler_class = read_json(folder, "scheduler/scheduler_config.json").get("_class_name")
    if scheduler_class != "DDIMScheduler":
        raise CannotRun(
            f"the scheduler of {folder} is {scheduler_class}, expected DDIMScheduler: only a scheduler "
            "without memory or noise of its own lets windows be split and fused between steps"
        )
    image_processor = read_json(folder, "feature_extractor/preprocessor_config.json")
    components = {
        "unet": _read(I2VGenXLUNet, folder, "unet", dtype),
        "vae": _read(AutoencoderKL, folder, "vae", dtype),
        "text_encoder": PenultimateText(_read(CLIPTextModel, folder, "text_encoder", dtype)),
        "image_encoder": _read(CLIPVisionModelWithProjection, folder, "image_encoder", dtype),
    }
    for component in components.values():
        component.eval().requires_grad_(False)
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


def _read(kind: Any, folder: Path, component: str, dtype: torch.dtype) -> Any:
    half = dtype in (torch.float16, torch.bfloat16)
    try:
        module, report = kind.from_pretrained(
            folder / component,
            dtype=dtype,
            variant=variant(folder, component, half=half),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(f"cannot load {folder / component} ({reason}): download the model again") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CannotRun(
            f"{folder / component} lacks {len(missing)} weights ({missing[0]}, ...): download the model again"
        )
    return module
