"""Prompts to embeddings, as data: encoded once, they may travel to workers that hold no encoder."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import partial

import ftfy
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nodes.engines.common import NEGATIVE, PROMPT, Holder
from nodes.engines.wan.facts import told_prompt
from nodes.engines.wan.layout import TEXT_ENCODER
from nodes.engines.wan.model import TextModel


def cleaned(prompt: str) -> str:
    """As the prompts of Wan's training were: mended Unicode, no entities, single spaces."""
    mended = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", mended).strip()


@torch.no_grad()
def encode_text(
    held: Holder[TextModel], prompt: str, negative_prompt: str | None = None, *, fps: float
) -> dict[str, NDArray[np.float32]]:
    """The prompts as ``RenderInputs.text`` takes them: ``prompt_embeds`` and, with a negative prompt,
    ``negative_embeds``, each (L, D) float32 of the prompt's own L tokens (8 MB at most).

    Args:
        held: The loaded text model.
        prompt: What should happen.
        negative_prompt: What should not; None without guidance.
        fps: Frame rate of the window, for models that are told it in words.
    """
    model = held.placed.model
    told = {PROMPT: told_prompt(model.facts, cleaned(prompt), fps)}
    if negative_prompt is not None:
        told[NEGATIVE] = cleaned(negative_prompt)
    encoded = {}
    with held.placed.on_card(TEXT_ENCODER):
        for name, text in told.items():
            rows = held.made(partial(_embed, held, model, text))
            encoded[name] = rows[0].float().cpu().numpy()
    return encoded


def padded(
    text: Mapping[str, NDArray[np.generic]], name: str, length: int, width: int, like: torch.Tensor
) -> torch.Tensor:
    """(1, length, width) with the device and dtype of ``like``: zeros beyond the prompt's own tokens.

    Raises:
        ValueError: the array is missing, or is of another size than the model's.
    """
    if name not in text:
        raise ValueError(f"text has {', '.join(sorted(text)) or 'nothing'}, expected {name}")
    embeds = torch.from_numpy(np.asarray(text[name], dtype=np.float32).copy())
    if embeds.ndim != 2 or embeds.shape[0] > length or embeds.shape[1] != width:
        raise ValueError(f"{name} is {tuple(embeds.shape)}, expected up to {length} x {width}")
    return functional.pad(embeds, (0, 0, 0, length - len(embeds)))[None].to(like)


def _embed(held: Holder[TextModel], model: TextModel, text: str) -> torch.Tensor:
    """(1, L, D) of the prompt's own tokens; the encoder sees as many as the model was trained with."""
    length = model.facts.max_sequence_length
    ids = torch.tensor(model.tokenizer(text, max_length=length, truncation=True).input_ids)
    mask = torch.arange(length)[None] < len(ids)
    filled = functional.pad(ids, (0, length - len(ids)), value=model.tokenizer.pad_token_id)
    rows = functional.embedding(filled[None], model.token_embeds)
    encoder = model.components[TEXT_ENCODER]
    encoded: torch.Tensor = encoder(rows.to(held.device), mask.to(held.device, torch.long))
    return encoded[:, : len(ids)]
