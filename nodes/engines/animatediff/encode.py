"""Encoding: prompts and given frames to what the denoising loop reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from nodes.engines.animatediff.layout import IMAGE_ENCODER, TEXT_ENCODER, VAE
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
    #: (B, K, D): tokens of references, of none in the negative row.
    look: torch.Tensor | None = None

    @property
    def guided(self) -> bool:
        return len(self.text) == 2

    def within(self, frames: slice) -> Conditioning:
        """That of some frames of the window."""
        return self if self.given is None else replace(self, given=self.given[frames])


@torch.no_grad()
def encode(
    held: Holder[Model],
    prompt: str,
    negative_prompt: str = "",
    *,
    known: Known,
    num_frames: int,
    guidance_scale: float,
    references: Sequence[NDArray[np.uint8]] = (),
) -> Conditioning:
    """Make the conditioning of a window. Embeddings and latents are cached by content.

    Args:
        held: The loaded model.
        prompt: What should be seen.
        negative_prompt: What should not.
        known: Frames that are given.
        num_frames: Of the window.
        guidance_scale: Over 1 guides, at twice the work.
        references: Pictures (H, W, 3) of any size that the window is to look like.
    """
    texts = [negative_prompt, prompt] if guidance_scale > 1 else [prompt]
    text = held.cached(TEXT_ENCODER, [(f"text {each}", partial(_embed, held, each)) for each in texts])
    look = _look(held, references)[-len(texts) :] if len(references) else None
    if not known:
        return Conditioning(text, None, guidance_scale, look)
    latents = held.cached(
        VAE, [(f"latent {image_hash(frame)}", partial(encode_frame, held, frame)) for frame in known.values()]
    )
    marked = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).to(held.dtype)
    given = marked.new_zeros(num_frames, *marked.shape[1:])
    given[list(known)] = marked
    return Conditioning(text, given, guidance_scale, look)


def _look(held: Holder[Model], references: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """(2, K, D): tokens of as many pictures of nothing, and of these."""
    seen = held.cached(
        IMAGE_ENCODER, [(f"look {image_hash(each)}", partial(_seen, held, each)) for each in references]
    )
    return seen.transpose(0, 1).flatten(1, 2).to(held.dtype)


def _seen(held: Holder[Model], picture: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 2, T, D)."""
    model = held.placed.model
    prepared = model.image_processor(Image.fromarray(picture), return_tensors="pt").pixel_values
    tokens: torch.Tensor = model.components[IMAGE_ENCODER](prepared.to(held.device, held.dtype))
    return tokens


def _embed(held: Holder[Model], text: str) -> torch.Tensor:
    """(1, L, D)."""
    tokenizer = held.placed.model.tokenizer
    text = with_every_vector(text, held.placed.model.inversions)
    length = tokenizer.model_max_length
    tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    encoded = held.placed.model.components[TEXT_ENCODER](tokens.input_ids.to(held.device))
    embeds: torch.Tensor = encoded.last_hidden_state
    return embeds
