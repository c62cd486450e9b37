"""The one look at all of a user's video, when it is taken in: every frame is decoded, few are converted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

from stitching.source.conversion import Converter, stored
from stitching.source.decoding import Opened, VideoFrame, opened, shown_frames
from stitching.source.display import shown
from stitching.source.moments import Reading
from stitching.source.timing import MAX_RATE, MIN_RATE, Timing, timing
from stitching.video_io import VideoError

#: Frames between two words of progress.
_TOLD_EVERY = 10
#: Seeks that are tried, and frames compared after each; rows of a frame that are compared.
_TRIED_SEEKS, _COMPARED_FRAMES, _COMPARED_ROWS = 8, 3, 8


@dataclass(frozen=True)
class Seen:
    """Of each shown frame: when it is shown, the packet it is from (if all tell it), what tells it apart."""

    times_ms: list[int]
    packets: list[int]
    prints: list[int]


@dataclass(frozen=True)
class Looked:
    """width, height: as shown. changes: what reading it changes, each as a line for people."""

    width: int
    height: int
    fps: Fraction
    num_frames: int
    reading: Reading
    changes: tuple[str, ...]
    seen: Seen


def look(path: Path, *, max_frames: int, on_progress: Callable[[int, float | None], None]) -> Looked:
    """Decode all of a video once and say how it is to be read.

    Args:
        max_frames: that are looked at.
        on_progress: (frames so far, share of the whole where the header tells how long that is), often.

    Raises VideoError: it cannot be decoded, changes its size, or has more frames.
    """
    stamps: list[int | None] = []
    prints: list[int] = []
    packets: list[int] = []
    num_interlaced = 0
    last_ticks = 0
    with opened(path) as source:
        converter = Converter(source)
        source.stream.codec_context.copy_opaque = True
        size: tuple[int, int] | None = None
        changes: tuple[str, ...] = ()
        for frame in shown_frames(source):
            if size is None:
                size = (frame.width, frame.height)
                height, width = converter(frame).shape[:2]
                changes = (*_chosen(source), *shown(stored(frame, source)).changes)
            if (frame.width, frame.height) != size:
                raise VideoError(f"{path}: changes its size at frame {len(stamps)}")
            if len(stamps) == max_frames:
                raise VideoError(
                    f"{path}: has more than {max_frames} frames, which are the most that are read"
                )
            stamps.append(frame.pts)
            prints.append(print_of(frame))
            packet = frame.opaque
            if isinstance(packet, int):
                packets.append(packet)
            num_interlaced += frame.interlaced_frame
            last_ticks = frame.duration
            if len(stamps) % _TOLD_EVERY == 0:
                on_progress(len(stamps), _share(source, frame.pts))
        if size is None:
            raise VideoError(f"{path}: holds no frames")
        found, reading = _timed(source, stamps, last_ticks, num_interlaced > 0)
        times_ms = _times_ms(source, stamps, found.fps if reading.counted else None)
    if not reading.counted and not seeks_are_exact(path, stamps, prints):
        reading = replace(reading, seekable=False)
    return Looked(
        width=width,
        height=height,
        fps=found.fps,
        num_frames=found.num_frames,
        reading=reading,
        changes=(*changes, *_said(found, reading)),
        seen=Seen(times_ms, packets, prints),
    )


def _timed(
    source: Opened, stamps: list[int | None], last_ticks: int, interlaced: bool
) -> tuple[Timing, Reading]:
    """Its stamps as a rate, or its rate alone where the stamps are no order."""
    known = [stamp for stamp in stamps if stamp is not None]
    falls = any(a > b for a, b in pairwise(known)) or (len(known) > 1 and known[0] == known[-1])
    if len(known) < len(stamps) or falls:
        rate = next((r for r in source.claimed_rates if r and MIN_RATE <= r <= MAX_RATE), None)
        if rate is None:
            raise VideoError(f"{source.name}: tells neither its frames' times nor its rate")
        return Timing(rate, len(stamps), True), Reading(interlaced=interlaced, counted=True)
    found = timing(known, source.time_base, source.claimed_rates, last_ticks or None)
    return found, Reading(known[0] * source.time_base, interlaced)


def _times_ms(source: Opened, stamps: list[int | None], fps: Fraction | None) -> list[int]:
    """When each frame is shown; fps: of frames that are counted."""
    if fps is None:
        return [round(stamp * source.time_base * 1000) for stamp in stamps if stamp is not None]
    first = stamps[0]
    start_s = (
        Fraction(source.container.start_time or 0, 1_000_000) if first is None else first * source.time_base
    )
    return [round((start_s + number / fps) * 1000) for number in range(len(stamps))]


def print_of(frame: VideoFrame) -> int:
    """Tells one picture from another: a checksum of some rows of its first plane."""
    plane = frame.planes[0]
    rows = memoryview(plane)
    step = max(1, plane.height // _COMPARED_ROWS)
    found = 0
    for row in range(0, plane.height, step):
        found = zlib.crc32(rows[row * plane.line_size :][: plane.width], found)
    return found


def seeks_are_exact(path: Path, stamps: Sequence[int | None], prints: Sequence[int]) -> bool:
    """Whether frames have the stamps they had in the whole when they are read from somewhere in the middle.

    Where a container has no stamp for every frame (a program stream) libav makes some up, after a seek
    others.
    """
    frames = set(zip(stamps, prints, strict=True))  # several may have one stamp
    known = [stamp for stamp in stamps if stamp is not None]
    with opened(path) as source:
        for number in range(1, _TRIED_SEEKS):
            target = known[number * len(known) // _TRIED_SEEKS]
            source.container.seek(target, stream=source.stream)
            for frame in islice(shown_frames(source), _COMPARED_FRAMES):
                if (frame.pts, print_of(frame)) not in frames:
                    return False
    return True


def _share(source: Opened, stamp: int | None) -> float | None:
    length = source.stream.duration
    if length is None and source.container.duration is not None:
        length = round(source.container.duration / 1_000_000 / source.time_base)
    if not length or stamp is None:
        return None
    return min(max((stamp - (source.stream.start_time or 0)) / length, 0.0), 1.0)


def _chosen(source: Opened) -> tuple[str, ...]:
    if source.num_streams == 1:
        return ()
    sides = f"{source.stream.width}x{source.stream.height}"
    return (f"holds {source.num_streams} video tracks, the one that players show is taken ({sides})",)


def _said(found: Timing, reading: Reading) -> tuple[str, ...]:
    said = []
    if reading.interlaced:
        said.append("interlaced: its fields are put together into whole pictures (deinterlaced with bwdif)")
    if not found.is_constant:
        rate = f"{float(found.fps):.6g}"
        said.append(
            f"its frame rate varies: it is read at {rate} frames a second by its frames' times, "
            f"{found.repeated} frames repeated and {found.dropped} left out; its length stays"
        )
    return tuple(said)
