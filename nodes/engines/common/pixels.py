"""Frames to the numbers a VAE reads, and back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def vae_pixels(frame: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def frames_of(pixels: torch.Tensor) -> torch.Tensor:
    """(F, 3, H, W) about [-1, 1] to (F, H, W, 3) uint8 on the host."""
    unit = (pixels.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
