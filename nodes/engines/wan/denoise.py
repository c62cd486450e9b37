"""Denoising: the starting latents of a window, and the loop over its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from farm.planning import RenderTask
from nodes.engines.common import Holder, causal_indices, frame_noise
from nodes.engines.engine import Frames
from nodes.engines.tokens import runs_of
from nodes.engines.wan.causal_vae import encode_video
from nodes.engines.wan.model import Given, Model, Text
from nodes.engines.wan.steps import Step, by_expert, last_steps, schedule

OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: called after every denoising step; may raise to stop."""
Noise = Callable[[int], torch.Tensor]
"""``noise(draw)``: noise of the latents' shape; draw 0 is where a window starts from, each other is fresh."""

#: Keys of a task's noise beside its frames' own numbers: of reference latents, and of fresh noise by step.
_REFERENCE, _DRAW = 2**37, 2**28


def noise_of(held: Holder[Model], task: RenderTask, *, num_references: int = 0) -> Noise:
    """The noise of a task's latents (C, R + L, h, w), the same on any machine."""
    model = held.placed.model
    frames = causal_indices(task.frame_indices, model.folder.frames_per_latent)
    indices = [*(_REFERENCE + number for number in range(num_references)), *frames]

    def draw(number: int) -> torch.Tensor:
        drawn = frame_noise(
            task.seed,
            [index + number * _DRAW for index in indices],
            model.latent_shape(task.height, task.width),
            noise_level=task.noise_level,
            take=task.take,
        )
        return torch.from_numpy(drawn).to(held.device).transpose(0, 1)

    return draw


def steps_of(held: Holder[Model], num_inference_steps: int) -> list[Step]:
    """The steps of the model's schedule."""
    folder, facts = held.placed.model.folder, held.placed.model.facts
    return schedule(
        folder.scheduler, num_inference_steps, flow_shift=facts.flow_shift, timesteps=facts.timesteps
    )


def initial_latents(
    held: Holder[Model], task: RenderTask, noise: torch.Tensor, video: Frames | None = None
) -> tuple[torch.Tensor, list[Step]]:
    """Noised latents (C, L, h, w) of a task and the steps left to run on them: from noise all, from a video
    its latents at the level the last strength x steps begin with.
    """
    steps = steps_of(held, task.num_inference_steps)
    if video is None or task.strength is None:
        return noise, steps
    steps = last_steps(steps, task.strength)
    sigma = steps[0].sigma
    clean = encode_video(held, video)
    references = noise.shape[1] - clean.shape[1]
    noised = (1 - sigma) * clean + sigma * noise[:, references:]
    return torch.cat([noise[:, :references], noised], dim=1), steps


@torch.no_grad()
def denoise(
    held: Holder[Model],
    latents: torch.Tensor,
    text: Text,
    given: Given,
    *,
    steps: Sequence[Step],
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Run the steps on latents (C, R + L, h, w) float32 and return (C, L, h, w), references dropped.

    A step has no memory of the one before, so a schedule may be run in pieces. Each expert is on the card for
    its own steps alone.

    Args:
        held: The loaded model.
        latents: Noised latents at the level of the first step.
        text: Encoded prompts.
        given: What the window is given (``condition``).
        steps: To be run.
        noise: Fresh noise, for models that step to the next level with it.
        on_step: Called after every step.

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    model = held.placed.model
    latents = latents.to(held.device, torch.float32)
    fresh = noise if model.facts.solver == "renoise" else None
    done = 0
    for expert, share in by_expert(list(steps), model.folder.experts, model.folder.boundary):
        with held.placed.on_card(expert):
            for step in share:
                velocity = _velocity(held, expert, latents, step, text, given)
                done += 1
                if fresh is None or step.next_sigma == 0:
                    latents = latents + (step.next_sigma - step.sigma) * velocity
                else:
                    clean = latents - step.sigma * velocity
                    latents = (1 - step.next_sigma) * clean + step.next_sigma * fresh(done)
                if not bool(torch.isfinite(latents).all()):
                    raise FloatingPointError(
                        f"step {done} of {len(steps)} gave values that are not finite in {held.dtype}: lower "
                        "the guidance scale, or a LoRA's, or load the model in bfloat16"
                    )
                if on_step is not None:
                    on_step(done, len(steps))
    return _with_clean(latents, given)[:, given.num_references :]


def _with_clean(latents: torch.Tensor, given: Given) -> torch.Tensor:
    if given.in_place is None:
        return latents
    clean, free = given.in_place
    return (1 - free) * clean + free * latents


def _velocity(
    held: Holder[Model], expert: str, latents: torch.Tensor, step: Step, text: Text, given: Given
) -> torch.Tensor:
    """What the model predicts at a step (C, R + L, h, w): one pass for each prompt, one after another."""
    placed = held.placed
    transformer = placed.model.components[expert]
    sample = _with_clean(latents, given)
    if given.channels is not None:
        sample = torch.cat([sample, given.channels])
    sample = sample[None].to(held.dtype)
    more: dict[str, Any]
    if given.control is None:
        # What is given in its place has no noise.
        levels = [1.0] * latents.shape[1] if given.in_place is None else given.in_place[1].flatten().tolist()
        tokens = latents.shape[2] * latents.shape[3] // placed.model.folder.patch**2
        distinct, runs = runs_of(levels, tokens)
        timesteps = [level * step.timestep for level in distinct]
        more = {"runs": runs}
    else:
        timesteps = [step.timestep]
        more = {"control_hidden_states": given.control[None].to(held.dtype), "return_dict": False}
    timestep = torch.tensor(timesteps, device=held.device)

    def predict(prompt: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = transformer(
            hidden_states=sample, timestep=timestep, encoder_hidden_states=prompt, **more
        )[0]
        return made[0].float()

    made = held.calls.map(predict, text.rows, at_once=placed.placement.guided_batch)
    if len(made) == 1:
        return made[0]
    return made[1] + text.guidance_scale * (made[0] - made[1])
