"""The noise levels of a window's steps, without history. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def schedule(
    config: dict[str, Any], num_steps: int, *, tokens: int, listed: Sequence[float] = ()
) -> list[float]:
    """``num_steps`` + 1 noise levels: the first of noise alone, the last 0.

    As the stock pipelines have them: a scheduler that shifts by the number of tokens (0.9.0) starts from even
    levels; any other (0.9.5 and later) has half of its steps in the first 2.5 % and goes down with the square
    from there. A model with a list of its own levels walks that: every n-th for fewer steps, and levels in
    between for more.

    Args:
        config: scheduler_config.json.
        num_steps: Steps from noise to none.
        tokens: Tokens of the window, without those of given frames: every window of a size has the same
            levels, whatever it is given.
        listed: The levels a few-step model was trained on, without the last 0.
    """
    if listed:
        walked = np.linspace(0, len(listed), num_steps + 1)
        return [float(level) for level in np.interp(walked, range(len(listed) + 1), [*listed, 0.0])]
    if config.get("use_dynamic_shifting"):
        levels = _shifted_by_tokens(np.linspace(1.0, 1 / num_steps, num_steps), config, tokens)
    else:
        levels = np.array(_linear_quadratic(num_steps))
        shift = float(config.get("shift") or 1.0)
        levels = shift * levels / (1 + (shift - 1) * levels)
    if (terminal := config.get("shift_terminal")) and levels[-1] < 1:
        levels = 1 - (1 - levels) * (1 - terminal) / (1 - levels[-1])
    return [*(float(level) for level in levels), 0.0]


def _shifted_by_tokens(levels: np.ndarray, config: dict[str, Any], tokens: int) -> np.ndarray:
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = low + (high - low) * (tokens - few) / (many - few)
    if config.get("time_shift_type", "exponential") == "exponential":
        mu = math.exp(mu)
    return np.asarray(mu / (mu + (1 / levels - 1)))


def _linear_quadratic(num_steps: int, *, slow_until: float = 0.025) -> list[float]:
    if num_steps < 2:
        return [1.0]
    slow = num_steps // 2
    fast = num_steps - slow
    bend = (slow - slow_until * num_steps) / (slow * fast**2)
    slope = slow_until / slow - 2 * (slow - slow_until * num_steps) / fast**2
    start = bend * slow**2
    removed = [i * slow_until / slow for i in range(slow)]
    removed += [bend * i**2 + slope * i + start for i in range(slow, num_steps)]
    return [1 - each for each in removed]
