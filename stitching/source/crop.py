"""The part of each stored frame that a container says is to be shown; libav tells it, PyAV does not.

Matroska's PixelCrop elements (RFC 9559, 5.1.4.1.28.8) and the clean aperture, ``clap``, of QuickTime and MP4
(ISO/IEC 14496-12, 12.1.4). Headers of strangers: a walk over them ends after so many elements, and what makes
no sense crops nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, NamedTuple

#: Elements that are looked at before a file's header is given up.
_MAX_ELEMENTS = 20_000


@dataclass(frozen=True)
class Crop:
    """Pixels that are cut off a stored frame, by side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def of(self, width: int, height: int) -> tuple[int, int]:
        """The sides of what is left of a frame; all of it where nothing would be."""
        wide, high = width - self.left - self.right, height - self.top - self.bottom
        return (wide, high) if wide > 0 and high > 0 else (width, height)


class Cropped(NamedTuple):
    """``aspect``: whether the container tells the shape of a pixel apart from the sides of what is shown."""

    crop: Crop
    aspect: bool


WHOLE = Crop()
_UNTOLD = Cropped(WHOLE, True)


class _Element(NamedTuple):
    id: bytes
    start: int
    end: int


def crop_of(file: BinaryIO, size: int, demuxer: str, track: int) -> Cropped:
    """What the container cuts off the frames of a video track.

    Args:
        size: of the file, in bytes.
        demuxer: libav's name of it.
        track: the track's id in mp4; a Matroska file's first video track is taken.
    """
    try:
        if demuxer == "mov":
            return _of_mov(file, _Walk(file, _box), size, track)
        if demuxer == "matroska":
            return _of_matroska(file, _Walk(file, _ebml), size)
    except (OSError, ValueError, IndexError, struct.error, ZeroDivisionError):
        pass  # not a header that can be read; what libav makes of the file is shown whole
    return _UNTOLD


class _Walk:
    """The elements of a file, at most ``_MAX_ELEMENTS`` of them."""

    def __init__(self, file: BinaryIO, head: Callable[[bytes, int], tuple[bytes, int, int]]) -> None:
        self._file, self._head, self._left = file, head, _MAX_ELEMENTS

    def children(self, start: int, end: int) -> Iterator[_Element]:
        while start < end and self._left:
            self._left -= 1
            self._file.seek(start)
            name, head_bytes, length = self._head(self._file.read(16), end - start)
            if length < head_bytes:
                return
            stop = min(start + length, end)
            yield _Element(name, start + head_bytes, stop)
            start = stop

    def find(self, parent: _Element, *names: bytes) -> _Element | None:
        """The first child of the first child ... by these names."""
        found: _Element | None = parent
        for name in names:
            if found is None:
                return None
            found = next((each for each in self.children(found.start, found.end) if each.id == name), None)
        return found


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


# ---------------------------------------------------------------------------------------- QuickTime and MP4

#: Of a VisualSampleEntry, before its boxes.
_SAMPLE_ENTRY_BYTES = 78


def _box(head: bytes, left: int) -> tuple[bytes, int, int]:
    length, name = struct.unpack_from(">I4s", head)
    if length == 1:
        return name, 16, struct.unpack_from(">Q", head, 8)[0]
    return name, 8, left if length == 0 else length


def _of_mov(file: BinaryIO, walk: _Walk, size: int, track: int) -> Cropped:
    moov = walk.find(_Element(b"", 0, size), b"moov")
    for trak in walk.children(moov.start, moov.end) if moov else ():
        header = walk.find(trak, b"tkhd") if trak.id == b"trak" else None
        if header is None:
            continue
        first = _read(file, header.start, 24)
        if struct.unpack_from(">I", first, 20 if first[0] == 1 else 12)[0] != track:
            continue
        described = walk.find(trak, b"mdia", b"minf", b"stbl", b"stsd")
        entry = next(walk.children(described.start + 8, described.end), None) if described else None
        if entry is None:
            return _UNTOLD
        width, height = struct.unpack(">HH", _read(file, entry.start + 24, 4))
        boxes = list(walk.children(entry.start + _SAMPLE_ENTRY_BYTES, entry.end))
        aperture = next((box for box in boxes if box.id == b"clap"), None)
        if aperture is None:
            return _UNTOLD
        numbers = struct.unpack(">8i", _read(file, aperture.start, 32))
        crop = clean_aperture(width, height, [Fraction(*numbers[i : i + 2]) for i in (0, 2, 4, 6)])
        return Cropped(crop, any(box.id == b"pasp" for box in boxes))
    return _UNTOLD


def clean_aperture(width: int, height: int, aperture: Sequence[Fraction]) -> Crop:
    """``aperture``: width and height of what is shown, and how far its middle is from the frame's.

    Rounded to whole pixels as libav does; one that does not lie within the frame crops nothing.
    """
    wide, high, right_by, down_by = aperture
    left, right = _cut(width, wide, right_by)
    top, bottom = _cut(height, high, down_by)
    inside = min(left, right, top, bottom) >= 0 and left + right < width and top + bottom < height
    return Crop(left, top, right, bottom) if inside and wide > 0 and high > 0 else WHOLE


def _cut(side: int, shown: Fraction, offset: Fraction) -> tuple[int, int]:
    """What is cut off before and after: the first shown pixel and the last, each rounded down."""
    first = math.floor((side - shown) / 2 + offset)
    last = math.floor((side + shown) / 2 + offset - 1)
    return first, side - 1 - last


# ------------------------------------------------------------------------------------------------- Matroska

_SEGMENT, _TRACKS, _TRACK = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae"
_TRACK_TYPE, _VIDEO = b"\x83", b"\xe0"
_CROPS = {b"\x54\xcc": "left", b"\x54\xbb": "top", b"\x54\xdd": "right", b"\x54\xaa": "bottom"}


def _ebml(head: bytes, left: int) -> tuple[bytes, int, int]:
    """RFC 8794. An element of unknown size lasts as long as what it lies in."""
    id_bytes = 9 - head[0].bit_length()
    size_bytes = 9 - head[id_bytes].bit_length()
    if id_bytes > 4 or size_bytes > 8:
        raise ValueError("not an element")
    unknown = (1 << 7 * size_bytes) - 1
    head_bytes = id_bytes + size_bytes
    value = int.from_bytes(head[id_bytes:head_bytes], "big") & unknown
    return head[:id_bytes], head_bytes, left if value == unknown else head_bytes + value


def _of_matroska(file: BinaryIO, walk: _Walk, size: int) -> Cropped:
    tracks = walk.find(_Element(b"", 0, size), _SEGMENT, _TRACKS)
    for track in walk.children(tracks.start, tracks.end) if tracks else ():
        kind = walk.find(track, _TRACK_TYPE) if track.id == _TRACK else None
        if kind is None or _number(file, kind) != 1:
            continue
        video = walk.find(track, _VIDEO)
        if video is None:
            return _UNTOLD
        found = {
            _CROPS[each.id]: _number(file, each)
            for each in walk.children(video.start, video.end)
            if each.id in _CROPS
        }
        return Cropped(Crop(**found), True)
    return _UNTOLD


def _number(file: BinaryIO, element: _Element) -> int:
    if element.end - element.start > 8:
        raise ValueError("not a number")
    return int.from_bytes(_read(file, element.start, element.end - element.start), "big")
