"""Encoding: a prompt and an image to what the denoising loop reads."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from nodes.engines.common import Holder, encode_frame, image_hash
from nodes.engines.i2vgen_xl.conditioning import Conditioning, clip_pixels, with_frame_clock
from nodes.engines.i2vgen_xl.model import Model


@torch.no_grad()
def encode(
    held: Holder[Model],
    image: NDArray[np.uint8],
    prompt: str,
    negative_prompt: str = "",
    *,
    num_frames: int,
    fps: float,
    guidance_scale: float,
    first_latent: NDArray[np.float32] | None = None,
    generator: torch.Generator | None = None,
) -> Conditioning:
    """Make the conditioning of a window. Embeddings and latents are cached by content.

    Args:
        held: The loaded model.
        image: (H, W, 3) uint8 at the size to render.
        prompt: What should happen.
        negative_prompt: What should not.
        num_frames: Frames of the window.
        fps: Frame rate the motion is meant for.
        guidance_scale: Over 1 guides, at twice the work.
        first_latent: (C, h, w) latent of the first frame; the image is not encoded then.
        generator: Draw the first frame's latent from the VAE's distribution as the stock pipeline does, in
            place of its mode.
    """
    placed, model = held.placed, held.placed.model
    texts = [negative_prompt, prompt] if guidance_scale > 1 else [prompt]
    prompt_embeds = held.cached(
        "text_encoder", [(f"text {text}", partial(_embed_text, held, model, text)) for text in texts]
    )
    key = image_hash(image)
    image_embeds = held.cached("image_encoder", [(f"image {key}", partial(_embed_image, held, model, image))])
    if first_latent is not None:
        first = torch.from_numpy(first_latent.copy())[None].to(held.device, held.dtype)
    elif generator is not None:
        with placed.on_card("vae"):
            first = held.made(partial(encode_frame, held, image, generator)).to(held.dtype)
    else:
        first = held.cached("vae", [(f"latent {key}", partial(encode_frame, held, image))])
        first = first.to(held.dtype)
    if guidance_scale > 1:
        image_embeds = torch.cat([torch.zeros_like(image_embeds), image_embeds])
    return Conditioning(
        prompt_embeds=prompt_embeds,
        image_embeds=image_embeds,
        image_latents=with_frame_clock(first, num_frames),
        fps=fps,
        guidance_scale=guidance_scale,
    )


def _embed_text(held: Holder[Model], model: Model, text: str) -> torch.Tensor:
    tokens = model.tokenizer(
        text,
        padding="max_length",
        max_length=model.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    embeds: torch.Tensor = model.components["text_encoder"](tokens.input_ids.to(held.device))
    return embeds


def _embed_image(held: Holder[Model], model: Model, image: NDArray[np.uint8]) -> torch.Tensor:
    pixels = clip_pixels(image, size=model.clip_size, mean=model.clip_mean, std=model.clip_std)
    encoded = model.components["image_encoder"](pixels.to(held.device, held.dtype))
    embeds: torch.Tensor = encoded.image_embeds
    return embeds[:, None]
