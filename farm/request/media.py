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


class VideoReading(Value):
    """How a video's frames are found, as one look at all of it has told."""

    #: Time stamp of the first frame that is shown, in seconds.
    start_s: Annotated[Fraction, BeforeValidator(_plainly_written)] = Fraction(0)
    #: Some of its frames are.
    interlaced: bool = False
    #: It has no usable time stamps: its frames are as far apart as its rate says, and found by counting.
    counted: bool = False
    #: A seek leads to where its time stamps say; else it is read from its beginning.
    seekable: bool = True


class SoundInfo(Value):
    """The sound of a file, decoded once: of several tracks, the one that players take."""

    #: As libavformat names it.
    codec: str
    sample_rate: int
    channels: int
    #: Seconds from the first frame, or from the file's begin where it has none, to the first sound.
    start_s: float
    #: Likewise to its end.
    end_s: float
    num_tracks: int
    #: Its rate and channels stay what they are.
    is_one_format: bool = True


class MediaInfo(Value):
    """A verified image (PNG, RGB, upright, no metadata), video (every frame decoded once) or sound.

    Of a video, sizes and numbers are those it is shown with: upright, in square pixels, at a constant rate.
    """

    kind: Literal["image", "video", "audio"]
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
    #: Of a video or a sound file; None: it has none.
    sound: SoundInfo | None = None
    #: None: an image, or a video taken in by a farm that counted frames.
    reading: VideoReading | None = None
