"""Denoising: the starting latents of a window, and the loop over its steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from farm.planning import RenderTask
from nodes.engines.common import Holder, frame_noise
from nodes.engines.engine import Frames
from nodes.engines.svd.encode import Conditioning, encode_video
from nodes.engines.svd.layout import UNET
from nodes.engines.svd.model import Model

OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: called after every denoising step; may raise to stop."""


def initial_latents(
    held: Holder[Model], task: RenderTask, video: Frames | None = None
) -> tuple[torch.Tensor, range]:
    """Noised latents (F, C, h, w) of a task and the steps left to run on them.

    From noise: all steps. From a video: its latents noised to where the last ``task.strength`` of the steps
    begin (SDEdit, Meng et al. 2022).
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
    return encode_video(held, video) + noise * scheduler.sigmas[start], range(start, total)


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

    Euler's method over Karras' noise levels (Karras et al. 2022), without noise of its own: a schedule may be
    run in pieces.

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    placed = held.placed
    scheduler = placed.model.scheduler
    scheduler.set_timesteps(num_inference_steps)
    sigmas = scheduler.sigmas.tolist()
    steps = range(num_inference_steps) if steps is None else steps
    latents = latents.to(held.device, torch.float32)
    with placed.on_card(UNET):
        for done, step in enumerate(steps, start=1):
            sigma, after = sigmas[step], sigmas[step + 1]
            scale = (sigma**2 + 1) ** 0.5
            velocity = _predict(held, latents / scale, scheduler.timesteps[step], conditioning)
            clean = latents / scale**2 - velocity * (sigma / scale)
            latents = latents + (latents - clean) * ((after - sigma) / sigma)
            if not bool(torch.isfinite(latents).all()):
                raise FloatingPointError(
                    f"step {step + 1} of {num_inference_steps} gave values that are not finite in "
                    f"{held.dtype}: lower the guidance scale"
                )
            if on_step is not None:
                on_step(done, len(steps))
    return latents


def _predict(
    held: Holder[Model], scaled: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    placed = held.placed
    unet = placed.model.components[UNET]
    sample = scaled.to(held.dtype)[None]  # (1, F, C, h, w)
    at_once = placed.placement.guided_batch
    size = 1 if held.on_cpu else at_once

    def predict(first: int) -> torch.Tensor:
        rows = slice(first, first + size)
        pictures = conditioning.image_latents[rows, None].expand(-1, len(scaled), -1, -1, -1)
        predicted: torch.Tensor = unet(
            torch.cat([sample.expand(len(pictures), -1, -1, -1, -1), pictures], dim=2),
            timestep.to(held.device),
            conditioning.context[rows],
            conditioning.added_time_ids[rows],
        )
        return predicted

    firsts = range(0, len(conditioning.context), size)
    # Streamed weights are there for one pass at a time.
    streamed = placed.placement.denoiser_streamed
    rows = torch.cat(held.calls.map(predict, firsts, at_once=1 if streamed else at_once))
    return rows[0] + conditioning.guidance * (rows[1] - rows[0]) if conditioning.guided else rows[0]
