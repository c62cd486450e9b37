"""Denoising: the starting latents of a window, and the loop over its steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from farm.planning import RenderTask
from nodes.engines.common import Holder, frame_noise
from nodes.engines.engine import Frames
from nodes.engines.i2vgen_xl.conditioning import Conditioning
from nodes.engines.i2vgen_xl.encode import encode_video
from nodes.engines.i2vgen_xl.model import Model

OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: called after every denoising step; may raise to stop."""


def initial_latents(
    held: Holder[Model], task: RenderTask, video: Frames | None = None
) -> tuple[torch.Tensor, range]:
    """Noised latents (F, C, h, w) of a task and the steps left to run on them.

    From noise: all steps. From a video: its latents noised to ``task.strength``, and the last
    strength x steps (SDEdit, Meng et al. 2022).
    """
    model = held.placed.model
    drawn = frame_noise(
        task.seed,
        task.frame_indices,
        model.latent_shape(task.height, task.width),
        noise_level=task.noise_level,
        take=task.take,
    )
    noise = torch.from_numpy(drawn).to(held.device)
    scheduler = model.scheduler
    scheduler.set_timesteps(task.num_inference_steps)
    total = len(scheduler.timesteps)
    if video is None or task.strength is None:
        return noise * scheduler.init_noise_sigma, range(total)
    start = total - min(max(int(total * task.strength), 1), total)
    clean = encode_video(held, video)
    return scheduler.add_noise(clean, noise, scheduler.timesteps[start : start + 1]), range(start, total)


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

    DDIM without noise has no memory between steps, so a schedule may be run in pieces, and overlapping
    windows may be fused in between.

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    placed = held.placed
    scheduler = placed.model.scheduler
    scheduler.set_timesteps(num_inference_steps)
    steps = range(len(scheduler.timesteps)) if steps is None else steps
    latents = latents.to(held.device, torch.float32)
    with placed.on_card("unet"):
        for done, step in enumerate(steps, start=1):
            timestep = scheduler.timesteps[step]
            predicted = _predict(held, latents, timestep, conditioning)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
            if not bool(torch.isfinite(latents).all()):
                raise FloatingPointError(
                    f"step {step + 1} of {num_inference_steps} gave values that are not finite in "
                    f"{held.dtype}: lower the guidance scale, or load the model in bfloat16"
                )
            if on_step is not None:
                on_step(done, len(steps))
    return latents


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
