"""A flipped bit in a lossless frame is an error; what has no checksums is read as before."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.video_io import VideoError, encode_lossless, pick_frames, read_frames

Frames = NDArray[np.uint8]
FPS = Fraction(8)


@pytest.fixture(scope="module")
def noise() -> Frames:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)


def packets(content: bytes) -> list[tuple[int, int]]:
    """(first byte, length) of each frame in the file."""
    with av.open(io.BytesIO(content)) as container:
        return [(content.index(bytes(p)), p.size) for p in container.demux(video=0) if p.size]


def test_every_flipped_bit_in_a_frame_is_an_error(noise: Frames) -> None:
    content = encode_lossless(noise, FPS)
    frames = packets(content)
    rng = np.random.default_rng(1)
    for _ in range(200):
        first, length = frames[rng.integers(len(frames))]
        bit = int(rng.integers(length * 8))
        damaged = bytearray(content)
        damaged[first + bit // 8] ^= 1 << bit % 8
        with pytest.raises(VideoError, match="is damaged, the checksum of a slice is wrong"):
            read_frames(bytes(damaged))
        with pytest.raises(VideoError, match="is damaged"):
            list(pick_frames(bytes(damaged), [3]))
    assert np.array_equal(read_frames(content), noise)


@pytest.mark.parametrize(
    "options",
    [
        {"level": "3", "slices": "4", "slicecrc": "0"},
        {"level": "3", "slices": "9", "slicecrc": "1", "coder": "1"},
        {"level": "1"},
    ],
    ids=["no checksums", "other slices", "a version without them"],
)
def test_other_streams_of_ffv1_are_read_as_they_are(noise: Frames, options: dict[str, str]) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.options = 48, 32, "bgr0", options
        for frame in noise:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert np.array_equal(read_frames(buffer.getvalue()), noise)
