"""Read an LTX-Video folder into memory: weights on the host, the transformer prepared for every rung."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import nn
from transformers import AutoTokenizer, T5EncoderModel

from farm.errors import CannotRun
from nodes.engines.common import read_component, reading
from nodes.engines.engine import Attentions
from nodes.engines.folders import check_folder
from nodes.engines.ltx.facts import facts_of
from nodes.engines.ltx.layout import TEXT_ENCODER, TRANSFORMER, VAE, WEIGHTS, layout, read_folder
from nodes.engines.ltx.model import Model
from nodes.engines.ltx.transformer import RunwiseTransformer


class EncodedText(nn.Module):
    """T5's layers without its table of tokens, of which only the rows of a prompt are ever needed."""

    def __init__(self, stack: Any) -> None:
        super().__init__()
        self.stack = stack
        self.stack.embed_tokens = None

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """(1, L, T) rows of the table to (1, L, T)."""
        return self.stack(inputs_embeds=inputs_embeds).last_hidden_state  # type: ignore[no-any-return]


def read_model(path: Path, *, dtype: torch.dtype, attention: Attentions) -> Model:
    """Load every component onto the host in ``dtype``; what its class keeps in float32 stays there.

    Raises:
        CannotRun: a file is damaged or missing, weights are missing from it, or the attention kernels do not
            load.
    """
    check_folder(path, layout(path))
    folder = read_folder(path)

    def read(kind: Any, component: str) -> Any:
        return read_component(kind, path / component, stem=WEIGHTS[component], dtype=dtype)

    with reading():
        transformer = read(LTXVideoTransformer3DModel, TRANSFORMER)
        vae = read(AutoencoderKLLTXVideo, VAE)
        text_encoder = read(T5EncoderModel, TEXT_ENCODER)
        tokenizer = AutoTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
    components = {
        TRANSFORMER: RunwiseTransformer(transformer).eval(),
        VAE: vae,
        TEXT_ENCODER: EncodedText(text_encoder.encoder).eval(),
    }
    _set_attention(transformer, attention)
    channels = (-1, 1, 1, 1)
    return Model(
        folder=folder,
        facts=facts_of(folder),
        components=components,
        tokenizer=tokenizer,
        token_embeds=text_encoder.shared.weight.data,
        latent_mean=vae.latents_mean.float().view(channels).clone(),
        latent_std=vae.latents_std.float().view(channels).clone(),
    )


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
