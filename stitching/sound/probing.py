"""What sound a file has. Decodes all of it, so that what is told here can be kept later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.error

from stitching.sound.opening import SoundError, of_one_clock, opened


@dataclass(frozen=True)
class SoundFacts:
    """start_s: seconds from the first frame shown, or from the file's begin where it has none, to the first
    sound; end_s: to its end. is_one_format: its rate and channels stay what they are; else sample_rate and
    channels are the last. num_tracks: all there are; the others tell of the one that players take."""

    codec: str
    sample_rate: int
    channels: int
    start_s: float
    end_s: float
    num_tracks: int
    is_one_format: bool


def probe_sound(
    path: Path, zero_s: Fraction | None = None, on_packet: Callable[[], None] = lambda: None
) -> SoundFacts | None:
    """The sound of a file; None where it has none.

    Args:
        path: The file.
        zero_s: The time in it at which its pictures begin; None: that of the first one that can be decoded.
        on_packet: Called after each, for a long file takes its time.

    Raises:
        SoundError: it has some, but nothing of it can be decoded.
    """
    with opened(path, zero_s) as (container, track, zero):
        if track is None:
            return None
        first: Fraction | None = None
        end = zero
        rate = channels = 0
        formats: set[tuple[int, int]] = set()
        packets = of_one_clock(container.demux(track))
        while (packet := next(packets, None)) is not None:
            on_packet()
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # a damaged packet: what comes behind it may be whole
                continue
            for frame in frames:
                if frame.pts is None or frame.time_base is None or not frame.samples:
                    continue
                begin = Fraction(frame.pts * frame.time_base)
                first = begin if first is None else first
                rate, channels = frame.sample_rate, frame.layout.nb_channels
                formats.add((rate, channels))
                end = max(end, begin + Fraction(frame.samples, rate))
        codec: str = track.codec_context.codec.canonical_name
        if first is None:
            raise SoundError(f"{path.name}: its sound ({codec}) cannot be decoded")
        return SoundFacts(
            codec=codec,
            sample_rate=rate,
            channels=channels,
            start_s=float(first - zero),
            end_s=float(end - zero),
            num_tracks=len(container.streams.audio),
            is_one_format=len(formats) == 1,
        )
