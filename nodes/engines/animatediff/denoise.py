"""Denoising: the loop over a window's steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import LCMScheduler

from farm.planning import RenderTask
from nodes.engines.animatediff.contexts import contexts, noise_keys
from nodes.engines.animatediff.encode import Conditioning
from nodes.engines.animatediff.layout import DENOISER
from nodes.engines.animatediff.model import Model
from nodes.engines.common import Holder, OnStep, frame_noise, run_steps, starting_latents
from nodes.engines.engine import Frames

#: A step's noise is keyed apart from the starting noise and other steps' by so many frames for each step.
_FRAMES_OF_A_STEP = 2**28


@torch.no_grad()
def denoise(
    held: Holder[Model],
    latents: torch.Tensor,
    conditioning: Conditioning,
    *,
    num_inference_steps: int,
    steps: range | None = None,
    on_step: OnStep | None = None,
    noise: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run the given steps of a schedule of ``num_inference_steps`` on latents (F, C, h, w) float32.

    ``noise``: of a step, for a model whose steps add some (see ``step_noise``).

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    return run_steps(
        held,
        DENOISER,
        latents,
        lambda latents, timestep: _predict(held, latents, timestep, conditioning),
        num_inference_steps=num_inference_steps,
        steps=steps,
        on_step=on_step,
        noise=noise,
    )


def starting_noise(
    held: Holder[Model], task: RenderTask, video: Frames | None = None
) -> tuple[torch.Tensor, range]:
    """``starting_latents`` of a window; one of several contexts starts with noise that they share."""
    size = held.spec.context_frames
    if size is not None and task.num_frames > size:
        keys = noise_keys(task.frame_indices, task.shot_start, size, task.seed)
        task = task.model_copy(update={"frame_indices": tuple(keys)})
    return starting_latents(held, task, video)


def step_noise(held: Holder[Model], task: RenderTask) -> Callable[[int], torch.Tensor] | None:
    """What the steps of a task add, by their number: the same for a frame in every window and on any machine;
    None of a model whose steps add none."""
    model = held.placed.model
    if not isinstance(model.scheduler, LCMScheduler):
        return None
    shape = model.latent_shape(task.height, task.width)

    def of(step: int) -> torch.Tensor:
        keys = [_FRAMES_OF_A_STEP * (step + 1) + frame for frame in task.frame_indices]
        drawn = frame_noise(task.seed, keys, shape, noise_level=task.noise_level, take=task.take)
        return torch.from_numpy(drawn).to(held.device)

    return of


def _predict(
    held: Holder[Model], latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    """The noise of every frame (F, C, h, w), as its contexts see it on average."""
    size = held.spec.context_frames or len(latents)
    if len(latents) <= size:
        return _predict_context(held, latents, timestep, conditioning)
    total = torch.zeros_like(latents)
    seen = latents.new_zeros(len(latents), 1, 1, 1)
    for context in contexts(len(latents), size):
        frames = slice(context.start, context.stop)
        total[frames] += _predict_context(held, latents[frames], timestep, conditioning.within(frames))
        seen[frames] += 1
    return total / seen


def _predict_context(
    held: Holder[Model], latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    placed = held.placed
    denoiser = placed.model.components[DENOISER]
    sample = latents.to(held.dtype)
    at_once = placed.placement.guided_batch
    size = 1 if held.on_cpu else at_once

    def predict(first: int) -> torch.Tensor:
        rows = slice(first, first + size)
        look = None if conditioning.look is None else conditioning.look[rows]
        predicted: torch.Tensor = denoiser(
            sample, timestep.to(held.device), conditioning.text[rows], conditioning.given, look
        )
        return predicted

    firsts = range(0, len(conditioning.text), size)
    # Streamed weights are there for one pass at a time.
    streamed = placed.placement.denoiser_streamed
    rows = torch.cat(held.calls.map(predict, firsts, at_once=1 if streamed else at_once))
    return rows[0] + conditioning.guidance_scale * (rows[1] - rows[0]) if conditioning.guided else rows[0]
