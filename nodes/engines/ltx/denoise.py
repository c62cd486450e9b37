"""Denoising: the starting latents of a window, and the loop over its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from farm.planning import RenderTask, num_steps_run
from nodes.engines.common import Holder, causal_indices, frame_noise
from nodes.engines.ltx.conditioning import Given, Window, next_level, window_of
from nodes.engines.ltx.layout import TRANSFORMER
from nodes.engines.ltx.model import Model
from nodes.engines.ltx.schedule import schedule
from nodes.engines.ltx.transformer import rotary_table
from nodes.engines.tokens import Run, runs_of

OnStep = Callable[[int, int], None]
"""``on_step(done, total)``: called after every denoising step; may raise to stop."""


def sigmas_of(held: Holder[Model], task: RenderTask) -> tuple[list[float], range]:
    """The noise levels of a task's whole schedule, and the steps that are run of it."""
    model = held.placed.model
    latents = (task.num_frames - 1) // model.folder.frames_per_latent + 1
    _, height, width = model.latent_shape(task.height, task.width)
    total = task.num_inference_steps
    levels = schedule(
        model.folder.scheduler, total, tokens=latents * height * width, listed=model.facts.sigmas
    )
    return levels, range(total - num_steps_run(total, task.strength), total)


def window_noise(held: Holder[Model], task: RenderTask) -> torch.Tensor:
    """(C, L, h, w) float32 on the device: of every latent of the task's window."""
    model = held.placed.model
    keys = causal_indices(task.frame_indices, model.folder.frames_per_latent)
    return drawn(held, task, keys, noise_level=task.noise_level)


def drawn(held: Holder[Model], task: RenderTask, keys: Sequence[int], *, noise_level: int) -> torch.Tensor:
    """Noise of a task by key, (C, len(keys), h, w) float32 on the device."""
    shape = held.placed.model.latent_shape(task.height, task.width)
    noise = frame_noise(task.seed, keys, shape, noise_level=noise_level, take=task.take)
    return torch.from_numpy(noise).transpose(0, 1).to(held.device)


def starting_window(
    held: Holder[Model],
    task: RenderTask,
    given: Sequence[Given],
    video: torch.Tensor | None,
) -> tuple[Window, list[float], range]:
    """The window of a task, its noise levels, and the steps left to run.

    From noise: all steps. From a video's latents (C, L, h, w): noised to ``task.strength``, and the last
    strength x steps (SDEdit, Meng et al. 2022).
    """
    levels, steps = sigmas_of(held, task)
    noise = window_noise(held, task)
    start = levels[steps.start]
    window = window_of(
        noise if video is None else start * noise + (1 - start) * video,
        noise,
        given,
        fps=task.fps,
        places=held.placed.model.places,
    )
    return window, levels, steps


@torch.no_grad()
def denoise(
    held: Holder[Model],
    window: Window,
    text: Sequence[torch.Tensor],
    *,
    sigmas: Sequence[float],
    guidance_scale: float,
    steps: range | None = None,
    condition_noise: float | None = None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Run the given steps from one noise level to the next; the window's latents (C, L, h, w) float32.

    Euler's method without history: a schedule may be run in pieces.

    Args:
        held: The loaded model.
        window: From ``starting_window``, or ``window_of``.
        text: Embeddings (1, L, T) of the prompt, and with guidance of the negative prompt after it.
        sigmas: Noise levels, one more than steps.
        guidance_scale: Counts where there are two texts.
        steps: Of the schedule; all unless given.
        condition_noise: Share of noise in what is given (see ``ModelFacts``); the model's unless given.
        on_step: Called after every step.

    Raises:
        FloatingPointError: a step gave values that are not finite.
    """
    placed, model = held.placed, held.placed.model
    steps = range(len(sigmas) - 1) if steps is None else steps
    share = model.facts.condition_noise if condition_noise is None else condition_noise
    tokens = window.tokens.to(held.device, torch.float32).clone()
    noise = window.noise.to(held.device)
    rotary = rotary_table(model.transformer.stock.rope, window.coordinates.to(held.device))
    per_latent = window.tokens_per_latent
    _, fixed = runs_of([float(strength == 1) for strength in window.strengths], per_latent)
    exact = [slice(run.start, run.stop) for run in fixed if window.strengths[run.start // per_latent] == 1]
    with placed.on_card(TRANSFORMER):
        for done, step in enumerate(steps, start=1):
            sigma = sigmas[step]
            seen = tokens.clone()
            for clean in exact:
                seen[clean] += share * sigma**2 * noise[clean]
            levels, runs = runs_of(window.levels(sigma), per_latent)
            velocity = _velocity(held, seen, text, levels, runs, rotary, guidance_scale)
            for run in runs:
                level = levels[run.row]
                moved = next_level(level, sigma, sigmas) - level
                if moved:
                    tokens[run.start : run.stop] += moved * velocity[run.start : run.stop]
            if not bool(torch.isfinite(tokens).all()):
                raise FloatingPointError(
                    f"step {step + 1} of {len(sigmas) - 1} gave values that are not finite in {held.dtype}: "
                    "lower the guidance scale, or a LoRA's, or render on a card that computes in bfloat16"
                )
            if on_step is not None:
                on_step(done, len(steps))
    return window.own_latents(tokens)


def _velocity(
    held: Holder[Model],
    tokens: torch.Tensor,
    text: Sequence[torch.Tensor],
    levels: Sequence[float],
    runs: Sequence[Run],
    rotary: torch.Tensor,
    guidance_scale: float,
) -> torch.Tensor:
    """Noise less picture of every token (N, C) float32; guidance passes one after another."""
    placed = held.placed
    timesteps = torch.tensor(levels, dtype=torch.float32, device=held.device) * 1000
    rows = tokens[None].to(held.dtype)

    def predict(prompt: torch.Tensor) -> torch.Tensor:
        predicted: torch.Tensor = placed.model.transformer(rows, prompt, timesteps, runs, rotary)
        return predicted[0].float()

    # Streamed weights are there for one pass at a time; a card computes one pass at a time anyway.
    at_once = 1 if placed.placement.denoiser_streamed else placed.placement.guided_batch
    passes = held.calls.map(predict, text, at_once=at_once)
    if len(passes) == 1:
        return passes[0]
    wanted, unwanted = passes
    return unwanted + guidance_scale * (wanted - unwanted)
