"""Read an LTX-Video folder into memory: weights on the host, the transformer prepared for every rung."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
from transformers import AutoTokenizer, T5EncoderModel

from nodes.engines.common import EncodedText, reading, set_attention_backend
from nodes.engines.engine import Attentions
from nodes.engines.folders import THE_FOLDERS, WeightSource, check_folder
from nodes.engines.ltx.facts import facts_of
from nodes.engines.ltx.layout import (
    TEXT_ENCODER,
    TRANSFORMER,
    VAE,
    VAE_DECODER,
    VAE_ENCODER,
    WEIGHTS,
    layout,
    read_folder,
)
from nodes.engines.ltx.model import Model, TextModel
from nodes.engines.ltx.transformer import TOKENS_AT_ONCE, RunwiseTransformer
from nodes.engines.tokens import Pointwise
from nodes.engines.weights import read_weights


def read_model(
    path: Path,
    *,
    dtype: torch.dtype,
    attention: Attentions,
    compiled: bool = False,
    weights: Mapping[str, WeightSource] = MappingProxyType({}),
    in_files: bool = False,
) -> Model:
    """Load what renders windows onto the host in ``dtype``, the transformer with the ``weights`` of its name.

    ``in_files``: the transformer can be streamed from files.

    Raises:
        CannotRun: a file is damaged or missing, weights are missing from it, or the attention kernels do not
            load.
        InvalidInput: a LoRA does not fit the model.
    """
    source = weights.get(TRANSFORMER, THE_FOLDERS)
    files = layout(path)
    check_folder(path, files if source.file is None else files.without((TRANSFORMER,)))
    folder = read_folder(path, source.file)
    with reading():
        transformer = _read(LTXVideoTransformer3DModel, path, TRANSFORMER, dtype, source.streamable(in_files))
        vae = _read(AutoencoderKLLTXVideo, path, VAE, dtype)
    runwise = RunwiseTransformer(transformer, Pointwise(TOKENS_AT_ONCE, compiled)).eval()
    set_attention_backend(transformer, attention)
    channels = (-1, 1, 1, 1)
    return Model(
        folder=folder,
        facts=facts_of(folder),
        components={TRANSFORMER: runwise, VAE_ENCODER: vae.encoder, VAE_DECODER: vae.decoder},
        latent_mean=vae.latents_mean.float().view(channels).clone(),
        latent_std=vae.latents_std.float().view(channels).clone(),
    )


def read_text_model(path: Path, *, dtype: torch.dtype, in_files: bool = False) -> TextModel:
    """Load what encodes prompts onto the host in ``dtype``, and nothing else; what its class keeps in float32
    stays there. ``in_files``: it can be streamed from files.

    Raises:
        CannotRun: a file is damaged or missing, or weights are missing from it.
    """
    check_folder(path, layout(path).without((TRANSFORMER, VAE)))
    with reading():
        whole = _read(T5EncoderModel, path, TEXT_ENCODER, dtype, THE_FOLDERS.streamable(in_files))
        tokenizer = AutoTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
    return TextModel(
        facts=facts_of(read_folder(path)),
        components={TEXT_ENCODER: EncodedText(whole.encoder).eval()},
        tokenizer=tokenizer,
        token_embeds=whole.shared.weight.data,
    )


def _read(
    kind: Any, path: Path, component: str, dtype: torch.dtype, weights: WeightSource = THE_FOLDERS
) -> Any:
    """One component; nothing is copied of weights that have their dtype already."""
    rename = convert_ltx_transformer_checkpoint_to_diffusers if component == TRANSFORMER else None
    stem = WEIGHTS[component]
    return read_weights(kind, path / component, weights, stem=stem, dtype=dtype, rename=rename)
