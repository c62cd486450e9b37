"""The frames that a video shows at given moments, found without decoding all before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from stitching.clip import Image
from stitching.source.conversion import Converter, deinterlaced
from stitching.source.decoding import Opened, VideoFrame, opened, shown_frames
from stitching.source.timing import limits
from stitching.video_io import VideoError

#: How many seconds before the wanted moment a seek goes when one to the moment itself led past it.
_FURTHER_BACK_S = (0, 1, 4, 16, 64)


@dataclass(frozen=True)
class Reading:
    """How a video's frames are found: what looking at all of it once has told.

    start_s: the first shown frame's time stamp, in seconds. interlaced: some of its frames are.
    counted: it has no usable stamps, and its frames are as far apart as its rate says. seekable: a seek
    into it
    leads to frames with the stamps they have in the whole; else, and where frames are counted, it is read
    from its beginning.
    """

    start_s: Fraction = Fraction(0)
    interlaced: bool = False
    counted: bool = False
    seekable: bool = True


def frames_at(
    path: Path, reading: Reading, moments_s: Sequence[Fraction], *, rate: Fraction
) -> Iterator[Image]:
    """The frame that is shown at each of the rising moments, each (H, W, 3), RGB, as players show it.

    Args:
        moments_s: seconds from the first shown frame on; the last frame stays after the end.
        rate: frames per second, the greater of the video's and the wanted one: stamps may be off by half of
        it.

    Raises VideoError.
    """
    if not moments_s:
        return
    for back_s in _FURTHER_BACK_S:
        with opened(path) as source:
            found = _found(source, reading, moments_s, rate, back_s)
            if found is not None:
                yield from found
                return
    with opened(path) as source:
        found = _found(source, reading, moments_s, rate, None)
        if found is None:
            raise VideoError(f"{path}: holds no frames")
        yield from found


def first_frame(path: Path) -> Image:
    """The first frame that is shown, (H, W, 3). Raises VideoError."""
    with opened(path) as source:
        frames = shown_frames(source)
        first = next(frames, None)
        if first is None:
            raise VideoError(f"{path}: holds no frames")
        if first.interlaced_frame:
            both = [first, *(frame for frame, _ in zip(frames, range(1), strict=False))]
            for number, frame in enumerate(both):
                frame.pts = number
            first = next(frame for _, frame in deinterlaced(both, source.time_base))
        return Converter(source)(first)


def _found(
    source: Opened, reading: Reading, moments_s: Sequence[Fraction], rate: Fraction, back_s: int | None
) -> Iterator[Image] | None:
    """The frames, or None where the seek led past the first. back_s: None reads from the beginning."""
    base = Fraction(1) / rate if reading.counted else source.time_base
    start = 0 if reading.counted else round(reading.start_s / base)
    before = limits(moments_s, rate, base, start)
    # Fields are put together from their neighbours, too: one frame more is decoded at either side.
    lead = round(1 / rate / base) + 1 if reading.interlaced else 0
    wanted = before[0] - 1 - lead
    if reading.counted or not reading.seekable or wanted <= start:
        back_s = None
    if back_s is not None:
        target = wanted - round(back_s / base)
        if target <= start:
            return None
        source.container.seek(target, stream=source.stream)
    stamped = _stamped(source, reading, base)
    first = next(stamped, None)
    if first is None or (back_s is not None and first[0] > wanted):
        return None
    return _picked(source, _chained(first, stamped), before)


def _picked(
    source: Opened, stamped: Iterator[tuple[int, VideoFrame]], before: Sequence[int]
) -> Iterator[Image]:
    converter = Converter(source)
    _, held = next(stamped)
    image: Image | None = None
    following = next(stamped, None)
    for limit in before:
        while following is not None and following[0] < limit:
            held, image = following[1], None
            following = next(stamped, None)
        if image is None:
            image = converter(held)
        yield image


def _stamped(source: Opened, reading: Reading, base: Fraction) -> Iterator[tuple[int, VideoFrame]]:
    frames = shown_frames(source)
    if reading.counted:
        frames = _numbered(frames)
    if reading.interlaced:
        return deinterlaced(frames, base)
    return ((frame.pts, frame) for frame in frames if frame.pts is not None)


def _numbered(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    for number, frame in enumerate(frames):
        frame.pts = number
        yield frame


def _chained(
    first: tuple[int, VideoFrame], others: Iterator[tuple[int, VideoFrame]]
) -> Iterator[tuple[int, VideoFrame]]:
    yield first
    yield from others
