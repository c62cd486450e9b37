"""Encoding: prompts as data, images, clips and videos to what the denoising loop reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nodes.engines.common import NEGATIVE, PROMPT, Holder, image_hash, vae_pixels
from nodes.engines.engine import Frames
from nodes.engines.ltx.layout import TEXT_ENCODER, VAE_ENCODER
from nodes.engines.ltx.model import Model, TextModel
from nodes.engines.ltx.vae import encoded


@torch.no_grad()
def encode_text(
    held: Holder[TextModel], prompt: str, negative_prompt: str | None = None
) -> dict[str, NDArray[np.float32]]:
    """The prompts as ``RenderInputs.text`` takes them: ``prompt_embeds`` and, with a negative prompt,
    ``negative_embeds``, each (L, T) float32 of the prompt's own L tokens (4 MB at most).

    Padding is not encoded: the stock pipelines mask it everywhere, which leaves nothing of it.

    Args:
        held: The loaded encoder.
        prompt: What should happen.
        negative_prompt: What should not; None without guidance.
    """
    told = {PROMPT: prompt} | ({} if negative_prompt is None else {NEGATIVE: negative_prompt})
    with held.placed.on_card(TEXT_ENCODER):
        embeds = {name: held.made(partial(_embed, held, text)) for name, text in told.items()}
    return {name: each[0].float().cpu().numpy() for name, each in embeds.items()}


def embeds_of(
    held: Holder[Model], text: Mapping[str, NDArray[np.generic]], *, guided: bool
) -> list[torch.Tensor]:
    """Encoded prompts (1, L, T) on the device: the prompt, and with guidance the negative prompt after it.

    Raises:
        ValueError: an array is missing, or has another width than the model's.
    """
    width = held.placed.model.text_width
    found = []
    for name in (PROMPT, NEGATIVE)[: 2 if guided else 1]:
        if name not in text:
            raise ValueError(f"text has {', '.join(sorted(text)) or 'nothing'}, expected {name}")
        embeds = torch.from_numpy(np.asarray(text[name], dtype=np.float32).copy())
        if embeds.ndim != 2 or embeds.shape[1] != width:
            raise ValueError(f"{name} is {tuple(embeds.shape)}, expected tokens x {width}")
        found.append(embeds[None].to(held.device, held.dtype))
    return found


@torch.no_grad()
def encode_frames(held: Holder[Model], frames: Frames) -> torch.Tensor:
    """An image or a clip (F, H, W, 3) uint8 to its latents (C, k + 1, h, w) float32 on the device: their
    mode, normalized. F is frames per latent x k + 1. Cached by content."""
    return held.cached(VAE_ENCODER, [(f"latents {image_hash(frames)}", partial(_encode, held, frames))])[0]


def _encode(held: Holder[Model], frames: Frames) -> torch.Tensor:
    model, placed = held.placed.model, held.placed

    def pixels() -> Iterator[torch.Tensor]:
        for frame in frames:
            yield vae_pixels(frame, held.device)[:, :, None].to(held.dtype)

    chunks = encoded(model.vae_encoder, _joined(pixels(), placed.placement.decode_frames))
    latents = torch.cat([chunk.float() for chunk in chunks], dim=2)
    mean, std = model.latent_mean.to(held.device), model.latent_std.to(held.device)
    return (latents - mean) / std


def _joined(frames: Iterator[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    """Frames (1, 3, 1, H, W) in chunks of up to ``count``."""
    while some := list(islice(frames, count)):
        yield torch.cat(some, dim=2)


def _embed(held: Holder[TextModel], text: str) -> torch.Tensor:
    model = held.placed.model
    ids = model.tokenizer(text, max_length=model.facts.max_sequence_length, truncation=True).input_ids
    rows = functional.embedding(torch.tensor([ids]), model.token_embeds)
    embeds: torch.Tensor = model.components[TEXT_ENCODER](rows.to(held.device))
    return embeds
