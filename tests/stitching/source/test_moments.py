"""Any moment of any video is read as a player shows it, wherever a seek leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.source import Reading, first_frame, frames_at, look
from stitching.source.decoding import Opened, VideoFrame, shown_frames
from stitching.video_io import VideoError

Image: TypeAlias = NDArray[np.uint8]
Write: TypeAlias = Callable[..., Path]


def grey(level: int) -> Image:
    return np.full((48, 64, 3), level, np.uint8)


LEVELS = [10 + 3 * i for i in range(75)]


def looked(path: Path) -> tuple[Fraction, int, Reading]:
    found = look(path, max_frames=1000, on_progress=lambda num_frames, share: None)
    return found.fps, found.num_frames, found.reading


def read(path: Path, indices: list[int]) -> list[Image]:
    fps, _, reading = looked(path)
    return list(frames_at(path, reading, [index / fps for index in indices], rate=fps))


def levels(path: Path, indices: list[int]) -> list[int]:
    return [round(float(frame.mean())) for frame in read(path, indices)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "12", "bf": "3"}),
        ("open.mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
        ("a.mkv", "libx265", {"x265-params": "log-level=none:keyint=12:open-gop=1"}),
        ("a.webm", "libvpx", {"g": "12"}),
        ("a.avi", "mpeg4", {"g": "12"}),
        ("a.ts", "libx264", {"g": "12", "bf": "2"}),
        ("b.ts", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.flv", "libx264", {"g": "12", "bf": "2"}),
        ("a.wmv", "wmv2", {"g": "12"}),
        ("counted.avi", "libx264", {"g": "12", "bf": "2"}),
    ],
)
def test_a_window_anywhere_has_the_frames_that_reading_from_the_start_has(
    write: Write, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write(name, map(grey, LEVELS), codec=codec, options=options)
    whole = read(path, list(range(75)))
    assert [round(float(f.mean())) for f in whole] == pytest.approx(LEVELS, abs=8)
    for first in (1, 23, 24, 25, 60, 73):
        for frame, expected in zip(read(path, [first, first + 1]), whole[first:], strict=False):
            assert np.array_equal(frame, expected), first


def test_a_window_at_the_end_is_decoded_from_the_keyframe_before_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("long.mp4", map(grey, LEVELS), options={"g": "10", "bf": "0"})
    fps, _, reading = looked(path)
    decoded = 0

    def counted(source: Opened) -> Iterator[VideoFrame]:
        nonlocal decoded
        for frame in shown_frames(source):
            decoded += 1
            yield frame

    monkeypatch.setattr("stitching.source.moments.shown_frames", counted)
    assert len(list(frames_at(path, reading, [71 / fps, 72 / fps], rate=fps))) == 2
    assert decoded <= 5


def test_a_seek_that_leads_too_far_is_not_believed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("far.mp4", map(grey, LEVELS), options={"g": "10", "bf": "0"})
    monkeypatch.setattr("stitching.source.moments._FURTHER_BACK_S", (-1, 1))
    assert levels(path, [30]) == pytest.approx([LEVELS[30]], abs=3)
    monkeypatch.setattr("stitching.source.moments._FURTHER_BACK_S", (-1,))
    assert levels(path, [30]) == pytest.approx([LEVELS[30]], abs=3), "else it is read from the beginning"


def test_a_variable_rate_is_read_by_its_times(write: Write) -> None:
    stamps = [33 * i for i in range(12)] + [2400 + 33 * i for i in range(12)]
    for name, codec in (("v.mp4", "libx264"), ("v.webm", "libvpx")):
        path = write(name, [grey(20)] * 12 + [grey(200)] * 12, codec=codec, pts=stamps)
        fps, num_frames, _ = looked(path)
        assert (fps, num_frames) == (30, 84)
        found = levels(path, list(range(84)))
        assert found == pytest.approx([20] * 72 + [200] * 12, abs=4)


def test_a_video_begins_with_its_first_shown_frame_whatever_its_stamps(write: Write) -> None:
    path = write("late.mkv", map(grey, LEVELS[:9]), pts=[5000 + 40 * i for i in range(9)])
    fps, num_frames, reading = looked(path)
    assert (fps, num_frames, reading.start_s) == (25, 9, 5)
    assert levels(path, [0, 8]) == pytest.approx([LEVELS[0], LEVELS[8]], abs=3)


def interlaced_frames(count: int) -> list[Image]:
    """A bar that moves between the fields of a frame, the upper first."""

    def field(number: int) -> Image:
        picture = grey(40)
        picture[:, 2 * number % 50 : 2 * number % 50 + 10] = 230
        return picture

    frames = []
    for number in range(count):
        frame = field(2 * number)
        frame[1::2] = field(2 * number + 1)[1::2]
        frames.append(frame)
    return frames


def combing(frame: Image) -> float:
    rows = frame[..., 1].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def test_fields_become_whole_pictures_the_same_in_every_window(write: Write) -> None:
    options = {"x264-params": "interlaced=1:tff=1", "crf": "8", "g": "5"}
    path = write("fields.mp4", interlaced_frames(20), options=options)
    fps, num_frames, reading = looked(path)
    assert (fps, num_frames, reading.interlaced) == (25, 20, True)
    whole = read(path, list(range(20)))
    given = max(map(combing, interlaced_frames(20)))
    assert max(map(combing, whole)) < 0.4 * given
    for first in (1, 4, 5, 6, 17):
        window = read(path, [first, first + 1])
        assert all(np.array_equal(a, b) for a, b in zip(window, whole[first:], strict=False)), first


def test_the_first_frame_alone_is_the_same_picture(write: Write) -> None:
    quarters = grey(20)
    quarters[:24, :32] = (200, 30, 30)
    path = write("turned.mp4", [quarters] * 3, rotation=90)
    assert np.array_equal(first_frame(path), read(path, [0])[0])
    assert first_frame(path).shape == (64, 48, 3)
    assert first_frame(path)[-9, 5, 0] > 150, "the upper left corner has come to the lower left"


def test_sound_alone_and_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("hello " * 200)
    with pytest.raises(VideoError, match="is not a video of a known type"):
        first_frame(tmp_path / "notes.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="holds no video stream"):
        first_frame(tmp_path / "sound.mkv")
