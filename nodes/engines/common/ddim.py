"""The loop of models that DDIM or LCM step: without memory between steps, and without noise of their own.

A schedule may be run in pieces, and overlapping windows may be fused in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from farm.planning import RenderTask
from nodes.engines.common.frame_vae import encode_frames
from nodes.engines.common.holder import Holder
from nodes.engines.common.noise import frame_noise
from nodes.engines.engine import Frames

OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: called after every denoising step; may raise to stop."""


def starting_latents(
    held: Holder[Any], task: RenderTask, video: Frames | None = None
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
    clean = encode_frames(held, video)
    return scheduler.add_noise(clean, noise, scheduler.timesteps[start : start + 1]), range(start, total)


def run_steps(
    held: Holder[Any],
    denoiser: str,
    latents: torch.Tensor,
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    num_inference_steps: int,
    steps: range | None = None,
    on_step: OnStep | None = None,
    noise: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run the given steps of a schedule on latents (F, C, h, w) float32, with a component on the card.

    Args:
        held: The loaded model.
        denoiser: The component.
        latents: To begin with.
        predict: Makes of latents and a timestep what the scheduler steps by, guidance within it.
        num_inference_steps: Of the schedule.
        steps: Which are run; None: all.
        on_step: Called after each.
        noise: Of a scheduler that adds noise in every step but the last (LCM): that of a step, in place of
            what it would draw; None of one that adds none.

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    placed = held.placed
    scheduler = placed.model.scheduler
    scheduler.set_timesteps(num_inference_steps)
    steps = range(len(scheduler.timesteps)) if steps is None else steps
    latents = latents.to(held.device, torch.float32)
    with placed.on_card(denoiser):
        for done, step in enumerate(steps, start=1):
            timestep = scheduler.timesteps[step]
            made = scheduler.step(predict(latents, timestep), timestep, latents)
            latents = made.prev_sample
            if noise is not None and step + 1 < len(scheduler.timesteps):
                kept = scheduler.alphas_cumprod[scheduler.timesteps[step + 1]]
                latents = kept.sqrt() * made.denoised + (1 - kept).sqrt() * noise(step)
            if not bool(torch.isfinite(latents).all()):
                raise FloatingPointError(
                    f"step {step + 1} of {num_inference_steps} gave values that are not finite in "
                    f"{held.dtype}: lower the guidance scale, or load the model in bfloat16"
                )
            if on_step is not None:
                on_step(done, len(steps))
    return latents
