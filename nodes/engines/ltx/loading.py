"""Read an LTX-Video folder into memory: weights on the host, the transformer prepared for every rung."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
from torch import nn
from transformers import AutoTokenizer, T5EncoderModel

from farm.errors import CannotRun
from nodes.engines.common import reading
from nodes.engines.engine import Attentions
from nodes.engines.folders import check_folder
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
from nodes.engines.ltx.transformer import RunwiseTransformer
from nodes.engines.weights import WeightSource, read_weights

#: Weights as a folder has them.
_THE_FOLDERS = WeightSource()


class EncodedText(nn.Module):
    """T5's layers without its table of tokens, of which only the rows of a prompt are ever needed."""

    def __init__(self, stack: Any) -> None:
        super().__init__()
        self.stack = stack
        self.stack.embed_tokens = None

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """(1, L, T) rows of the table to (1, L, T)."""
        return self.stack(inputs_embeds=inputs_embeds).last_hidden_state  # type: ignore[no-any-return]


def read_model(
    path: Path,
    *,
    dtype: torch.dtype,
    attention: Attentions,
    weights: Mapping[str, WeightSource] = MappingProxyType({}),
) -> Model:
    """Load what renders windows onto the host in ``dtype``, the transformer with the ``weights`` of its name.

    Raises:
        CannotRun: a file is damaged or missing, weights are missing from it, or the attention kernels do not
            load.
        InvalidInput: a LoRA does not fit the model.
    """
    check_folder(path, layout(path))
    folder = read_folder(path)
    with reading():
        transformer = _read(
            LTXVideoTransformer3DModel, path, TRANSFORMER, dtype, weights.get(TRANSFORMER, _THE_FOLDERS)
        )
        vae = _read(AutoencoderKLLTXVideo, path, VAE, dtype)
    runwise = RunwiseTransformer(transformer).eval()
    _set_attention(transformer, attention)
    channels = (-1, 1, 1, 1)
    return Model(
        folder=folder,
        facts=facts_of(folder),
        components={TRANSFORMER: runwise, VAE_ENCODER: vae.encoder, VAE_DECODER: vae.decoder},
        latent_mean=vae.latents_mean.float().view(channels).clone(),
        latent_std=vae.latents_std.float().view(channels).clone(),
    )


def read_text_model(path: Path, *, dtype: torch.dtype) -> TextModel:
    """Load what encodes prompts onto the host in ``dtype``, and nothing else; what its class keeps in float32
    stays there.

    Raises:
        CannotRun: a file is damaged or missing, or weights are missing from it.
    """
    check_folder(path, layout(path))
    with reading():
        whole = _read(T5EncoderModel, path, TEXT_ENCODER, dtype)
        tokenizer = AutoTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
    return TextModel(
        facts=facts_of(read_folder(path)),
        components={TEXT_ENCODER: EncodedText(whole.encoder).eval()},
        tokenizer=tokenizer,
        token_embeds=whole.shared.weight.data,
    )


def _read(
    kind: Any, path: Path, component: str, dtype: torch.dtype, weights: WeightSource = _THE_FOLDERS
) -> Any:
    """One component; nothing is copied of weights that have their dtype already."""
    rename = convert_ltx_transformer_checkpoint_to_diffusers if component == TRANSFORMER else None
    stem = WEIGHTS[component]
    return read_weights(kind, path / component, weights, stem=stem, dtype=dtype, rename=rename)


def _set_attention(transformer: Any, attention: Attentions) -> None:
    if attention == "sdpa":
        return
    try:
        transformer.set_attention_backend(attention)
    except (ImportError, NotImplementedError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(
            f"attention is {attention!r}, but its kernels cannot be used here ({reason}): install the one "
            "built for this PyTorch and CUDA, or use attention='sdpa'",
            param="attention",
        ) from None
