"""Read a model folder into memory: weights on the host, motion modules within their U-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LCMScheduler,
    SparseControlNetModel,
    UNetMotionModel,
)
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from nodes.engines.animatediff.facts import ModelFacts
from nodes.engines.animatediff.layout import (
    ADAPTER,
    CHECKPOINT_PREFIX,
    CONTROL,
    DENOISER,
    IMAGE_ENCODER,
    TEXT_ENCODER,
    UNET,
    VAE,
    AnimateDiffFolder,
    read_folder,
)
from nodes.engines.animatediff.look import image_processor, read_look
from nodes.engines.animatediff.model import Model
from nodes.engines.animatediff.textual_inversions import TextualInversion, without_inversions
from nodes.engines.animatediff.unet import Denoiser
from nodes.engines.common import read_component, reading, set_attention
from nodes.engines.engine import Attentions
from nodes.engines.folders import THE_FOLDERS, WeightSource, component_tensors, model_facts
from nodes.engines.weights import read_weights, whole

#: What the keys of a LoRA begin with, by the component that they are for.
_OF_TEXT = ("lora_te", "text_encoder.")
_OF_UNET = ("lora_unet_", "unet.", "down_blocks.", "mid_block.", "up_blocks.")
#: What motion modules were trained with, whatever the pictures' model was: of the settings of a folder's own
#: scheduler these are not taken.
_TRAINED_WITH = {
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
    "steps_offset": 1,
}


def read_model(
    path: Path,
    *,
    dtype: torch.dtype,
    attention: Attentions,
    weights: WeightSource = THE_FOLDERS,
    in_files: bool = False,
) -> Model:
    """Load every component onto the host in ``dtype``: a file in place of the U-Net's weights, LoRAs added to
    it and to the text encoder, and the linear layers of the denoiser in the format that is asked for.

    ``in_files``: denoiser and text encoder can be streamed from files.

    Raises:
        CannotRun: a file is damaged or missing, weights are missing from it, or the attention kernels do not
            load.
        InvalidInput: a LoRA does not fit the model.
    """
    folder = read_folder(path, has_unet=weights.file is None)
    weights, inversions = without_inversions(weights.streamable(in_files))
    with reading():
        unet = _read_unet(folder, weights, dtype)
        stems = folder.weights()

        def read(kind: Any, component: str, source: WeightSource, **more: Any) -> Any:
            return read_weights(kind, path / component, source, stem=stems[component], dtype=dtype, **more)

        control = None
        if folder.control is not None:
            of_control = WeightSource(format=weights.format, in_files=weights.in_files)
            control = read(SparseControlNetModel, CONTROL, of_control)
        vae = read_component(AutoencoderKL, path / VAE, stem=stems[VAE], dtype=dtype)
        of_text = WeightSource(loras=weights.loras, in_files=weights.in_files)
        text_encoder = read(CLIPTextModel, TEXT_ENCODER, of_text, rename=_of_text, not_here=_OF_UNET)
        facts = model_facts(path, ModelFacts)
        components: dict[str, Any] = {VAE: vae, TEXT_ENCODER: text_encoder}
        processor = None
        if folder.look is not None:
            vision = read(CLIPVisionModelWithProjection, IMAGE_ENCODER, WeightSource())
            scale = facts.ip_adapter_scale
            components[IMAGE_ENCODER] = read_look(folder.look, unet, vision, dtype=dtype, scale=scale)
            processor = image_processor(vision)
        tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer")
        _teach(text_encoder, tokenizer, inversions)
    for each in (unet, control):
        if each is not None:
            set_attention(each, attention)
    return Model(
        folder=folder,
        components={DENOISER: Denoiser(unet, control).eval(), **components},
        tokenizer=tokenizer,
        scheduler=scheduler_of(folder.scheduler, facts),
        inversions=inversions,
        image_processor=processor,
    )


def _teach(text_encoder: Any, tokenizer: Any, inversions: Sequence[TextualInversion]) -> None:
    """Add the vectors of textual inversions to the table of a text encoder, and their names to its words."""
    if not inversions:
        return
    table = text_encoder.get_input_embeddings()
    vectors = [whole(each.tensor).view(-1, table.weight.shape[1]).to(table.weight) for each in inversions]
    first = len(tokenizer)
    tokenizer.add_tokens([token for each in inversions for token in each.tokens])
    added = torch.cat([table.weight[:first], *vectors])
    table.weight = torch.nn.Parameter(added, requires_grad=False)
    table.num_embeddings = len(added)


def scheduler_of(config: Mapping[str, Any], facts: ModelFacts) -> Any:
    """DDIM, which has neither memory nor noise of its own, or LCM; an AnimateDiff pipeline's DDIM as it was
    saved, but for a spacing that is given."""
    if facts.sampler == "lcm":
        return _made(LCMScheduler, {**config, "beta_schedule": _TRAINED_WITH["beta_schedule"]})
    trained = {} if config.get("_class_name") == "DDIMScheduler" else _TRAINED_WITH
    spacing = {} if facts.timestep_spacing is None else {"timestep_spacing": facts.timestep_spacing}
    return _made(DDIMScheduler, {**config, **trained, **spacing})


def _made(kind: Any, config: Mapping[str, Any]) -> Any:
    """A scheduler with those of the settings that it knows."""
    known = signature(kind.__init__).parameters
    return kind(**{name: value for name, value in config.items() if name in known})


def _read_unet(folder: AnimateDiffFolder, weights: WeightSource, dtype: torch.dtype) -> Any:
    stem = folder.weights()[UNET]
    more: dict[str, Any] = {"stem": stem, "dtype": dtype, "not_here": _OF_TEXT}
    more["rename"] = partial(_of_checkpoint, config=folder.unet)
    if folder.adapter is None:
        return read_weights(UNetMotionModel, folder.path / UNET, weights, **more)
    config = motion_config(folder.unet, folder.adapter)

    class WithMotion(UNetMotionModel):
        """The class with the config that its two folders make together."""

        @classmethod
        def load_config(cls, *_: Any, **__: Any) -> dict[str, Any]:
            return config

    # Both name their tensors as the whole does.
    motion = component_tensors(folder.path / ADAPTER, stem, half=dtype != torch.float32)
    return read_weights(WithMotion, folder.path / UNET, weights, beside=motion, **more)


def _of_checkpoint(names: dict[str, str], *, config: Mapping[str, Any]) -> dict[str, str]:
    """The names of Stable Diffusion's authors as diffusers has them; those of motion modules stay."""
    own = {CHECKPOINT_PREFIX + name: value for name, value in names.items()}
    layers = {"layers_per_block": config.get("layers_per_block", 2)}
    made: dict[str, str] = convert_ldm_unet_checkpoint(own, layers)  # type: ignore[no-untyped-call]
    return {**made, **{name: value for name, value in names.items() if "motion_modules" in name}}


def _of_text(names: dict[str, str]) -> dict[str, str]:
    """The names of a text encoder as transformers has them since 5.6, without those of what is in it."""
    return {name.removeprefix("text_encoder.").removeprefix("text_model."): v for name, v in names.items()}


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
