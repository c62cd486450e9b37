"""Pictures of stored images and videos, as the doors show them. Every function is pure but for reading files.

What is read here was decoded once from end to end in a child process with limits, or was made by the farm.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from farm.errors import InvalidInput
from farm.running import SO_FAR_NAME
from stitching.intake import IntakeError, known_suffix
from stitching.mp4_codec import codec_string
from stitching.source import first_frame
from stitching.video_io import VideoError, pick_frames, probe_video

_Picture: TypeAlias = NDArray[np.uint8]  # (H, W, 3), RGB
_Color: TypeAlias = tuple[int, int, int]

THUMBNAIL_SIDE = 640
SHEET_TILES = 25
SHEET_TILE_SIDE = 240
#: Frames of a seam's strip, and the longest side of each.
STRIP_TILES = 8
STRIP_TILE_SIDE = 240
#: Frames shown on either side of what two segments share.
STRIP_CONTEXT = 2
_STRIP_GAP = 6
_GROUND: _Color = (18, 20, 24)
_CUT: _Color = (84, 150, 245)
_WEBP_QUALITY = 82


def refuse_unknown(first_bytes: bytes) -> None:
    """
    Raises:
        InvalidInput: no image or video that is accepted begins so; says what it looks like.
    """
    try:
        known_suffix(first_bytes, "The file")
    except IntakeError as error:
        raise InvalidInput(str(error)) from None


def picture(path: Path, frame_index: int, longest_side: int) -> bytes:
    """One frame of a stored image (frame 0) or video as WebP, made smaller where a side is longer.

    Raises:
        InvalidInput: the file is missing or damaged, or has no such frame.
    """
    with _said(path):
        with path.open("rb") as file:
            is_image = file.read(8) == b"\x89PNG\r\n\x1a\n"
        if not is_image:
            frame = next(pick_frames(path, [frame_index])) if frame_index else first_frame(path)
        elif frame_index:
            raise InvalidInput(f"frame is {frame_index}; an image has frame 0 only", param="frame")
        else:
            frame = np.asarray(Image.open(path).convert("RGB"))
    return _webp(_fitted(frame, longest_side))


def thumbnail(video_path: Path) -> bytes:
    """The middle frame of a video as WebP.

    Raises:
        InvalidInput: the file is missing or no video.
    """
    with _said(video_path):
        middle = probe_video(video_path).num_frames // 2
        frame = next(pick_frames(video_path, [middle]))
    return _webp(_fitted(frame, THUMBNAIL_SIDE))


def spritesheet(video_path: Path) -> bytes:
    """A grid of evenly spaced frames, the first and the last among them, row by row, as WebP.

    Raises:
        InvalidInput: the file is missing or no video.
    """
    with _said(video_path):
        indices = _spread(range(probe_video(video_path).num_frames), SHEET_TILES)
        tiles = [_fitted(frame, SHEET_TILE_SIDE) for frame in pick_frames(video_path, indices)]
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = tiles[0].shape[:2]
    sheet = np.empty((math.ceil(len(tiles) / columns) * height, columns * width, 3), np.uint8)
    sheet[:] = _GROUND
    for place, tile in enumerate(tiles):
        y, x = place // columns * height, place % columns * width
        sheet[y : y + height, x : x + width] = tile
    return _webp(sheet)


def seam_picture(
    earlier: Path,
    later: Path,
    *,
    overlap: int,
    num_frames_earlier: int,
    joined: Path | None,
    joined_start: int,
    joined_step: Fraction = Fraction(1),
    which: Literal["before", "after"],
) -> bytes:
    """The frames around a join, as ``farm/request/media_tools.py`` says. Both strips show the same moments.

    In "before" a coloured bar stands where the earlier segment ends and the later one goes on.

    Raises:
        InvalidInput: a file is missing or damaged, or the joined video does not reach so far.
    """
    with _said(later):
        num_frames_later = probe_video(later).num_frames
    if not 0 <= overlap <= min(num_frames_earlier, num_frames_later):
        raise InvalidInput(f"overlap is {overlap}; the segments share at most {num_frames_later} frames")
    moments, cut = strip_moments(overlap, num_frames_earlier, num_frames_later)
    if which == "after":
        if joined is None:
            raise InvalidInput("these segments are not joined yet; look again when they are")
        with _said(joined):
            numbers = [round((joined_start + m) * joined_step) for m in moments]
            frames = list(pick_frames(joined, _there(joined, numbers, round(joined_start * joined_step))))
        return _strip(frames, None)
    first_shared = num_frames_earlier - overlap
    with _said(earlier):
        frames = list(pick_frames(earlier, [first_shared + moment for moment in moments[:cut]]))
    with _said(later):
        frames += pick_frames(later, moments[cut:])
    return _strip(frames, cut)


def strip_moments(overlap: int, num_frames_earlier: int, num_frames_later: int) -> tuple[list[int], int]:
    """The frames a seam's strip shows, counted from the first shared one, and how many lie before the cut.

    The cut is in the middle of what is shared; the frames next to it are always shown.
    """
    middle, half = overlap // 2, STRIP_TILES // 2
    first = -max(STRIP_CONTEXT, half - middle)
    end = overlap + max(STRIP_CONTEXT, half - (overlap - middle))
    before = range(max(overlap - num_frames_earlier, first), middle)
    after = range(middle, min(num_frames_later, end))
    shown = [*_spread(before, half), *_spread(after, half)]
    return shown, min(len(before), half)


def _there(joined: Path, indices: list[int], start: int) -> list[int]:
    """The frames that a whole video has: its last segment may have been rendered beyond its end."""
    if joined.name == SO_FAR_NAME:
        return indices  # what is missing comes yet
    num_frames = probe_video(joined).num_frames
    return [index for index in indices if index < num_frames] if start < num_frames else indices


def codec(path: Path) -> str:
    """The RFC 6381 codec string of an mp4, whole or still growing.

    Raises:
        InvalidInput: it is missing, or its head describes no H.264 video (yet).
    """
    with _said(path):
        return codec_string(path)


def _spread(numbers: range, count: int) -> list[int]:
    """At most ``count`` of these numbers, evenly spaced, the first and the last among them."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[i * (len(numbers) - 1) // (count - 1)] for i in range(count)]


def _strip(frames: Sequence[_Picture], cut: int | None) -> bytes:
    """Frames from left to right with gaps between them; the gap before tile ``cut`` is marked."""
    tiles = [_fitted(frame, STRIP_TILE_SIDE) for frame in frames]
    height, width = tiles[0].shape[:2]
    strip = np.empty((height, len(tiles) * (width + _STRIP_GAP) - _STRIP_GAP, 3), np.uint8)
    strip[:] = _GROUND
    for place, tile in enumerate(tiles):
        x = place * (width + _STRIP_GAP)
        strip[:, x : x + width] = tile
        if place == cut and place > 0:
            strip[:, x - _STRIP_GAP : x] = _CUT
    return _webp(strip)


def _fitted(frame: _Picture, longest_side: int) -> _Picture:
    """The frame, made smaller where a side is longer; never larger."""
    height, width = frame.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _webp(frame: _Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "WEBP", quality=_WEBP_QUALITY)
    return buffer.getvalue()


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file, in one line that names it without its folder."""
    try:
        yield
    except VideoError as error:
        raise InvalidInput(str(error).replace(str(path), path.name)) from None
    except (OSError, UnidentifiedImageError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise InvalidInput(f"{path.name} cannot be read ({reason})") from None
