"""A sound on its way into a video that is written: copied packet by packet, or encoded anew as AAC.

Time 0 is the first frame shown. What was before it and what comes after the video's end is cut off; edit
lists do that to the sample where a packet is cut, gaps in the source are silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import av
import av.error
import av.filter

from stitching.sound.opening import SoundError, of_one_clock, opened

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_AAC_BITS_PER_CHANNEL = 96_000
_AAC_FRAME = 1024
#: A gap or an overlap in the source longer than this is filled, or cut out, at once.
_LONGEST_SLIP_S = 0.01


#: A packet, and the time at which it begins, in seconds.
_Timed: TypeAlias = "tuple[Fraction, Packet[AudioStream]]"


class SoundTrack:
    """Hands its packets to a container in step with the pictures: ``begin``, ``feed`` and ``close``."""

    def __init__(
        self, path: Path, *, duration_s: Fraction, copied: bool, zero_s: Fraction | None = None
    ) -> None:
        """duration_s: of the video. copied: the packets as they are; the container takes their codec.
        zero_s: the time in the file at which the video begins; None: with its pictures, or else its sound.

        Raises:
            SoundError: the file cannot be opened, or has no sound.
        """
        self._duration_s = duration_s
        self._copied = copied
        self._stack = ExitStack()
        container, track, zero = self._stack.enter_context(opened(path, zero_s))
        if track is None:
            self._stack.close()
            raise SoundError(f"{path.name}: has no sound")
        self._source, self._track, self._zero_s = container, track, zero
        self._packets: Iterator[_Timed] = iter(())
        self._next: _Timed | None = None

    def begin(self, container: OutputContainer, *, has_edit_list: bool = True) -> None:
        """Add the stream; before the container's header is written.

        has_edit_list: packets before time 0 may be written, for a decoder to begin with, and are not heard.
        """
        self._container = container
        if self._copied:
            stream: AudioStream = container.add_stream_from_template(self._track)
            self._packets = self._copies(stream)
        else:
            rate = self._track.codec_context.sample_rate
            layout = _AAC_LAYOUTS.get(self._track.codec_context.layout.nb_channels, "stereo")
            rate = rate if rate in _AAC_RATES else 48000
            stream = container.add_stream("aac", rate=rate, layout=layout)
            stream.codec_context.bit_rate = _AAC_BITS_PER_CHANNEL * stream.codec_context.layout.nb_channels
            self._packets = self._encoded(stream, rate, layout)
        self._next = next(self._packets, None)
        while self._next is not None and self._next[0] < 0 and not has_edit_list:
            self._next = next(self._packets, None)

    def feed(self, until_s: Fraction) -> None:
        """Write every packet that begins before this time."""
        while self._next is not None and self._next[0] < until_s:
            self._container.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Let go of the source."""
        self._stack.close()

    def _copies(self, stream: AudioStream) -> Iterator[_Timed]:
        base = self._track.time_base
        assert base is not None
        shift = round(self._zero_s / base)
        before: Packet[AudioStream] | None = None  # a decoder needs the packet before the first that is heard
        latest: int | None = None
        for packet in of_one_clock(self._source.demux(self._track)):
            if packet.pts is None or not packet.size or (latest is not None and packet.pts <= latest):
                continue
            latest = packet.pts
            begin = (packet.pts - shift) * base
            if begin >= self._duration_s:
                return
            end = begin + (packet.duration or 0) * base
            packet.pts -= shift
            packet.dts = packet.pts
            if end > self._duration_s:
                packet.duration = ceil((self._duration_s - begin) / base)
            packet.stream = stream
            if end <= 0:
                before = packet
                continue
            if before is not None:
                yield (before.pts or 0) * base, before
                before = None
            yield begin, packet

    def _encoded(self, stream: AudioStream, rate: int, layout: str) -> Iterator[_Timed]:
        for frame in self._resampled(rate, layout):
            yield from self._timed(stream.encode(frame))
        yield from self._timed(stream.encode(None))

    @staticmethod
    def _timed(packets: list[Packet[AudioStream]]) -> Iterator[_Timed]:
        for packet in packets:
            yield Fraction((packet.pts or 0) * packet.time_base), packet

    def _resampled(self, rate: int, layout: str) -> Iterator[av.AudioFrame]:
        """Frames of ``_AAC_FRAME`` samples from time 0 to the video's end, in step with their timestamps."""
        graph = av.filter.Graph()
        steps = (
            ("aresample", f"{rate}:async={rate}:min_hard_comp={_LONGEST_SLIP_S}:first_pts=0"),
            ("aformat", f"sample_fmts=fltp:sample_rates={rate}:channel_layouts={layout}"),
            ("atrim", f"end={float(self._duration_s):.9f}"),
            ("asetnsamples", f"n={_AAC_FRAME}:p=0"),
            ("abuffersink", None),
        )
        source = None
        alike = _Alike()
        packets = of_one_clock(self._source.demux(self._track))
        while (packet := next(packets, None)) is not None:
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # damaged: silence, as in a gap
                continue
            for frame in frames:
                if frame.pts is None or frame.time_base is None:
                    continue
                if source is None:
                    source = _entry(graph, frame)
                    graph.link_nodes(source, *(graph.add(name, text) for name, text in steps)).configure()
                shift = round(self._zero_s / frame.time_base)
                if (frame.pts - shift) * frame.time_base >= self._duration_s:
                    break
                frame.pts -= shift
                for each in alike(frame):
                    source.push(each)
                yield from _pulled(graph)
            else:
                continue
            break
        if source is not None:
            source.push(None)
            yield from _pulled(graph)


class _Alike:
    """Brings frames to the format of the first one: within a broadcast stereo may become 5.1."""

    def __init__(self) -> None:
        self._first: av.AudioFrame | None = None
        self._of: tuple[str, str, int] | None = None
        self._graph = av.filter.Graph()

    def __call__(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        first = self._first = self._first or frame
        if _format(frame) == _format(first):
            yield frame
            return
        if _format(frame) != self._of:
            self._graph, self._of = self._made(frame, first), _format(frame)
        self._graph.push(frame)
        for brought in _pulled(self._graph):
            if brought.pts is None or brought.time_base is None or first.time_base is None:
                continue
            brought.pts = round(brought.pts * brought.time_base / first.time_base)
            brought.time_base = first.time_base
            yield brought

    @staticmethod
    def _made(frame: av.AudioFrame, first: av.AudioFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        name, layout, rate = _format(first)
        to = f"sample_fmts={name}:sample_rates={rate}:channel_layouts={layout}"
        graph.link_nodes(_entry(graph, frame), graph.add("aformat", to), graph.add("abuffersink")).configure()
        return graph


def _format(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _entry(graph: av.filter.Graph, frame: av.AudioFrame) -> av.filter.FilterContext:
    name, layout, rate = _format(frame)
    base = frame.time_base or Fraction(1, rate)
    return graph.add_abuffer(sample_rate=rate, format=name, layout=layout, time_base=base)


def _pulled(graph: av.filter.Graph) -> Iterator[av.AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame
