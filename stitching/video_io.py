"""Video files in and out, through libav (PyAV).

Frames are uint8 RGB arrays of shape (F, H, W, 3), counted from 0 in display order. Files from strangers are
opened with a demuxer chosen from their first bytes, so that a text file named .mp4 can never act as a
playlist, and with the `file` protocol alone, so that no file can make the reader open a network address.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from stitching.clip import Frames, Image, check_frames
from stitching.ffv1_checksums import slices_are_whole
from stitching.sound import SoundTrack

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Source: TypeAlias = Path | str | bytes

MAX_PIXELS = 8192 * 8192  # of one frame; a header may claim any size, and memory is taken before the data
_ENCODER_THREADS = 2  # x264's output depends on this number: fixed, so that the bytes are the same anywhere
_COVER_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_QUEUED_FRAMES = 8  # between the caller and the encoder; bounds memory, hides the encoder's lookahead
# swscale's defaults round down: measured -1.1 grey levels of bias and 41 dB; with these flags 0.01 and 46 dB.
_EXACT_SCALING = int(
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.FULL_CHR_H_INT
)


class VideoError(ValueError):
    """A video cannot be read or written; the message is one line."""


@dataclass(frozen=True)
class VideoInfo:
    """width, height: pixels as displayed (rotation applied). num_frames: counted, never a header's claim."""

    width: int
    height: int
    fps: Fraction
    num_frames: int
    codec: str


def probe_video(path: Source) -> VideoInfo:
    """Reads what a video is, without decoding it all.

    Raises VideoError when it is not an mp4, mov, matroska, webm or avi file that holds pictures.
    """
    with _opened(path) as (container, stream, name):
        codec = stream.codec_context.name
        fps = stream.average_rate or stream.guessed_rate
        num_frames = sum(1 for p in container.demux(stream) if p.size and not p.is_discard)
        if not fps or fps <= 0:
            raise VideoError(f"{name}: states no frame rate; re-encode it with one")
    first = next(iter_frames(path, 0, 1), None)
    if first is None or num_frames == 0:
        raise VideoError(f"{name}: holds no frames")
    height, width = first.shape[:2]
    return VideoInfo(width=width, height=height, fps=Fraction(fps), num_frames=num_frames, codec=codec)


def iter_frames(source: Source, start: int = 0, end: int | None = None) -> Iterator[Image]:
    """Yields frames start, start+1, ... up to and without `end` (None: the last), each (H, W, 3).

    Decoding always begins at the file's start: an index is exact only when every frame before it was counted.
    Raises VideoError; also when the video ends before `end`.
    """
    if start < 0 or (end is not None and end < start):
        raise VideoError(f"start, end: got {start}, {end}, expected 0 <= start <= end")
    index = 0
    with _opened(source) as (container, stream, name):
        stream.thread_type = "SLICE" if stream.codec_context.name == "ffv1" else "AUTO"
        convert = VideoReformatter()
        try:
            for frame in _decoded(container, stream, name):
                if end is not None and index >= end:
                    return
                if index >= start:
                    yield _to_rgb(frame, convert)
                index += 1
        except av.error.FFmpegError as error:
            raise VideoError(f"{name}: frame {index} cannot be decoded ({_reason(error)})") from None
    if end is not None and index < end:
        raise VideoError(f"{name}: ends after {index} frames, frames up to {end} were asked for")


def pick_frames(source: Source, indices: Sequence[int]) -> Iterator[Image]:
    """Yields the frames of ascending `indices`, each (H, W, 3); the others are decoded where they must be.

    In a file of a constant frame rate it jumps to the last keyframe before the first of them.
    Raises VideoError; also when the video ends before the last of them.
    """
    if list(indices) != sorted(set(indices)) or (indices and indices[0] < 0):
        raise VideoError(f"indices: got {list(indices)}, expected ascending numbers from 0 on")
    wanted = list(indices)
    with _opened(source) as (container, stream, name):
        stream.thread_type = "SLICE" if stream.codec_context.name == "ffv1" else "AUTO"
        convert = VideoReformatter()
        try:
            for index, frame in _numbered(container, stream, name, wanted[0] if wanted else 0):
                if not wanted:
                    return
                if index == wanted[0]:
                    yield _to_rgb(frame, convert)
                    del wanted[0]
        except av.error.FFmpegError as error:
            raise VideoError(f"{name}: cannot be decoded ({_reason(error)})") from None
    if wanted:
        raise VideoError(f"{name}: ends before frame {wanted[0]}, which was asked for")


def read_frames(source: Source, start: int = 0, end: int | None = None) -> Frames:
    """Frames [start, end) as one array (F, H, W, 3). source: a path, or the bytes of a whole file.

    Raises VideoError as iter_frames does, and when the range is empty.
    """
    frames = list(iter_frames(source, start, end))
    if not frames:
        raise VideoError(f"start, end: got {start}, {end}, expected a range that holds at least one frame")
    return np.stack(frames)


def read_chunks(source: Source, num_frames: int) -> Iterator[Frames]:
    """The whole video in arrays of `num_frames` frames, the last one shorter. Raises VideoError."""
    frames = iter_frames(source)
    while chunk := list(islice(frames, num_frames)):
        yield np.stack(chunk)


def encode_lossless(frames: Frames, fps: Fraction) -> bytes:
    """FFV1 in Matroska: read_frames() gives back the same RGB bit for bit; same input, same bytes.

    Raises VideoError when fps is not positive, StitchError when frames are not (F, H, W, 3) uint8.
    """
    _check_fps(fps)
    check_frames(frames)
    buffer = io.BytesIO()
    # bitexact: the muxer otherwise writes random ids, the time and the library's version
    with av.open(buffer, "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
        stream.thread_count = 1
        stream.codec_context.flags |= Flags.bitexact
        stream.options = {"level": "3", "slices": "4", "slicecrc": "1"}
        convert = VideoReformatter()
        for frame in frames:
            picture = convert.reformat(av.VideoFrame.from_ndarray(frame, format="rgb24"), format="bgr0")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class VideoWriter:
    """Writes H.264 (yuv420p, BT.709, faststart) to exactly the path given; encodes on a thread of its own.

    Use as a context manager. When the block raises, the partial file is removed. Players need even sides, so
    odd ones are refused. Same frames and settings, same bytes.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        fps: Fraction,
        width: int,
        height: int,
        crf: int = 16,
        preset: str = "medium",
        growing: bool = False,
        sound: SoundTrack | None = None,
    ) -> None:
        """crf: 0 (lossless-like) to 51; preset: one of x264's. Raises VideoError before any file is made.

        growing: the file can be played while it is written, by MediaSource too: fragments of one frame, each
        on disk as soon as the next one comes, and a keyframe every second. It is larger.
        sound: goes in beside the pictures; it is this writer's to close.
        """
        _check_fps(fps)
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise VideoError(f"width, height: got {width}x{height}, expected even; crop or scale the frames")
        self._path, self._size = Path(path), (height, width)
        self._fps, self._crf, self._preset, self._growing = fps, crf, preset, growing
        self._sound = sound
        self._queue: queue.Queue[Image | None] = queue.Queue(maxsize=_QUEUED_FRAMES)
        self._failure: Exception | None = None
        self._num_frames = 0
        self._container = self._open()
        self._thread = threading.Thread(target=self._encode_all, name="video-writer", daemon=True)
        self._thread.start()

    def write(self, frames: Frames | Image) -> None:
        """Takes (F, H, W, 3) or (H, W, 3). The arrays must not change afterwards. Raises VideoError."""
        batch = check_frames(frames if frames.ndim == 4 else frames[None])
        if batch.shape[1:3] != self._size:
            got, expected = f"{batch.shape[2]}x{batch.shape[1]}", f"{self._size[1]}x{self._size[0]}"
            raise VideoError(f"frames: got {got}, expected {expected} as the file was opened with")
        for frame in batch:
            if self._failure is not None:
                raise VideoError(f"{self._path}: {_reason(self._failure)}") from None
            self._queue.put(frame)
            self._num_frames += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._sound is not None:
            self._sound.close()
        if error is None and self._failure is None and self._num_frames:
            return
        self._path.unlink(missing_ok=True)
        if error is None:
            why = _reason(self._failure) if self._failure else "no frame was written to it"
            raise VideoError(f"{self._path}: {why}")

    def _open(self) -> OutputContainer:
        try:
            self._path.open("wb").close()  # libav opens late, on the thread; a bad path should be told here
            options = {"movflags": "+faststart", "fflags": "+bitexact"}
            if self._growing:
                options["movflags"] = "+frag_every_frame+empty_moov+default_base_moof"
                options["flush_packets"] = "1"
            return av.open(str(self._path.absolute()), "w", format="mp4", container_options=options)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: cannot be written ({_reason(error)})") from None

    def _add_stream(self) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = self._size[1], self._size[0], "yuv420p"
        stream.options = {
            "crf": str(self._crf),
            "preset": self._preset,
            "threads": str(_ENCODER_THREADS),
            # Its macroblock tree gives other bytes now and then (its vector code; seen on a busy machine).
            "x264-params": "mbtree=0",
        }
        if self._growing:
            every_second = str(max(1, round(self._fps)))
            stream.options |= {"tune": "zerolatency", "g": every_second, "sc_threshold": "0"}
        context = stream.codec_context
        context.flags |= Flags.bitexact
        context.color_range, context.colorspace = 1, 1  # limited ("tv"), BT.709
        context.color_primaries, context.color_trc = 1, 1
        return stream

    def _encode_all(self) -> None:
        try:
            with self._container as container:
                stream = self._add_stream()
                if self._sound is not None:
                    self._sound.begin(container, has_edit_list=not self._growing)
                if self._growing:
                    container.start_encoding()  # the header: what follows can be played from here on
                index, convert = 0, VideoReformatter()
                while (frame := self._queue.get()) is not None:
                    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    picture = convert.reformat(
                        rgb,
                        format="yuv420p",
                        dst_colorspace=Colorspace.ITU709,
                        dst_color_range=ColorRange.MPEG,
                        interpolation=_EXACT_SCALING,
                    )
                    picture.pts, picture.time_base = index, 1 / self._fps
                    container.mux(stream.encode(picture))
                    index += 1
                    if self._sound is not None:
                        self._sound.feed(index / self._fps)
                if index:
                    container.mux(stream.encode(None))
        except Exception as error:  # handed to the caller by write() and __exit__
            self._failure = error
            while self._queue.get() is not None:  # keep taking, or a caller in put() would wait for ever
                pass


def _decoded(container: InputContainer, stream: VideoStream, name: str) -> Iterator[VideoFrame]:
    """Frames in display order from where the container is. Raises VideoError for a damaged slice of FFV1."""
    has_checksums = stream.codec_context.name == "ffv1" and bool(stream.codec_context.extradata)
    for packet in container.demux(stream):
        if has_checksums and packet.size and not slices_are_whole(bytes(packet)):
            raise VideoError(f"{name}: is damaged, the checksum of a slice is wrong")
        yield from packet.decode()


def _numbered(
    container: InputContainer, stream: VideoStream, name: str, first: int
) -> Iterator[tuple[int, VideoFrame]]:
    """Decoded frames with their indices, from `first` or a frame before it on."""
    rate, base, duration = stream.average_rate, stream.time_base, stream.duration
    if first and rate and base and duration and not stream.start_time and stream.frames:
        # Frame times of a constant rate are their indices.
        container.seek(int(first / rate / base), stream=stream)
        for frame in _decoded(container, stream, name):
            index = (frame.pts or 0) * base * rate
            if index.denominator != 1:
                break
            yield int(index), frame
        else:
            return
        container.seek(0, stream=stream)
    yield from enumerate(_decoded(container, stream, name))


def _demuxer(head: bytes) -> str | None:
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    return None


@contextmanager
def _opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream, str]]:
    """The container and its first stream of moving pictures, and a name for messages."""
    name = f"video of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, bytes):
            head = source[:12]
        else:
            with open(source, "rb") as file:
                head = file.read(12)
    except OSError as error:
        raise VideoError(f"{name}: cannot be read ({error.strerror or error})") from None
    demuxer = _demuxer(head)
    if demuxer is None:
        raise VideoError(f"{name}: is not a video this reads; expected mp4, mov, matroska, webm or avi")
    try:
        container = av.open(
            io.BytesIO(source) if isinstance(source, bytes) else str(Path(source).absolute()),
            "r",
            format=demuxer,
            container_options={"protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name}: cannot be opened ({_reason(error)})") from None
    with container:
        pictures = [s for s in container.streams.video if not s.disposition & _COVER_PICTURE]
        if not pictures:
            raise VideoError(f"{name}: holds no video stream")
        stream = pictures[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise VideoError(f"{name}: frames of {stream.width}x{stream.height} exceed {MAX_PIXELS} pixels")
        yield container, stream, name


def _to_rgb(frame: VideoFrame, convert: VideoReformatter) -> Image:
    """convert: one for all frames of a video; a frame's own would set swscale's tables up for it alone."""
    picture = convert.reformat(frame, format="rgb24", interpolation=_EXACT_SCALING).to_ndarray()
    # rotation is in degrees counter-clockwise; the display matrix of phones uses quarter turns only
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4), dtype=np.uint8)


def _check_fps(fps: Fraction) -> None:
    if fps <= 0:
        raise VideoError(f"fps: got {fps}, expected a positive fraction")


def _reason(error: Exception | None) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__
