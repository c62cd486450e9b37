from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
MakeScene = Callable[..., Frames]


@pytest.fixture(scope="session")
def make_scene() -> MakeScene:
    """Makes a textured scene under a panning camera, with a disc that moves by itself: (F, H, W, 3)."""

    def scene(
        num_frames: int, *, width: int = 160, height: int = 96, seed: int = 1, speed: float = 1.5
    ) -> Frames:
        rng = np.random.default_rng(seed)
        margin = int(abs(speed) * num_frames) + 8
        canvas = np.full((height, width + margin, 3), 120, np.float32)
        for blur in (2.0, 6.0, 18.0):
            layer = cv2.GaussianBlur(rng.normal(size=canvas.shape).astype(np.float32), (0, 0), blur)
            canvas += layer / layer.std() * 16
        frames = []
        for k in range(num_frames):
            center = (4 + speed * k + (width - 1) / 2, (height - 1) / 2)
            frame = cv2.getRectSubPix(canvas, (width, height), center)
            disc = (int(16 * (0.3 * width + 0.8 * k)), int(16 * (0.4 * height + 0.5 * k)))
            cv2.circle(frame, disc, 16 * height // 8, (210, 90, 60), -1, cv2.LINE_AA, 4)
            frames.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
        return np.stack(frames)

    return scene


@pytest.fixture(scope="session")
def rerender() -> Callable[..., Frames]:
    """Another render of the same frames: bent by a smooth field of `bend` rms pixels, and tinted."""

    def render(frames: Frames, *, bend: float = 1.5, tint: tuple[int, int, int] = (8, 2, -6)) -> Frames:
        rng = np.random.default_rng(5)
        height, width = frames.shape[1:3]
        field = cv2.GaussianBlur(rng.normal(size=(height, width, 2)), (0, 0), width / 8)
        field *= bend / np.sqrt(np.square(field).sum(axis=2).mean())
        grid = np.dstack(np.meshgrid(np.arange(width), np.arange(height)))
        at = (grid + field).astype(np.float32)
        bent = [cv2.remap(f, at, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT) for f in frames]
        return np.clip(np.stack(bent).astype(np.int16) + np.array(tint), 0, 255).astype(np.uint8)

    return render
