"""The pictures that pages show of stored images, videos and joins."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from farm.errors import InvalidInput
from farm.running.cluster import SO_FAR_NAME
from nodes.hosting.keep_up import media_tools
from nodes.media.pictures import (
    STRIP_TILE_SIDE,
    codec,
    picture,
    refuse_unknown,
    seam_picture,
    spritesheet,
    strip_moments,
    thumbnail,
)
from stitching.video_io import VideoWriter, encode_lossless

Frames = NDArray[np.uint8]
FPS = Fraction(8)
_GAP = 6
CUT = (84, 150, 245)


def numbered(numbers: list[int] | range, *, width: int = 160, height: int = 96) -> Frames:
    """Frames of one grey each: 4 levels a number, so that a picture tells which frame it shows."""
    levels = np.array(numbers, np.uint8) * 4 + 10
    return np.broadcast_to(levels[:, None, None, None], (len(levels), height, width, 3)).copy()


def number_of(frame: Frames) -> int:
    return round((float(frame.mean()) - 10) / 4)


def shown(content: bytes) -> Frames:
    image = Image.open(io.BytesIO(content))
    assert image.format == "WEBP"
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    def make(numbers: list[int] | range, name: str = "video.mp4", **changes: int) -> Path:
        frames = numbered(numbers, **changes)
        size = {"width": frames.shape[2], "height": frames.shape[1]}
        with VideoWriter(tmp_path / name, fps=FPS, preset="veryfast", **size) as writer:
            writer.write(frames)
        return tmp_path / name

    return make


@pytest.fixture
def segment(tmp_path: Path) -> Callable[..., Path]:
    def make(numbers: list[int] | range, name: str) -> Path:
        (tmp_path / name).write_bytes(encode_lossless(numbered(numbers), FPS))
        return tmp_path / name

    return make


def test_a_frame_of_a_video_or_segment_is_the_frame_of_that_number(
    video: Callable[..., Path], segment: Callable[..., Path]
) -> None:
    for path in (video(range(20)), segment(range(20), "segment")):
        for index in (0, 7, 19):
            assert number_of(shown(picture(path, index, 640))) == index
        with pytest.raises(InvalidInput, match="ends before frame 20"):
            picture(path, 20, 640)
        with pytest.raises(InvalidInput):
            picture(path, -1, 640)


@pytest.mark.parametrize(
    ("width", "height", "longest_side", "expected"),
    [(400, 200, 100, (100, 50)), (200, 400, 100, (50, 100)), (64, 48, 100, (64, 48)), (1000, 2, 10, (10, 1))],
)
def test_pictures_keep_their_shape_and_are_never_enlarged(
    tmp_path: Path, width: int, height: int, longest_side: int, expected: tuple[int, int]
) -> None:
    path = tmp_path / "stored"
    Image.new("RGB", (width, height), (200, 40, 90)).save(path, "PNG")
    found = shown(picture(path, 0, longest_side))
    assert (found.shape[1], found.shape[0]) == expected
    assert np.abs(found.reshape(-1, 3).mean(axis=0) - (200, 40, 90)).max() < 8
    with pytest.raises(InvalidInput, match="an image has frame 0 only"):
        picture(path, 1, longest_side)


def test_a_thumbnail_is_the_middle_of_the_video(video: Callable[..., Path]) -> None:
    found = shown(thumbnail(video(range(21), width=1280, height=720)))
    assert found.shape == (360, 640, 3)
    assert number_of(found) == 10


@pytest.mark.parametrize(
    ("num_frames", "grid", "expected"),
    [
        (1, (1, 1), [0]),
        (4, (2, 2), [0, 1, 2, 3]),
        (7, (3, 3), list(range(7))),
        (49, (5, 5), list(range(0, 49, 2))),
    ],
)
def test_a_spritesheet_runs_row_by_row_from_the_first_frame_to_the_last(
    video: Callable[..., Path], num_frames: int, grid: tuple[int, int], expected: list[int]
) -> None:
    sheet = shown(spritesheet(video(range(num_frames))))
    rows, columns = grid
    assert sheet.shape == (rows * 96, columns * 160, 3)
    tiles = [
        sheet[y * 96 + 8 : y * 96 + 88, x * 160 + 8 : x * 160 + 152]
        for y in range(rows)
        for x in range(columns)
    ]
    assert [number_of(tile) for tile in tiles[: len(expected)]] == expected
    assert all(tile.mean() < 30 for tile in tiles[len(expected) :])


# Joins.


@pytest.mark.parametrize(
    ("overlap", "earlier", "later", "expected"),
    [
        (4, 16, 16, ([-2, -1, 0, 1, 2, 3, 4, 5], 4)),
        (3, 16, 16, ([-3, -2, -1, 0, 1, 2, 3, 4], 4)),
        (0, 16, 16, ([-4, -3, -2, -1, 0, 1, 2, 3], 4)),
        (0, 2, 1, ([-2, -1, 0], 2)),
        (12, 16, 16, ([-2, 0, 2, 5, 6, 8, 10, 13], 4)),
        (1, 1, 1, ([0], 0)),
        (8, 8, 8, ([0, 1, 2, 3, 4, 5, 6, 7], 4)),
    ],
)
def test_a_strip_shows_the_moments_around_the_cut(
    overlap: int, earlier: int, later: int, expected: tuple[list[int], int]
) -> None:
    assert strip_moments(overlap, earlier, later) == expected


def tiles_of(content: bytes) -> list[int]:
    strip = shown(content)
    width = 160 + _GAP
    count = (strip.shape[1] + _GAP) // width
    assert strip.shape == (96, count * width - _GAP, 3)
    return [number_of(strip[8:-8, i * width + 8 : i * width + 152]) for i in range(count)]


def marks_of(content: bytes) -> list[int]:
    """The tiles that a mark stands before."""
    strip = shown(content)
    gaps = [i * (160 + _GAP) - _GAP // 2 for i in range(1, (strip.shape[1] + _GAP) // (160 + _GAP))]
    near = [np.abs(strip[8:-8, x].mean(axis=0) - CUT).max() < 60 for x in gaps]
    return [i + 1 for i, is_near in enumerate(near) if is_near]


def test_before_is_the_hard_cut_and_after_are_the_same_moments_joined(
    video: Callable[..., Path], segment: Callable[..., Path]
) -> None:
    # The later segment is a level brighter by 20 numbers; the joined video goes from one to the other.
    earlier = segment(range(16), "earlier")
    later = segment(range(32, 48), "later")
    joined = video(range(50))
    asked = {"overlap": 4, "num_frames_earlier": 14, "joined": joined, "joined_start": 20}
    before = seam_picture(earlier, later, which="before", **asked)  # type: ignore[arg-type]
    after = seam_picture(earlier, later, which="after", **asked)  # type: ignore[arg-type]
    assert tiles_of(before) == [8, 9, 10, 11, 34, 35, 36, 37]
    assert tiles_of(after) == [18, 19, 20, 21, 22, 23, 24, 25]
    assert (marks_of(before), marks_of(after)) == ([4], [])
    without = {**asked, "joined": None}
    assert seam_picture(earlier, later, which="before", **without) == before  # type: ignore[arg-type]


def test_of_an_interpolated_video_the_rendered_frames_are_shown(
    video: Callable[..., Path], segment: Callable[..., Path]
) -> None:
    after = seam_picture(
        segment(range(8), "earlier"),
        segment(range(8), "later"),
        overlap=2,
        num_frames_earlier=8,
        joined=video(range(40)),
        joined_start=6,
        joined_step=Fraction(3),
        which="after",
    )
    assert tiles_of(after) == [9, 12, 15, 18, 21, 24, 27, 30]


def test_a_join_that_is_not_there_yet_is_said(
    video: Callable[..., Path], segment: Callable[..., Path]
) -> None:
    earlier, later = segment(range(16), "earlier"), segment(range(16), "later")
    asked = {"overlap": 4, "num_frames_earlier": 16, "which": "after"}
    with pytest.raises(InvalidInput, match="not joined yet"):
        seam_picture(earlier, later, joined=None, joined_start=12, **asked)  # type: ignore[arg-type]
    so_far = video(range(14), SO_FAR_NAME)
    with pytest.raises(InvalidInput, match=r"so-far\.mp4: ends before frame 14"):
        seam_picture(earlier, later, joined=so_far, joined_start=12, **asked)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"video\.mp4: ends before frame 10"):
        seam_picture(earlier, later, joined=video(range(9)), joined_start=12, **asked)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="share at most 16"):
        seam_picture(earlier, later, joined=None, joined_start=12, **{**asked, "overlap": 17})  # type: ignore[arg-type]


def test_a_segment_rendered_past_the_videos_end_is_shown_up_to_there(
    video: Callable[..., Path], segment: Callable[..., Path]
) -> None:
    """The last window of a chain is rendered whole and cropped."""
    after = seam_picture(
        segment(range(16), "earlier"),
        segment(range(12, 28), "later"),
        overlap=4,
        num_frames_earlier=16,
        joined=video(range(17)),
        joined_start=12,
        which="after",
    )
    assert tiles_of(after) == [10, 11, 12, 13, 14, 15, 16]


def test_wide_frames_make_a_strip_a_page_can_show(tmp_path: Path) -> None:
    wide = np.zeros((8, 720, 1280, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(encode_lossless(wide, FPS))
    strip = shown(
        seam_picture(
            tmp_path / "a",
            tmp_path / "b",
            overlap=3,
            num_frames_earlier=8,
            joined=None,
            joined_start=5,
            which="before",
        )
    )
    assert strip.shape[1] <= 8 * (STRIP_TILE_SIDE + _GAP)


# Files that are not what they should be.


def test_a_missing_or_damaged_file_is_one_line_without_its_folder(
    tmp_path: Path, video: Callable[..., Path]
) -> None:
    damaged = tmp_path / "damaged"
    for content in (
        b"",
        b"\x89PNG\r\n\x1a\n and then nothing",
        b"plain text",
        video(range(9)).read_bytes()[:300],
    ):
        damaged.write_bytes(content)
        for look in (lambda p: picture(p, 0, 100), thumbnail, spritesheet, codec):
            with pytest.raises(InvalidInput) as caught:
                look(damaged)
            assert "\n" not in str(caught.value)
            assert str(tmp_path) not in str(caught.value)
    for look in (lambda p: picture(p, 0, 100), thumbnail, spritesheet, codec):
        with pytest.raises(InvalidInput, match="none"):
            look(tmp_path / "none")


@pytest.mark.parametrize(
    "head",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\1\0\0",
        b"RIFF\x24\0\0\0WEBPVP8 ",
        b"RIFF\x24\0\0\0AVI LIST",
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\xf7\x81\1\x42\xf2\x81",
        b"\0\0\0\x18ftypisom\0\0\2\0",
        b"\0\0\0\x14ftypqt  \0\0\2\0",
        b"GIF89a\1\0\1\0\x80\0\0\0\0\0",
        b"\0\0\0\x1cftypheic\0\0\0\0",
    ],
)
def test_sixteen_bytes_are_enough_to_let_a_known_file_pass(head: bytes) -> None:
    refuse_unknown(head[:16])


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"#EXTM3U\n#EXTINF:", "playlist"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"<?xml version='1.", "SVG, XML or HTML"),
        (b"\x7fELF\2\1\1" + bytes(9), "neither an image nor a video"),
        (b"hello, world 123", "a text file"),
        (b"", "text file"),
    ],
)
def test_what_is_not_accepted_is_told_by_its_first_bytes(head: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        refuse_unknown(head[:16])


def test_the_tools_of_the_doors_are_the_real_ones(tmp_path: Path, video: Callable[..., Path]) -> None:
    tools = media_tools()
    path = video(range(5))
    info = tools.normalise(path, tmp_path, lambda num_frames, share: None)
    assert (info.kind, info.num_frames) == ("video", 5)
    assert number_of(shown(tools.picture(info.path, 3, 64))) == 3
    assert tools.codec(path).startswith("avc1.")
    painted = cv2.imdecode(
        np.frombuffer(tools.backdrop("a red sea at night", 1, 320, 192), np.uint8), cv2.IMREAD_COLOR
    )
    assert painted is not None
    assert painted.shape == (192, 320, 3)
