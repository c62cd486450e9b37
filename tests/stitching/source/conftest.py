"""Small videos of every kind, made for one test run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import pytest
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
Write: TypeAlias = Callable[..., Path]


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """write(name, frames, codec=..., ...) -> the path of a new video of these frames (H, W, 3)."""
    folder = tmp_path_factory.mktemp("videos")

    def written(
        name: str,
        frames: Iterable[Image],
        *,
        codec: str = "libx264",
        fps: Fraction = Fraction(25),
        pts: Iterable[int] | None = None,
        pix_fmt: str = "yuv420p",
        muxer: str | None = None,
        options: dict[str, str] | None = None,
        rotation: int | None = None,
        aspect: Fraction | None = None,
        **context: Any,
    ) -> Path:
        """pts: of the frames, in milliseconds."""
        path = folder / name
        stamps = None if pts is None else list(pts)
        with av.open(str(path), "w", format=muxer) as container:
            stream = container.add_stream(codec, rate=fps)
            images = list(frames)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt, stream.options = pix_fmt, options or {}
            if stamps is not None:
                stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            if rotation is not None:
                stream.set_display_rotation(rotation)
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            for key, value in context.items():
                setattr(stream.codec_context, key, value)
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                if stamps is not None:
                    frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return written
