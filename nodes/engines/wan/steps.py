"""The noise levels a schedule steps through, without history, and which expert takes which step. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farm.errors import CannotRun

_SCHEDULERS = ("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler")


@dataclass(frozen=True)
class Step:
    """From noise level ``sigma`` (1: noise alone) to ``next_sigma``. ``timestep``: what the model is told."""

    sigma: float
    next_sigma: float
    timestep: float


def check_scheduler(config: dict[str, Any]) -> None:
    """Raise CannotRun when a folder's scheduler is none whose levels are known here."""
    name = config.get("_class_name")
    is_flow = name == _SCHEDULERS[1] or (name == _SCHEDULERS[0] and config.get("use_flow_sigmas"))
    if not is_flow or config.get("use_dynamic_shifting"):
        raise CannotRun(
            f"the scheduler is {name}, expected one of {', '.join(_SCHEDULERS)} over flow sigmas of a fixed "
            "shift: the levels of other schedulers are not known here",
            param="model",
        )


def schedule(
    config: dict[str, Any],
    num_steps: int,
    *,
    flow_shift: float | None = None,
    timesteps: tuple[float, ...] = (),
) -> list[Step]:
    """The steps of a folder's scheduler, from noise to none.

    Levels and timesteps are those of the stock schedulers: UniPC cuts timesteps to whole numbers and keeps
    its first below 1000, the flow-matching Euler scheduler shifts its range and the levels in it.

    Args:
        config: scheduler_config.json.
        num_steps: How many.
        flow_shift: In place of the scheduler's.
        timesteps: The levels (times 1000) of a few-step model, used when there are ``num_steps`` of them.
    """
    levels = int(config.get("num_train_timesteps") or 1000)
    is_unipc = config.get("_class_name") == _SCHEDULERS[0]
    shift = flow_shift or float(config.get("flow_shift" if is_unipc else "shift") or 1.0)

    def shifted(sigma: float) -> float:
        return shift * sigma / (1 + (shift - 1) * sigma)

    if len(timesteps) == num_steps:
        sigmas = [each / levels for each in timesteps]
        told = list(timesteps)
    elif is_unipc:
        even = _evenly(1.0, 1 / levels, num_steps + 1)[:-1]
        sigmas = [shifted(each) for each in even]
        told = [float(int(min(sigma, 1 - 1e-6) * levels)) for sigma in sigmas]
    else:
        sigmas = [shifted(each) for each in _evenly(1.0, shifted(1 / levels), num_steps)]
        told = [sigma * levels for sigma in sigmas]
    return [
        Step(sigma, following, timestep)
        for sigma, following, timestep in zip(sigmas, [*sigmas[1:], 0.0], told, strict=True)
    ]


def _evenly(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * i / max(1, count - 1) for i in range(count)]


def by_expert(
    steps: list[Step], experts: tuple[str, ...], boundary: float | None, *, levels: int = 1000
) -> list[tuple[str, list[Step]]]:
    """The steps of each expert that has any, in order: the first takes those from the boundary up."""
    if boundary is None:
        return [(experts[0], steps)]
    high = [step for step in steps if step.timestep >= boundary * levels]
    shares = ((experts[0], high), (experts[1], steps[len(high) :]))
    return [(expert, share) for expert, share in shares if share]


def last_steps(steps: list[Step], strength: float) -> list[Step]:
    """The steps left when a video is noised to ``strength`` in (0, 1] (SDEdit, Meng et al. 2022)."""
    return steps[len(steps) - min(max(int(len(steps) * strength), 1), len(steps)) :]
