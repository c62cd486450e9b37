"""What is known of a user's image or video after it was checked and normalised."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

from farm.values import Value


class MediaInfo(Value):
    """A verified image (PNG, RGB, upright, no metadata) or video (every frame decoded once)."""

    kind: Literal["image", "video"]
    width: int
    height: int
    num_frames: int
    #: Frames per second of a video; None for an image.
    fps: Fraction | None = None
    #: Of the normalised file; also its name in the farm's storage.
    sha256: str
    path: Path
