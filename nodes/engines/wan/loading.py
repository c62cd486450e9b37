"""Read a Wan folder into memory: weights on the host, in the precision each part needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm
from torch import nn
from transformers import AutoTokenizer, UMT5EncoderModel

from nodes.engines.common import (
    EncodedText,
    convolve_with_onednn,
    read_component,
    reading,
    set_attention_backend,
)
from nodes.engines.engine import Attentions
from nodes.engines.folders import THE_FOLDERS, WeightSource, check_folder, model_facts
from nodes.engines.tokens import Pointwise
from nodes.engines.wan.by_level import TOKENS_AT_ONCE, ByLevel
from nodes.engines.wan.facts import ModelFacts
from nodes.engines.wan.kinds import FACTS
from nodes.engines.wan.layout import TEXT_ENCODER, VAE, WanFolder, read_folder
from nodes.engines.wan.model import Model, TextModel
from nodes.engines.wan.steps import check_scheduler
from nodes.engines.weights import read_weights


def read_model(
    path: Path,
    *,
    dtype: torch.dtype,
    attention: Attentions,
    compiled: bool = False,
    weights: Mapping[str, WeightSource] = MappingProxyType({}),
    in_files: bool = False,
    on_cpu: bool = False,
) -> Model:
    """Load what renders windows onto the host in ``dtype``; what its class keeps in float32 stays there.

    Args:
        path: The model's folder.
        dtype: Of computation.
        attention: The kernels.
        compiled: What is between the layers.
        weights: Of each expert by its name, where they are not the folder's as they are.
        in_files: Experts can be streamed from files.
        on_cpu: It will compute there.

    Raises:
        CannotRun: a file is damaged, weights are missing from it, the scheduler is not known here, or the
            attention kernels do not load.
        InvalidInput: a LoRA does not fit the model.
    """
    folder = read_folder(path)
    check_folder(path, folder.layout.without(name for name, source in weights.items() if source.file))
    check_scheduler(folder.scheduler)
    transformer = WanVACETransformer3DModel if folder.kind == "vace" else WanTransformer3DModel
    with reading():
        experts: dict[str, Any] = {
            name: read_weights(
                transformer,
                folder.path / name,
                weights.get(name, THE_FOLDERS).streamable(in_files),
                stem=folder.layout.weights[name],
                dtype=dtype,
                rename=convert_wan_transformer_to_diffusers,
            )
            for name in folder.experts
        }
        vae = _read(AutoencoderKLWan, folder, VAE, dtype)
    if on_cpu:
        convolve_with_onednn(vae)
        normalise_with_sums(vae)
    else:
        lay_channels_last(vae)
    if folder.kind != "vace":
        pointwise = Pointwise(TOKENS_AT_ONCE, compiled)
        experts = {name: ByLevel(expert, pointwise) for name, expert in experts.items()}
    for expert in experts.values():
        set_attention_backend(expert if folder.kind == "vace" else expert.stock, attention)
    channels = (-1, 1, 1, 1)
    return Model(
        folder=folder,
        facts=_facts(folder),
        components={**experts, VAE: vae},
        latent_mean=torch.tensor(vae.config.latents_mean).view(channels),
        latent_std=torch.tensor(vae.config.latents_std).view(channels),
    )


def read_text_model(path: Path, *, dtype: torch.dtype, in_files: bool = False) -> TextModel:
    """Load what encodes prompts onto the host in ``dtype``, and nothing else.

    ``in_files``: it can be streamed from files.

    Raises:
        CannotRun: a file is damaged, or weights are missing from it.
    """
    folder = read_folder(path)
    check_folder(path, folder.layout.without((*folder.experts, VAE)))
    with reading():
        whole: Any = read_weights(
            UMT5EncoderModel,
            path / TEXT_ENCODER,
            THE_FOLDERS.streamable(in_files),
            stem=folder.layout.weights[TEXT_ENCODER],
            dtype=dtype,
        )
        tokenizer = AutoTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
    return TextModel(
        facts=_facts(folder),
        components={TEXT_ENCODER: EncodedText(whole.encoder).eval()},
        tokenizer=tokenizer,
        token_embeds=whole.shared.weight.data,
    )


def lay_channels_last(vae: Any) -> None:
    """Have the VAE's convolutions, and what they give, hold a place's channels side by side, as a card's
    kernels want them: else each call lays them out anew, a sixth of its time (H200)."""
    for layer in vae.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            order = torch.channels_last if isinstance(layer, nn.Conv2d) else torch.channels_last_3d
            layer.weight.data = layer.weight.data.contiguous(memory_format=order)


def normalise_with_sums(vae: Any) -> None:
    """Have the VAE's RMS norms add up squares, where they run on a CPU in float32.

    A norm over the channels is a sum of planes; PyTorch's own walks across them, one place at a time, and
    takes eight times as long.
    """
    for norm in vae.modules():
        if isinstance(norm, WanRMS_norm) and norm.channel_first:
            norm.forward = partial(_normalised, norm)  # type: ignore[method-assign]


def _normalised(norm: WanRMS_norm, x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return WanRMS_norm.forward(norm, x)
    length = x.square().sum(dim=1, keepdim=True).sqrt_().clamp_(min=1e-12)
    return (x / length.div_(norm.scale)).mul_(norm.gamma).add_(norm.bias)


def _read(kind: Any, folder: WanFolder, component: str, dtype: torch.dtype) -> Any:
    stem = folder.layout.weights[component]
    return read_component(kind, folder.path / component, stem=stem, dtype=dtype)


def _facts(folder: WanFolder) -> ModelFacts:
    return model_facts(folder.path, FACTS[folder.kind])
