"""Drawn looks for the procedural engine: each a function of one frame, so any frame can be drawn first."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


def _luma(values: Floats) -> Floats:
    """Rec. 601 luma (H, W) of RGB (H, W, 3), both in [0, 1]."""
    luma: Floats = values @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma


def _grey(frame: Image) -> Floats:
    return _luma(frame.astype(np.float32) / np.float32(255.0))


def _outline(grey: Floats, *, weight: float) -> Floats:
    """Soft dark lines (H, W): 1 on flat ground, down to 1 - weight on edges (difference of Gaussians)."""
    sigma = max(grey.shape) / 512
    near, far = (cv2.GaussianBlur(grey, (0, 0), sigma * wide).astype(np.float32) for wide in (1.0, 1.6))
    lines: Floats = 1.0 - np.float32(weight) * np.clip((far - near) * 30.0, 0.0, 1.0)
    return lines


def _flattened(frame: Image) -> Floats:
    """The frame (H, W, 3) in [0, 1] with texture smoothed away and edges kept."""
    smooth = frame
    for _ in range(2):
        smooth = cv2.bilateralFilter(smooth, 7, 40, 7).astype(np.uint8, copy=False)
    return smooth.astype(np.float32) / 255.0


def _to_frame(values: Floats) -> Image:
    rounded: Image = np.clip(np.rint(values * 255.0), 0, 255).astype(np.uint8)
    return rounded


@lru_cache(maxsize=2)
def _paper(height: int, width: int) -> Floats:
    """Grain of paper (H, W) around 1, the same under every frame."""
    noise = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)
    grain: Floats = 1.0 + np.float32(0.08) * cv2.GaussianBlur(noise, (0, 0), 1.2).astype(np.float32)
    return grain


def _watercolour(frame: Image) -> Image:
    """Smooth washes, lighter and more colourful, with darker rims, on grained paper."""
    flat = _flattened(frame)
    mean = flat.mean(axis=2, keepdims=True)
    wash = 1.0 - (1.0 - (mean + 1.4 * (flat - mean))) * np.float32(0.88)
    return _to_frame(wash * (_paper(*frame.shape[:2]) * _outline(_luma(flat), weight=0.4))[..., None])


def _pencil(frame: Image) -> Image:
    """Graphite on warm paper: luma divided by its own blur leaves the strokes."""
    grey = _grey(frame)
    strokes = grey / np.maximum(cv2.GaussianBlur(grey, (0, 0), max(grey.shape) / 80), 1e-2)
    tone = np.clip(strokes, 0.0, 1.0) ** 1.5 * (0.75 + 0.25 * grey)
    return _to_frame(tone[..., None] * np.array([1.0, 0.98, 0.94], np.float32))


def _cartoon(frame: Image) -> Image:
    """Flat colours in soft steps with inked edges. The steps are soft because hard ones would flicker."""
    flat = _flattened(frame)
    luma = _luma(flat)
    steps = np.float32(6.0)
    base = np.floor(luma * steps)
    stepped = (base + 0.5 + 0.5 * np.tanh(6.0 * (luma * steps - base - 0.5))) / steps
    gain = (stepped / np.maximum(luma, 1e-2))[..., None]
    mean = flat.mean(axis=2, keepdims=True)
    vivid = (mean + 1.3 * (flat - mean)) * gain
    return _to_frame(vivid * _outline(luma, weight=0.9)[..., None])


def _noir(frame: Image) -> Image:
    """Black and white with hard contrast and dark corners."""
    grey = _grey(frame)
    curve = 1.0 / (1.0 + np.exp(-9.0 * (grey - 0.45)))
    y, x = (np.linspace(-1.0, 1.0, side, dtype=np.float32) for side in grey.shape)
    corners = np.minimum(x[None, :] ** 2 + y[:, None] ** 2, np.float32(1.5))
    tone = curve * (1.0 - 0.35 * corners)
    return _to_frame(np.repeat(tone[..., None], 3, axis=2).astype(np.float32))


#: First match wins.
_LOOKS: tuple[tuple[str, Callable[[Image], Image]], ...] = (
    ("pencil", _pencil),
    ("watercolour", _watercolour),
    ("watercolor", _watercolour),
    ("cartoon", _cartoon),
    ("noir", _noir),
)


def look_for(prompt: str) -> Callable[[Image], Image]:
    """The look a prompt names (pencil, watercolour or watercolor, cartoon, noir), or watercolour.

    A look takes and gives one frame (H, W, 3) uint8.
    """
    words = prompt.lower()
    return next((look for word, look in _LOOKS if word in words), _watercolour)
