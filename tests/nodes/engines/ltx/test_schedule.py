from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nodes.engines.ltx.facts import DistilledFacts
from nodes.engines.ltx.schedule import schedule
from tests.nodes.engines.ltx.conftest import OLD_SCHEDULER

DISTILLED = DistilledFacts().sigmas


def test_a_distilled_model_steps_through_its_own_levels() -> None:
    assert schedule({}, 8, tokens=6930, listed=DISTILLED) == [*DISTILLED, 0.0]


def test_fewer_steps_of_a_distilled_model_are_every_second_of_its_levels() -> None:
    assert schedule({}, 4, tokens=6930, listed=DISTILLED) == [1.0, 0.9875, 0.975, 0.725, 0.0]


@pytest.mark.parametrize("listed", [(), DISTILLED])
@pytest.mark.parametrize("config", [{}, {"shift": 3.0}, OLD_SCHEDULER])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 40])
def test_levels_go_down_from_noise_alone_to_none(
    config: dict[str, Any], num_steps: int, listed: tuple[float, ...]
) -> None:
    levels = schedule(config, num_steps, tokens=6930, listed=listed)
    assert len(levels) == num_steps + 1
    assert levels[0] == 1.0
    assert levels[-1] == 0.0
    assert all(np.diff(levels) < 0)


@pytest.mark.torch
@pytest.mark.parametrize("num_steps", [2, 5, 40])
def test_levels_are_the_stock_schedulers(num_steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
    from diffusers.pipelines.ltx.pipeline_ltx_image2video import calculate_shift

    fixed: Any = FlowMatchEulerDiscreteScheduler(shift=2.0)
    fixed.set_timesteps(timesteps=linear_quadratic_schedule(num_steps) * 1000)
    assert np.allclose(schedule({"shift": 2.0}, num_steps, tokens=24), fixed.sigmas, atol=1e-6)
    shifted: Any = FlowMatchEulerDiscreteScheduler(**OLD_SCHEDULER)
    for tokens in (24, 6930):
        mu = calculate_shift(tokens, 1024, 4096, 0.95, 2.05)
        shifted.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        assert np.allclose(schedule(OLD_SCHEDULER, num_steps, tokens=tokens), shifted.sigmas, atol=1e-6)
