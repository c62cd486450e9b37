"""Opening a file for its sound, by demuxers of sounds and videos alone: no playlist is ever followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

#: Of libavformat, by name; one of them reads whatever a video or a sound lies in.
_DEMUXERS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg,wav,w64,mp3,flac,aac,aiff,ac3,eac3"
#: Less is a stamp that is off.
_JUMP_S = 1
_COVER_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC


class SoundError(ValueError):
    """A sound cannot be read; the message is one line."""


def sound_suffix(head: bytes) -> str | None:
    """The suffix of a file that is a sound and no video, by its first 64 bytes; None: it is none."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return ".wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return ".aiff"
    if head[:4] == b"fLaC":
        return ".flac"
    if head[:4] == b"OggS" and b"theora" not in head and b"fishead" not in head:
        return ".ogg"
    if head[4:8] == b"ftyp" and head[8:12] in (b"M4A ", b"M4B "):
        return ".m4a"
    if head[:3] == b"ID3":
        return ".mp3"
    # Eleven bits of a frame's sync word, then the layer: 0 is AAC's, 1 is layer III.
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return ".aac" if head[1] & 0xF6 == 0xF0 else ".mp3" if head[1] & 0x06 == 0x02 else None
    return None


@contextmanager
def opened(
    path: Path, zero_s: Fraction | None = None
) -> Iterator[tuple[InputContainer, AudioStream | None, Fraction]]:
    """The container, the track that players take, and the time in it at which the pictures, or else the
    sound, begin, in seconds: ``zero_s`` where that is known.

    Raises:
        SoundError: it cannot be opened.
    """
    zero = _first_frame_s(path) if zero_s is None else zero_s
    with _container(path) as container:
        tracks = container.streams.audio
        best = container.streams.best("audio") if tracks else None
        track = next((t for t in tracks if best is not None and t.index == best.index), None)
        if zero is None and track is not None and track.start_time is not None and track.time_base:
            zero = Fraction(track.start_time * track.time_base)
        yield container, track, zero or Fraction(0)


def of_one_clock(packets: Iterable[Packet[AudioStream]]) -> Iterator[Packet[AudioStream]]:
    """The packets until their stamps jump back: another recording was joined on, with a clock of its own."""
    latest: int | None = None
    for packet in packets:
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is not None and packet.time_base is not None:
            if latest is not None and (latest - stamp) * packet.time_base > _JUMP_S:
                return
            latest = stamp if latest is None else max(latest, stamp)
        yield packet


def _container(path: Path) -> InputContainer:
    try:
        return av.open(
            str(path.absolute()),
            "r",
            container_options={"protocol_whitelist": "file", "format_whitelist": _DEMUXERS},
        )
    except (av.error.FFmpegError, OSError) as error:
        raise SoundError(f"{path.name}: cannot be opened ({reason(error)})") from None


def _first_frame_s(path: Path) -> Fraction | None:
    """When the first picture is shown that a decoder gives."""
    with _container(path) as container:  # one of its own: what was read of it would be missing to the sound
        pictures = [s for s in container.streams.video if not s.disposition & _COVER_PICTURE]
        try:
            first = next(container.decode(pictures[0]), None) if pictures else None
        except av.error.FFmpegError:
            first = None
        if first is None or first.pts is None or first.time_base is None:
            return None
        return Fraction(first.pts * first.time_base)


def reason(error: Exception) -> str:
    """An error of libav in a few words."""
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__
