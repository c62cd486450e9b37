"""What a clip is here: uint8 RGB frames in one array of shape (F, H, W, 3)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frames: TypeAlias = NDArray[np.uint8]  # (F, H, W, 3), RGB
Image: TypeAlias = NDArray[np.uint8]  # (H, W, 3), RGB
Floats: TypeAlias = NDArray[np.float32]


class StitchError(ValueError):
    """The clips given cannot be joined as asked; the message is one line that says what to change."""


def check_frames(frames: object, *, argument: str = "frames", like: tuple[int, int] | None = None) -> Frames:
    """Returns `frames` unchanged when it is a non-empty (F, H, W, 3) uint8 array.

    like: (height, width) that the frames must have, in pixels.
    Raises StitchError, which names the argument, what came and what was expected.
    """
    if not isinstance(frames, np.ndarray):
        raise StitchError(f"{argument}: got {type(frames).__name__}, expected an array (F, H, W, 3) of uint8")
    array: NDArray[Any] = frames
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise StitchError(
            f"{argument}: got {array.dtype} of shape {array.shape}, expected uint8 RGB of shape (F, H, W, 3)"
        )
    if 0 in array.shape:
        raise StitchError(f"{argument}: got an empty array {array.shape}, expected at least one frame")
    size = (array.shape[1], array.shape[2])
    if like is not None and size != like:
        raise StitchError(
            f"{argument}: got {size[1]}x{size[0]} frames, expected {like[1]}x{like[0]} like the clip before; "
            "scale the clips to one size first"
        )
    return array
