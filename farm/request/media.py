"""What is known of a user's image or video after it was checked and normalised."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from farm.values import Value

_RATE = re.compile(r"\s*[+-]?(\d{1,20}(\.\d{1,9})?|\d{1,20}/\d{1,20})\s*")


def _plainly_written(value: object) -> object:
    """Text as ``Fraction`` may read it: left alone, it works 1e999999999 out to the last digit."""
    if isinstance(value, str) and not _RATE.fullmatch(value):
        raise ValueError("expected a number such as 8 or 30000/1001")
    return value


#: Frames per second: 8, "29.97" or "30000/1001".
FrameRate = Annotated[Fraction, BeforeValidator(_plainly_written)]


class MediaInfo(Value):
    """A verified image (PNG, RGB, upright, no metadata) or video (every frame decoded once)."""

    kind: Literal["image", "video"]
    width: int
    height: int
    num_frames: int
    #: Frames per second of a video; None for an image.
    fps: FrameRate | None = None
    #: Of the normalised file; also its name in the farm's storage.
    sha256: str
    path: Path
    #: What is taken of it otherwise than it is, a clause each that begins with its name.
    notes: tuple[str, ...] = ()
