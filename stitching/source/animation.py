"""An animated picture as a lossless video with the times of its pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from stitching.pictures import PictureError, read_animation

#: A file of some KB may hold pictures without end.
MAX_PICTURES, MAX_BYTES = 20_000, 4 << 30
_TIME_BASE = Fraction(1, 1000)


def animation_as_video(
    file: BinaryIO, path: Path, on_progress: Callable[[int, float | None], None]
) -> int | None:
    """Write an animated GIF, PNG, WebP or AVIF as FFV1 in Matroska, each picture for as long as it is shown.

    Returns how many pictures that are; None: it is none of these, or stands still. Raises PictureError: it is
    damaged, or has more than ``MAX_PICTURES``, or takes more than ``MAX_BYTES`` or
    half of what is free.
    """
    pictures = read_animation(file)
    if pictures is None:
        return None
    count, at_ms = 0, 0
    max_bytes = min(MAX_BYTES, shutil.disk_usage(path.parent).free // 2)  # others write to this disk, too
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.pix_fmt, stream.time_base = "bgr0", _TIME_BASE
        stream.codec_context.time_base = _TIME_BASE
        for picture, shown_ms in pictures:
            if count == 0:
                stream.width, stream.height = picture.size
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = at_ms, _TIME_BASE
            for packet in stream.encode(frame):  # one: every picture stands alone
                packet.duration = shown_ms
                container.mux(packet)
            count, at_ms = count + 1, at_ms + shown_ms
            if count > MAX_PICTURES or path.stat().st_size > max_bytes:
                raise PictureError(
                    f"is too long to be read as a video ({MAX_PICTURES} pictures, or {max_bytes >> 20} MiB "
                    "without loss, are the most here); save it as mp4"
                )
            on_progress(count, None)
        container.mux(stream.encode(None))
    return count
