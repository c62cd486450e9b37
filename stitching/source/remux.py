"""A copy of a video in which every frame is found: the same packets in Matroska, with their frames' times.

For files that seeks cannot be trusted in (program streams, some avi): without it every window would be read
from their beginning, and the work grow with the square of their length.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error

from stitching.source.decoding import opened, shown_frames
from stitching.source.look import Looked, Seen, print_of, seeks_are_exact
from stitching.source.moments import Reading
from stitching.video_io import VideoError

#: Matroska's: thousandths of a second.
_TIME_BASE = Fraction(1, 1000)
#: Of two stamps, each rounded.
_MAX_OFF_MS = 1


def indexed(
    path: Path, looked: Looked, copy: Path, on_progress: Callable[[int, float | None], None]
) -> Reading | None:
    """Write the copy, and read all of it: what it is read by, or None where it does not show the same.

    Args:
        path: of the video.
        looked: at it.
        copy: does not exist, and on None is of no use.
        on_progress: (frames so far, share of the whole), often.
    """
    if path.stat().st_size > shutil.disk_usage(copy.parent).free // 2:
        return None  # others write to this disk, too
    try:
        _write(path, looked.seen, copy, on_progress)
        return _compared(copy, looked, on_progress)
    except (VideoError, av.error.FFmpegError, ValueError, OSError):
        return None  # Matroska does not take what is in it, or its frames come out otherwise


def _write(path: Path, seen: Seen, copy: Path, on_progress: Callable[[int, float | None], None]) -> None:
    if len(seen.packets) < len(seen.prints):
        raise VideoError(f"{path}: its decoder does not tell which packet a frame is from")
    stamps = packet_stamps(seen.packets, seen.times_ms)
    decode_stamps = _decode_stamps(stamps)
    with opened(path) as source, av.open(str(copy), "w", format="matroska") as target:
        pictures = source.stream
        sounds = source.container.streams.audio
        tracks = {track.index: target.add_stream_from_template(track) for track in (pictures, *sounds)}
        number = -1
        for packet in source.container.demux(pictures, *sounds):
            if not packet.size:
                continue
            if packet.stream_index == pictures.index:
                number += 1
                if number not in stamps:
                    continue
                packet.time_base = _TIME_BASE
                packet.pts, packet.dts = stamps[number], decode_stamps[number]
                packet.duration = 0
                on_progress(number, None)
            elif packet.dts is None:
                packet.dts = packet.pts
            packet.stream = tracks[packet.stream_index]
            target.mux(packet)


def _compared(copy: Path, looked: Looked, on_progress: Callable[[int, float | None], None]) -> Reading:
    """How the copy is read. Raises VideoError: it does not show the same pictures at the same times."""
    seen, stamps = looked.seen, list[int]()
    with opened(copy) as source:
        for number, frame in enumerate(shown_frames(source)):
            if frame.pts is None or number == len(seen.prints) or print_of(frame) != seen.prints[number]:
                raise VideoError(f"{copy}: frame {number} is another")
            stamps.append(round(frame.pts * source.time_base / _TIME_BASE))
            if abs(stamps[-1] - stamps[0] - seen.times_ms[number] + seen.times_ms[0]) > _MAX_OFF_MS:
                raise VideoError(f"{copy}: frame {number} is shown at another time")
            on_progress(number, number / len(seen.prints))
    if len(stamps) < len(seen.prints) or not seeks_are_exact(copy, stamps, seen.prints):
        raise VideoError(f"{copy}: its frames are not found either")
    return Reading(stamps[0] * _TIME_BASE, looked.reading.interlaced)


def packet_stamps(packets: Sequence[int], frame_stamps: Sequence[int]) -> dict[int, int]:
    """The stamp of every packet that is needed, by its number. Pure.

    Args:
        packets: for each shown frame, in the order they are shown, the packet that it was made from.
        frame_stamps: of those frames.

    What is not shown itself (a hidden reference) gets the stamp of what follows; what lies before the first
    packet of a shown frame, or after the last, is not needed.
    """
    shown = dict(zip(packets, frame_stamps, strict=True))
    found: dict[int, int] = {}
    following = 0
    for number in range(max(shown), min(shown) - 1, -1):
        following = shown.get(number, following)
        found[number] = following
    return dict(sorted(found.items()))


def _decode_stamps(stamps: dict[int, int]) -> dict[int, int]:
    """Rising with the packets, and none later than the packet's own."""
    rising = sorted(stamps.values())
    ahead = max(early - own for early, own in zip(rising, stamps.values(), strict=True))
    return {number: early - ahead for number, early in zip(stamps, rising, strict=True)}
