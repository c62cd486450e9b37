"""Keeping a chain of windows to the colours of its first: statistics of a latent's channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def channel_statistics(latent: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Mean and standard deviation of each channel of a latent (C, h, w)."""
    return {
        "mean": latent.mean(axis=(1, 2), dtype=np.float64).astype(np.float32),
        "std": latent.std(axis=(1, 2), dtype=np.float64).astype(np.float32),
    }


def pulled_to_anchor(
    latent: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    """Pull each channel's mean and deviation towards the anchor's (AdaIN, Huang & Belongie 2017).

    ``strength`` 0 leaves the latent (C, h, w) as it is, 1 gives it the anchor's statistics.
    """
    own = channel_statistics(latent)
    shape = (-1, 1, 1)
    normal = (latent - own["mean"].reshape(shape)) / np.maximum(own["std"].reshape(shape), 1e-6)
    anchored = normal * std.reshape(shape) + mean.reshape(shape)
    return ((1 - strength) * latent + strength * anchored).astype(np.float32)
