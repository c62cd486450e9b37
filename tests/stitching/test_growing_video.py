"""A video that is watched while it is written: whole at every moment, as far as it goes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.mp4_codec import codec_string
from stitching.video_io import VideoError, VideoWriter, pick_frames, read_frames

pytestmark = pytest.mark.slow  # encodes videos and sounds

Frames = NDArray[np.uint8]
Make = Callable[..., Frames]
FPS = Fraction(8)


def growing(path: Path, fps: Fraction = FPS, width: int = 160, height: int = 96) -> VideoWriter:
    return VideoWriter(path, fps=fps, width=width, height=height, crf=18, preset="ultrafast", growing=True)


def boxes(content: bytes) -> list[tuple[str, bytes]]:
    """The outermost boxes that are there from end to end."""
    found, position = [], 0
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if position + size > len(content):
            break
        found.append((content[position + 4 : position + 8].decode(), content[position : position + size]))
        position += size
    return found


def decoded(content: bytes) -> list[Frames]:
    """What a player gets of the file as it is now."""
    with av.open(io.BytesIO(content), format="mov") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def when(path: Path, num_frames: int) -> bytes:
    """The file as soon as that many frames are in it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        content = path.read_bytes()
        if sum(name == "mdat" for name, _ in boxes(content)) >= num_frames:
            return content
        time.sleep(0.002)
    raise AssertionError(f"{num_frames} frames were not there in time")


def test_at_every_moment_the_file_plays_as_far_as_it_goes(make_scene: Make, tmp_path: Path) -> None:
    frames, path = make_scene(30), tmp_path / "so-far.mp4"
    with growing(path) as writer:
        for start, end in pairwise((0, 1, 2, 9, 20, 30)):
            writer.write(frames[start:end])
            # The last frame's length is known when the next one comes.
            played = decoded(when(path, end - 1)) if end > 1 else []
            assert end - 1 <= len(played) <= end
            for k, frame in enumerate(played):
                assert cv2.PSNR(frame, frames[k]) > 30
    assert len(decoded(path.read_bytes())) == 30
    assert len(read_frames(path)) == 30


def test_the_header_is_there_before_the_first_frame(tmp_path: Path, make_scene: Make) -> None:
    path = tmp_path / "so-far.mp4"
    with growing(path) as writer:
        deadline = time.monotonic() + 60
        while not path.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.002)
        assert [name for name, _ in boxes(path.read_bytes())] == ["ftyp", "moov"]
        assert codec_string(path) == "avc1.42c00a"
        writer.write(make_scene(1))


def test_a_player_may_start_at_every_second(make_scene: Make, tmp_path: Path) -> None:
    """As MediaSource does: the header, and then fragments from any keyframe on."""
    path = tmp_path / "so-far.mp4"
    with growing(path) as writer:
        writer.write(make_scene(30))
    (_, ftyp), (_, moov), *rest = boxes(path.read_bytes())
    assert [name for name, _ in rest[:60]] == ["moof", "mdat"] * 30
    with av.open(str(path)) as container:
        keys = [
            n for n, packet in enumerate(p for p in container.demux(video=0) if p.size) if packet.is_keyframe
        ]
    assert keys == [0, 8, 16, 24]
    later = b"".join(content for _, content in rest[2 * 16 :])
    assert len(decoded(ftyp + moov + later)) == 14


@pytest.mark.parametrize(
    ("width", "height", "fps"),
    [(64, 48, Fraction(8)), (512, 512, Fraction(24)), (1280, 720, Fraction(30000, 1001))],
)
def test_the_codec_string_is_the_decoders_own_and_never_changes(
    width: int, height: int, fps: Fraction, tmp_path: Path
) -> None:
    path, strings = tmp_path / "so-far.mp4", set()
    frames = np.random.default_rng(0).integers(0, 255, (6, height, width, 3)).astype(np.uint8)
    with growing(path, fps, width, height) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame)
            when(path, number)
            if number:
                strings.add(codec_string(path))
    strings.add(codec_string(path))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.extradata is not None
        profile, constraints, level = context.extradata[1:4]
    assert context.profile == "Constrained Baseline"
    assert strings == {f"avc1.{profile:02x}{constraints:02x}{level:02x}"}


def test_the_codec_string_of_a_published_video_says_high_profile(make_scene: Make, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with VideoWriter(path, fps=FPS, width=160, height=96) as writer:
        writer.write(make_scene(3))
    assert codec_string(path).startswith("avc1.6400")


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 40, b"\x00\x00\x00\x18ftypisom", b"RIFF" * 20, b"\x00\x00\x00\x01moov"]
)
def test_the_codec_of_what_is_no_mp4_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"is not an mp4 file with H\.264 video"):
        codec_string(path)
    with pytest.raises(VideoError, match="cannot be read"):
        codec_string(tmp_path / "none.mp4")


def test_no_head_cut_short_is_taken_for_a_whole_one(make_scene: Make, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with VideoWriter(path, fps=FPS, width=160, height=96) as writer:
        writer.write(make_scene(3))
    whole, content = codec_string(path), path.read_bytes()
    for size in range(0, 1200, 7):
        path.write_bytes(content[:size])
        try:
            assert codec_string(path) == whole
        except VideoError:
            continue


# Frames by number.


@pytest.mark.parametrize("fps", [FPS, Fraction(30000, 1001)])
@pytest.mark.parametrize("is_growing", [False, True])
def test_picked_frames_are_the_frames_of_that_number(
    make_scene: Make, tmp_path: Path, fps: Fraction, is_growing: bool
) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, fps=fps, width=64, height=48, preset="veryfast", growing=is_growing) as writer:
        writer.write(make_scene(300, width=64, height=48))
    every = read_frames(path)
    for indices in ([0], [299], [249, 250, 251], [3, 150, 298], []):
        picked = list(pick_frames(path, indices))
        assert len(picked) == len(indices)
        assert all(np.array_equal(frame, every[k]) for frame, k in zip(picked, indices, strict=True))
    with pytest.raises(VideoError, match="ends before frame 300"):
        list(pick_frames(path, [299, 300]))
    with pytest.raises(VideoError, match="ascending"):
        list(pick_frames(path, [3, 2]))


def test_picking_from_a_video_of_uneven_times_counts_its_frames(make_scene: Make, tmp_path: Path) -> None:
    path, frames = tmp_path / "phone.mp4", make_scene(12)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        at = 0
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = at, Fraction(1, 1000)
            at += 37 if number % 2 else 51
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    every = read_frames(path)
    for k in (1, 6, 11):
        assert np.array_equal(next(pick_frames(path, [k])), every[k])
