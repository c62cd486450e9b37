"""Encoding: prompts and given frames to what the denoising loop reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from nodes.engines.animatediff.layout import TEXT_ENCODER, VAE
from nodes.engines.animatediff.model import Model
from nodes.engines.animatediff.textual_inversions import with_every_vector
from nodes.engines.common import Holder, encode_frame, image_hash

Known = Mapping[int, NDArray[np.uint8]]
"""Frames (H, W, 3) by position in the window."""


@dataclass(frozen=True)
class Conditioning:
    """Everything a denoising step needs beside the latents. Tensors are on the device, in its dtype.

    ``text`` (B, L, D) holds the negative row first; without guidance the positive row alone. ``given``
    (F, C + 1, h, w): latents of given frames with ones behind them, else zeros; None where none is given.
    """

    text: torch.Tensor
    given: torch.Tensor | None
    guidance_scale: float

    @property
    def guided(self) -> bool:
        return len(self.text) == 2


@torch.no_grad()
def encode(
    held: Holder[Model],
    prompt: str,
    negative_prompt: str = "",
    *,
    known: Known,
    num_frames: int,
    guidance_scale: float,
) -> Conditioning:
    """Make the conditioning of a window. Embeddings and latents are cached by content.

    Args:
        held: The loaded model.
        prompt: What should be seen.
        negative_prompt: What should not.
        known: Frames that are given.
        num_frames: Of the window.
        guidance_scale: Over 1 guides, at twice the work.
    """
    texts = [negative_prompt, prompt] if guidance_scale > 1 else [prompt]
    text = held.cached(TEXT_ENCODER, [(f"text {each}", partial(_embed, held, each)) for each in texts])
    if not known:
        return Conditioning(text, None, guidance_scale)
    latents = held.cached(
        VAE, [(f"latent {image_hash(frame)}", partial(encode_frame, held, frame)) for frame in known.values()]
    )
    marked = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).to(held.dtype)
    given = marked.new_zeros(num_frames, *marked.shape[1:])
    given[list(known)] = marked
    return Conditioning(text, given, guidance_scale)


def _embed(held: Holder[Model], text: str) -> torch.Tensor:
    """(1, L, D)."""
    tokenizer = held.placed.model.tokenizer
    text = with_every_vector(text, held.placed.model.inversions)
    length = tokenizer.model_max_length
    tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    encoded = held.placed.model.components[TEXT_ENCODER](tokens.input_ids.to(held.device))
    embeds: torch.Tensor = encoded.last_hidden_state
    return embeds
