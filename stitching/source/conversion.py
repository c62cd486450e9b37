"""Decoded frames as players show them, through libavfilter."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av.error
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData

from stitching.clip import Image
from stitching.source.cube import cube_text
from stitching.source.decoding import Opened, VideoFrame
from stitching.source.display import Filter, Shown, Stored, filters, shown
from stitching.video_io import VideoError

_MATRIX = struct.Struct("=9i")


def stored(frame: VideoFrame, source: Opened) -> Stored:
    """What a decoded frame says of itself, and its file of it."""
    side = frame.side_data.get("DISPLAYMATRIX")
    matrix = bytes(side) if isinstance(side, SideData) else b""
    return Stored(
        width=frame.width,
        height=frame.height,
        pix_fmt=frame.format.name,
        is_rgb=frame.format.is_rgb or frame.format.has_palette,
        colorspace=int(frame.colorspace),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        color_range=int(frame.color_range),
        aspect=source.aspect or Fraction(1),
        matrix=_MATRIX.unpack(matrix) if len(matrix) == _MATRIX.size else None,
        crop=source.cropped.crop,
    )


class Converter:
    """Frames of one stream to RGB; the graph is made anew where a frame says other things of itself."""

    def __init__(self, source: Opened) -> None:
        self._source = source
        self._of: Stored | None = None
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> Image:
        """(H, W, 3), as it is shown. Raises VideoError."""
        described = stored(frame, self._source)
        try:
            if self._graph is None or described != self._of:
                self._graph, self._of = _graph_to_rgb(frame, shown(described)), described
            self._graph.vpush(frame)
            return np.ascontiguousarray(self._graph.vpull().to_ndarray(format="rgb24"), dtype=np.uint8)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"{self._source.name}: a frame cannot be converted ({error})") from None


def deinterlaced(frames: Iterable[VideoFrame], time_base: Fraction) -> Iterator[tuple[int, VideoFrame]]:
    """The same frames with their stamps; the fields of an interlaced one are made one picture (bwdif)."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            graph = _graph(frame, time_base, (("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),))
        graph.vpush(frame)
        yield from _pulled(graph, time_base)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph, time_base)


def _pulled(graph: Graph, time_base: Fraction) -> Iterator[tuple[int, VideoFrame]]:
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield round((frame.pts or 0) * (frame.time_base or time_base) / time_base), frame


def _graph_to_rgb(frame: VideoFrame, way: Shown) -> Graph:
    base = frame.time_base or Fraction(1, 1000)
    if way.cube is None:
        return _graph(frame, base, filters(way))
    with tempfile.NamedTemporaryFile("w", suffix=".cube") as file:
        file.write(cube_text(*way.cube))
        file.flush()
        return _graph(frame, base, filters(way, _escaped(file.name)))


def _graph(frame: VideoFrame, time_base: Fraction, chain: Sequence[Filter]) -> Graph:
    graph = Graph()
    graph.threads = 1
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    for name, arguments in (*chain, ("buffersink", "")):
        added = graph.add(name, arguments) if arguments else graph.add(name)
        last.link_to(added)
        last = added
    graph.configure()
    return graph


def _escaped(path: str) -> str:
    """A path as the argument of a filter."""
    return "".join(f"\\{c}" if c in "\\':" else c for c in path)
