"""A user's video opened and decoded: the frames that are shown, each with its time stamp."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType
from av.video.frame import VideoFrame as VideoFrame
from av.video.stream import VideoStream

from stitching.ffv1_checksums import slices_are_whole
from stitching.source.containers import HEAD_BYTES, Container, container_of
from stitching.source.crop import Cropped, crop_of
from stitching.video_io import VideoError

#: Of one stored frame; a header may claim any size, and memory is taken before the data.
MAX_PIXELS = 8192 * 4352
#: What a decoder may hold, in frames: those it is told to keep (16 at most), and one for each of its threads.
_HELD_BYTES = 1 << 30
_REFERENCES = 17
_MAX_THREADS = 16
_COVER_PICTURE, _DEFAULT = 0x400, 0x1  # AV_DISPOSITION_ATTACHED_PIC, AV_DISPOSITION_DEFAULT
_BYTES_PER_PIXEL = 3  # 4:2:0 at 10 bits
#: Coded from nothing else: I, SI and BI, and what has no types.
_INTRA = (PictureType.I, PictureType.SI, PictureType.BI, PictureType.NONE)


class NoPictures(VideoError):
    """A container without moving pictures; it may hold a sound."""


@dataclass(frozen=True)
class Opened:
    """A container, the stream of moving pictures that players show, and a name for messages."""

    container: InputContainer
    stream: VideoStream
    #: Of moving pictures, this one included.
    num_streams: int
    kind: Container
    name: str
    #: What the container cuts off its frames.
    cropped: Cropped

    @property
    def time_base(self) -> Fraction:
        return self.stream.time_base or Fraction(1, 1000)

    @property
    def aspect(self) -> Fraction | None:
        """Width over height of a pixel, where the file tells."""
        told = self.stream.sample_aspect_ratio
        if not told or told == 1 or self.cropped.aspect:
            return told
        # libav compares the sides that are shown with those of a whole frame.
        width, height = self.stream.width, self.stream.height
        wide, high = self.cropped.crop.of(width, height)
        return told * Fraction(width * high, height * wide)

    @property
    def claimed_rates(self) -> tuple[Fraction | None, ...]:
        """Frames per second, as headers and libav's guesses have them."""
        return self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open with a demuxer chosen from the first bytes, and no protocol but ``file``.

    Raises VideoError: it is none of the known containers; NoPictures: it holds no moving pictures.
    """
    try:
        with open(path, "rb") as file:
            kind = container_of(file.read(HEAD_BYTES))
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror or error})") from None
    if kind is None:
        raise VideoError(f"{path}: is not a video of a known type")
    options = {"protocol_whitelist": "file"}
    try:
        container = av.open(str(path.absolute()), "r", format=kind.demuxer, container_options=options)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be opened ({_reason(error)})") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & _COVER_PICTURE]
        if not streams:
            raise NoPictures(f"{path}: holds no video stream")
        stream = max(streams, key=_shown_first)
        pixels = stream.width * stream.height
        if pixels > MAX_PIXELS:
            raise VideoError(
                f"{path}: frames of {stream.width}x{stream.height} are larger than is taken"
                f" ({MAX_PIXELS / 1e6:.0f} megapixels)"
            )
        spare = _HELD_BYTES // max(pixels * _BYTES_PER_PIXEL, 1) - _REFERENCES
        stream.thread_count = max(1, min(spare, os.cpu_count() or 1, _MAX_THREADS))
        stream.thread_type = "AUTO"
        # Else a crop of the stream's own that begins where memory is not aligned is made smaller.
        stream.codec_context.flags |= Flags.unaligned
        with open(path, "rb") as file:
            cropped = crop_of(file, os.fstat(file.fileno()).st_size, kind.demuxer, stream.id)
        yield Opened(container, stream, len(streams), kind, str(path), cropped)


def _shown_first(stream: VideoStream) -> tuple[bool, int]:
    """Players show the stream that is marked as default; of several the largest, then the first."""
    return bool(stream.disposition & _DEFAULT), stream.width * stream.height


def shown_frames(source: Opened) -> Iterator[VideoFrame]:
    """Frames in the order they are shown, from the first keyframe at or after where the container stands.

    What a decoder makes of packets before a keyframe, and of those that are shown before it and need what
    lies further back, is not shown. Some demuxers call every other packet a keyframe: the frame must be one,
    too.

    Where the decoder copies it (``copy_opaque``), each frame's ``opaque`` is the number of the packet it was
    made from, of those that hold anything.

    Raises VideoError for what cannot be decoded; the end of a stream that was cut off there is left out.
    """
    begun, index, number = False, 0, -1
    cut_away = False  # an edit list leaves out the keyframe, and shows what is made from it
    failed: str | None = None
    context = source.stream.codec_context
    has_checksums = context.name == "ffv1" and bool(context.extradata)
    for packet in _packets(source):
        number += bool(packet.size)
        if context.copy_opaque and packet.size:
            packet.opaque = number
        if not begun and packet.size and packet.is_keyframe:
            begun, cut_away = True, packet.is_discard
        if not begun or _is_pause(packet):
            continue
        if has_checksums and packet.size and not slices_are_whole(bytes(packet)):
            raise VideoError(f"{source.name}: is damaged, the checksum of a slice is wrong")
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            failed = failed or f"frame {index} cannot be decoded ({_reason(error)})"
            continue
        for frame in frames:
            if failed is not None:
                raise VideoError(f"{source.name}: {failed}")
            if index or cut_away or frame.pict_type in _INTRA:
                index += 1
                yield frame
    if failed is not None and not (index and source.kind.is_stream):
        raise VideoError(f"{source.name}: {failed}")


def _is_pause(packet: Packet[VideoStream]) -> bool:
    """An avi's empty packet: the frame before stays. To a decoder it would be the end, as the last one is."""
    return not packet.size and packet.dts is not None


def _packets(source: Opened) -> Iterator[Packet[VideoStream]]:
    try:
        yield from source.container.demux(source.stream)
    except (av.error.FFmpegError, IndexError) as error:  # damage may name a stream that there is not
        raise VideoError(f"{source.name}: cannot be read further ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__
