"""Starting noise that belongs to a frame, not to a machine.

Every frame's noise is drawn on the CPU from (seed, noise level, take, global frame number), so windows that
overlap start from the same noise where they overlap, any worker can draw any frame again, and the number of
workers changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LEVEL_BITS, _TAKE_BITS, _FRAME_BITS = 12, 12, 40
#: Added to the number of the frame that a causal window begins with: its latent stands for that frame alone,
#: where a window that holds the frame within has a latent of several.
_ONE_FRAME = 2 ** (_FRAME_BITS - 1)


def causal_indices(frame_indices: Sequence[int], frames_per_latent: int) -> list[int]:
    """What the noise of a causal window's latents is keyed by (see ``frame_noise``): one number a latent.

    A latent of several frames has the number of its last frame, the same in every window that holds it; the
    one-frame latent at the window's start has a key of its own.

    Args:
        frame_indices: Global numbers of the window's frames, ``frames_per_latent * k + 1`` of them.
        frames_per_latent: Of every latent but the first.
    """
    return [_ONE_FRAME + frame_indices[0], *frame_indices[frames_per_latent::frames_per_latent]]


def _number(name: str, value: int, bits: int) -> int:
    if not 0 <= value < 2**bits:
        raise ValueError(f"{name} is {value}: expected a whole number from 0 to 2**{bits} - 1")
    return value


def frame_noise(
    seed: int,
    frame_indices: Sequence[int],
    shape: tuple[int, int, int],
    *,
    noise_level: int = 0,
    take: int = 0,
) -> NDArray[np.float32]:
    """Standard normal noise for the given global frames.

    Each frame has its own Philox stream (Salmon et al., SC 2011): the 128-bit key is the 64-bit seed
    beside noise level, take and frame number, so no two frames, levels, takes or seeds share numbers.

    Args:
        seed: 0 to 2**64 - 1.
        frame_indices: Global frame numbers, in the order wanted.
        shape: (C, h, w) of one frame's latent.
        noise_level: Separates passes over the same frames (draft, keyframes, final).
        take: Counts re-renders.

    Returns:
        float32 array (F, C, h, w).

    Raises:
        ValueError: a number is negative or too large for its field of the key.
    """
    high = _number("seed", seed, 64)
    level = _number("noise_level", noise_level, _LEVEL_BITS) << (_TAKE_BITS + _FRAME_BITS)
    level |= _number("take", take, _TAKE_BITS) << _FRAME_BITS
    noise = np.empty((len(frame_indices), *shape), dtype=np.float32)
    for row, frame in zip(noise, frame_indices, strict=True):
        key = np.array([high, level | _number("frame index", frame, _FRAME_BITS)], dtype=np.uint64)
        np.random.Generator(np.random.Philox(key=key)).standard_normal(dtype=np.float32, out=row)
    return noise
