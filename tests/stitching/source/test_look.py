"""One look at all of a video says how it is read, and what that changes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from stitching.source import look
from stitching.video_io import VideoError

Write: TypeAlias = Callable[..., Path]


def greys(count: int, side: int = 48) -> list[NDArray[np.uint8]]:
    return [np.full((side, 64, 3), 10 + 4 * i, np.uint8) for i in range(count)]


def looked(path: Path, max_frames: int = 100) -> tuple[int, int, int, tuple[str, ...]]:
    found = look(path, max_frames=max_frames, on_progress=lambda num_frames, share: None)
    return found.width, found.height, found.num_frames, found.changes


def test_an_ordinary_video_is_changed_in_nothing(write: Write) -> None:
    assert looked(write("plain.mp4", greys(12))) == (64, 48, 12, ())


@pytest.mark.parametrize(
    ("options", "size", "says"),
    [
        ({"rotation": 90}, (48, 64), "turned by 270 degrees clockwise"),
        ({"aspect": Fraction(4, 3)}, (85, 48), "not square (4:3): 64x48 is brought to 85x48"),
        (
            {"pts": [33 * i for i in range(6)] + [2000 + 33 * i for i in range(6)]},
            (64, 48),
            "varies: it is read at 30",
        ),
        ({"options": {"x264-params": "interlaced=1:tff=1"}}, (64, 48), "interlaced"),
        (
            {"options": {"x264-params": "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}},
            (64, 48),
            "HDR10",
        ),
    ],
)
def test_what_is_changed_is_said(
    write: Write, options: dict[str, object], size: tuple[int, int], says: str
) -> None:
    width, height, _, changes = looked(write("changed.mp4", greys(12), **options))
    assert (width, height) == size
    assert len(changes) == 1
    assert says in changes[0]


def test_two_frames_with_one_stamp_as_screen_recorders_write_them_are_an_order_all_the_same(
    write: Write,
) -> None:
    stamps = [0, 33, 67, 67, 133, 167] + [2000 + 33 * i for i in range(6)]
    found = look(
        write("recorded.mkv", greys(12), codec="ffv1", pts=stamps),
        max_frames=100,
        on_progress=lambda *_: None,
    )
    assert (found.num_frames, found.fps) == (66, 30)
    assert not found.reading.counted
    assert found.reading.seekable


def test_of_several_video_tracks_the_default_is_read_then_the_largest(tmp_path: Path) -> None:
    for default in (None, 0):
        path = tmp_path / "two.mkv"
        with av.open(str(path), "w") as container:
            for side in (32, 64):
                stream = container.add_stream("ffv1", rate=25)
                stream.width = stream.height = side
                # Matroska's muxer marks the first where none is marked.
                stream.disposition = Disposition.default if default is None or side == 32 else Disposition(0)
            for stream in container.streams.video:
                frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
                frame.pts = 0
                container.mux([*stream.encode(frame), *stream.encode(None)])
        side = 64 if default is None else 32
        says = f"holds 2 video tracks, the one that players show is taken ({side}x{side})"
        assert looked(path) == (side, side, 1, (says,))


def test_a_stream_that_begins_within_a_group_begins_with_its_first_whole_picture(write: Write) -> None:
    path = write("whole.ts", greys(40), codec="mpeg2video", options={"g": "10", "bf": "2"})
    packets = path.read_bytes()
    for cut in (0.3, 0.55):
        begun = path.with_name("begun.ts")
        begun.write_bytes(packets[int(len(packets) * cut) // 188 * 188 :])
        _, _, num_frames, _ = looked(begun)
        assert 5 <= num_frames <= 40 * (1 - cut) + 2


def test_a_stream_that_was_cut_off_ends_with_what_is_there(write: Write) -> None:
    path = write("long.ts", greys(40), options={"g": "10", "bf": "0"})
    packets = path.read_bytes()
    path.write_bytes(packets[: len(packets) * 2 // 3])
    assert 20 <= looked(path)[2] < 40


def test_a_seek_into_a_program_stream_is_not_believed_for_its_stamps_are_made_up(write: Write) -> None:
    path = write("a.mpg", greys(60), codec="mpeg2video", options={"g": "12", "bf": "2"})
    found = look(path, max_frames=100, on_progress=lambda num_frames, share: None)
    assert (found.num_frames, found.reading.counted, found.reading.seekable) == (60, False, False)


def test_progress_is_told_while_it_lasts(write: Write) -> None:
    told: list[tuple[int, float | None]] = []
    look(
        write("told.mp4", greys(60), options={"bf": "0"}),
        max_frames=100,
        on_progress=lambda num_frames, share: told.append((num_frames, share)),
    )
    assert [num_frames for num_frames, _ in told] == list(range(10, 61, 10))
    shares = [share for _, share in told if share is not None]
    assert shares == sorted(shares)
    assert 0.1 < shares[0] < 0.2
    assert shares[-1] > 0.9


def test_a_video_with_more_frames_than_are_read_is_refused(write: Write) -> None:
    with pytest.raises(VideoError, match="has more than 11 frames"):
        looked(write("plain.mp4", greys(12)), max_frames=11)
