from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.video_io import (
    VideoError,
    VideoInfo,
    VideoWriter,
    encode_lossless,
    iter_frames,
    probe_video,
    read_chunks,
    read_frames,
)

Frames = NDArray[np.uint8]
Make = Callable[..., Frames]
BARS = [(235, 30, 30), (30, 200, 40), (40, 40, 230), (250, 250, 250), (10, 10, 10), (200, 180, 20)]
NTSC = Fraction(30000, 1001)


def write(path: Path, frames: Frames, fps: Fraction = NTSC) -> Path:
    with VideoWriter(path, fps=fps, width=frames.shape[2], height=frames.shape[1], preset="fast") as writer:
        writer.write(frames)
    return path


def test_lossless_bytes_give_back_every_bit_also_of_odd_sizes_and_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
    data = encode_lossless(noise, Fraction(8))
    assert np.array_equal(read_frames(data), noise)
    assert np.array_equal(read_frames(data, 2, 4), noise[2:4])
    assert probe_video(data) == VideoInfo(width=47, height=33, fps=Fraction(8), num_frames=5, codec="ffv1")


@pytest.mark.slow
def test_the_same_frames_give_the_same_bytes_in_another_process(make_scene: Make, tmp_path: Path) -> None:
    frames = make_scene(6)
    np.save(tmp_path / "frames.npy", frames)
    program = (
        "import sys, numpy as np; from fractions import Fraction; from pathlib import Path\n"
        "from stitching.video_io import VideoWriter, encode_lossless\n"
        "folder = Path(sys.argv[1]); frames = np.load(folder / 'frames.npy')\n"
        "(folder / 'other.mkv').write_bytes(encode_lossless(frames, Fraction(30000, 1001)))\n"
        "options = dict(fps=Fraction(30000, 1001), width=160, height=96, preset='fast')\n"
        "with VideoWriter(folder / 'other.mp4', **options) as w: w.write(frames)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)
    assert (tmp_path / "other.mkv").read_bytes() == encode_lossless(frames, NTSC)
    assert (tmp_path / "other.mp4").read_bytes() == write(tmp_path / "here.mp4", frames).read_bytes()


def test_a_written_video_has_exact_count_rate_tags_and_true_colours(tmp_path: Path) -> None:
    bars = np.zeros((10, 64, 96, 3), np.uint8)
    bars[:] = np.repeat(np.array(BARS, np.uint8), 16, axis=0)
    path = write(tmp_path / "bars.mp4", bars)
    assert probe_video(path) == VideoInfo(width=96, height=64, fps=NTSC, num_frames=10, codec="h264")
    read = read_frames(path)
    assert np.abs(read[5, 32, 8::16].astype(int) - bars[5, 32, 8::16]).max() <= 4
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.pix_fmt == "yuv420p"
        assert (stream.colorspace, stream.color_primaries, stream.color_trc) == (1, 1, 1)


def test_frames_are_indexed_in_display_order_with_b_frames(make_scene: Make, tmp_path: Path) -> None:
    frames = make_scene(30)
    path = write(tmp_path / "clip.mp4", frames)
    for k in (0, 7, 29):
        assert cv2.PSNR(read_frames(path, k, k + 1)[0], frames[k]) > 33
    assert sum(1 for _ in iter_frames(path)) == probe_video(path).num_frames == 30
    assert [len(chunk) for chunk in read_chunks(path, 8)] == [8, 8, 8, 6]


def test_rotation_metadata_turns_the_picture(make_scene: Make, tmp_path: Path) -> None:
    frames = make_scene(3)
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.set_display_rotation(90)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe_video(path)
    assert (info.width, info.height) == (96, 160)
    assert cv2.PSNR(read_frames(path)[0], np.ascontiguousarray(np.rot90(frames[0]))) > 28


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nsecret.mp4\n",
        b"ffconcat version 1.0\nfile secret.mp4\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"",
        b"\x00" * 64,
    ],
)
def test_a_playlist_or_other_text_named_mp4_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "movie.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="is not a video this reads") as caught:
        probe_video(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_or_missing_video_is_one_clear_line(make_scene: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", make_scene(10))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(VideoError, match=r"clip\.mp4"):
        probe_video(path)
    with pytest.raises(VideoError, match="No such file"):
        read_frames(tmp_path / "none.mp4")


def test_asking_beyond_the_end_is_refused_with_the_count(make_scene: Make) -> None:
    data = encode_lossless(make_scene(4), Fraction(8))
    with pytest.raises(VideoError, match="ends after 4 frames"):
        read_frames(data, 2, 9)
    with pytest.raises(VideoError, match="start, end"):
        read_frames(data, 3, 2)


def test_the_writer_refuses_odd_sides_and_an_unwritable_place(make_scene: Make, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="got 161x96, expected even"):
        VideoWriter(tmp_path / "odd.mp4", fps=NTSC, width=161, height=96)
    with pytest.raises(VideoError, match="cannot be written"):
        VideoWriter(tmp_path / "nowhere" / "a.mp4", fps=NTSC, width=160, height=96)
    with (
        pytest.raises(VideoError, match="got 64x48, expected 160x96"),
        VideoWriter(tmp_path / "size.mp4", fps=NTSC, width=160, height=96) as writer,
    ):
        writer.write(make_scene(2, width=64, height=48))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_no_file(make_scene: Make, tmp_path: Path) -> None:
    path = tmp_path / "part.mp4"

    def fail_half_way() -> None:
        with VideoWriter(path, fps=NTSC, width=160, height=96) as writer:
            writer.write(make_scene(3))
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    with pytest.raises(VideoError, match="no frame"), VideoWriter(path, fps=NTSC, width=160, height=96):
        pass
    assert not path.exists()
