"""Denoising: the loop over a window's steps."""

from __future__ import annotations

import torch

from nodes.engines.common import Holder, OnStep, run_steps
from nodes.engines.i2vgen_xl.conditioning import Conditioning
from nodes.engines.i2vgen_xl.model import Model


@torch.no_grad()
def denoise(
    held: Holder[Model],
    latents: torch.Tensor,
    conditioning: Conditioning,
    *,
    num_inference_steps: int,
    steps: range | None = None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Run the given steps of a schedule of ``num_inference_steps`` on latents (F, C, h, w) float32.

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    return run_steps(
        held,
        "unet",
        latents,
        lambda latents, timestep: _predict(held, latents, timestep, conditioning),
        num_inference_steps=num_inference_steps,
        steps=steps,
        on_step=on_step,
    )


def _predict(
    held: Holder[Model], latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    placed = held.placed
    unet = placed.model.components["unet"]
    sample = latents.to(held.dtype).transpose(0, 1)[None]  # (1, C, F, h, w)
    at_once = placed.placement.guided_batch
    size = 1 if held.on_cpu else at_once

    def predict(first: int) -> torch.Tensor:
        prompt_embeds = conditioning.prompt_embeds[first : first + size]
        count = len(prompt_embeds)
        predicted: torch.Tensor = unet(
            sample.expand(count, -1, -1, -1, -1),
            timestep.to(held.device),
            fps=torch.full((count,), conditioning.fps, device=held.device),
            image_latents=conditioning.image_latents.expand(count, -1, -1, -1, -1),
            image_embeddings=conditioning.image_embeds[first : first + size],
            encoder_hidden_states=prompt_embeds,
        ).sample
        return predicted.float()

    rows = range(0, conditioning.prompt_embeds.shape[0], size)
    # Streamed weights are there for one pass at a time.
    streamed = placed.placement.denoiser_streamed
    guided = torch.cat(held.calls.map(predict, rows, at_once=1 if streamed else at_once))
    if conditioning.guided:
        guided = guided[:1] + conditioning.guidance_scale * (guided[1:] - guided[:1])
    return guided[0].transpose(0, 1)
