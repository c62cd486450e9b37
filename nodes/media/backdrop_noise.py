"""What skies and grounds of a backdrop are made of: fractal noise, soft steps, and the canvas they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass
class Canvas:
    """A picture with its sky painted, and what the ground must know of it."""

    #: (H, W, 3) in [0, 1].
    picture: Floats
    #: Row of the horizon.
    horizon: int
    #: (3,): far things fade into it, by ``haze`` at most.
    haze_colour: Floats
    haze: float
    light: Floats
    #: Of the ground under this sky: 1 in bright day.
    brightness: float
    #: Of the light, as a share of the width.
    sun_x: float
    rng: np.random.Generator
    #: Lamps are lit.
    at_night: bool


def fractal(rng: np.random.Generator, size: int, beta: float) -> Floats:
    """Periodic noise (size, size) of zero mean and unit deviation whose amplitude falls as 1/f**beta."""
    wave = np.fft.rfft2(rng.standard_normal((size, size)))
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(wave / frequency**beta, s=(size, size))
    scaled: Floats = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return scaled


def profile(rng: np.random.Generator, width: int, *, beta: float, waves: float) -> Floats:
    """A ridge line (width,), about -1 to 1: ``waves`` bends across the picture and finer ones in them."""
    count = np.arange(1, 257)
    amplitude = np.where(count < waves, (count / waves) ** 2, (count / waves) ** -beta) * rng.standard_normal(
        256
    )
    phase = rng.uniform(0, 2 * np.pi, 256)
    at = np.linspace(0, 2 * np.pi, width, endpoint=False)[:, None]
    line = (amplitude * np.cos(count * at + phase)).sum(axis=1)
    scaled: Floats = (line / (2.2 * line.std())).astype(np.float32)
    return scaled


def smoothstep(value: Floats, low: float, high: float) -> Floats:
    """0 at ``low``, 1 at ``high``, smooth between; ``low`` may be the larger."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    step: Floats = (t * t * (3.0 - 2.0 * t)).astype(np.float32)
    return step


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """``share`` of the second colour in the first."""
    a, b, c = (f + (s - f) * share for f, s in zip(first, second, strict=True))
    return a, b, c
