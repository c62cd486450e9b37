"""Read a Wan folder into memory: weights on the host, in the precision each part needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from transformers import AutoTokenizer, UMT5EncoderModel

from farm.errors import CannotRun
from nodes.engines.common import read_component, reading
from nodes.engines.engine import Attentions
from nodes.engines.folders import check_folder, model_facts
from nodes.engines.wan.kinds import FACTS
from nodes.engines.wan.layout import TEXT_ENCODER, VAE, WanFolder, read_folder
from nodes.engines.wan.model import Model
from nodes.engines.wan.steps import check_scheduler
from nodes.engines.wan.text import EncodedText


def read_model(path: Path, *, dtype: torch.dtype, attention: Attentions) -> Model:
    """Load every component onto the host in ``dtype``; what its class keeps in float32 stays there.

    Raises:
        CannotRun: a file is damaged, weights are missing from it, the scheduler is not known here, or the
            attention kernels do not load.
    """
    folder = read_folder(path)
    check_folder(path, folder.layout)
    check_scheduler(folder.scheduler)
    with reading():
        return _read_model(folder, dtype, attention)


def _read_model(folder: WanFolder, dtype: torch.dtype, attention: Attentions) -> Model:
    weights = folder.layout.weights

    def read(kind: Any, component: str) -> Any:
        return read_component(kind, folder.path / component, stem=weights[component], dtype=dtype)

    transformer = WanVACETransformer3DModel if folder.kind == "vace" else WanTransformer3DModel
    components = {name: read(transformer, name) for name in folder.experts}
    for expert in components.values():
        _set_attention(expert, attention)
    text_encoder = read(UMT5EncoderModel, TEXT_ENCODER)
    components |= {VAE: read(AutoencoderKLWan, VAE), TEXT_ENCODER: EncodedText(text_encoder.encoder).eval()}
    channels = (-1, 1, 1, 1)
    return Model(
        folder=folder,
        facts=model_facts(folder.path, FACTS[folder.kind]),
        components=components,
        tokenizer=AutoTokenizer.from_pretrained(folder.path / "tokenizer", local_files_only=True),
        token_embeds=text_encoder.shared.weight.data,
        latent_mean=torch.tensor(components[VAE].config.latents_mean).view(channels),
        latent_std=torch.tensor(components[VAE].config.latents_std).view(channels),
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
