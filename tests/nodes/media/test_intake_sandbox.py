from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from farm.errors import InvalidInput
from nodes.media.intake_sandbox import _progress, normalise
from stitching.video_io import VideoWriter

pytestmark = pytest.mark.slow


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def write_photo(path: Path, side: int = 64) -> Path:
    pixels = np.random.default_rng(2).integers(0, 255, (side, side, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def refused(path: Path, output_dir: Path, **limits: float) -> str:
    """The message of the refusal; known to be one line with nothing left behind."""
    # Other tests of this process may have left a browser running.
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(InvalidInput) as caught:
        normalise(path, output_dir, **limits)  # type: ignore[arg-type]
    assert list(output_dir.iterdir()) == []
    assert set(psutil.Process().children(recursive=True)) <= before
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_image_is_taken_in_under_its_hash_and_nothing_else_is_left(
    tmp_path: Path, output_dir: Path
) -> None:
    found = normalise(write_photo(tmp_path / "photo.png"), output_dir)
    assert (found.kind, found.width, found.height, found.num_frames, found.fps) == ("image", 64, 64, 1, None)
    assert found.path == output_dir / f"{found.sha256}.png"
    assert list(output_dir.iterdir()) == [found.path]


def test_a_video_is_taken_in_with_its_exact_rate_and_count(tmp_path: Path, output_dir: Path) -> None:
    rate = Fraction(30000, 1001)
    with VideoWriter(tmp_path / "clip.mp4", fps=rate, width=64, height=48) as writer:
        writer.write(np.full((9, 48, 64, 3), 90, np.uint8))
    found = normalise(tmp_path / "clip.mp4", output_dir)
    assert (found.kind, found.width, found.height, found.num_frames) == ("video", 64, 48, 9)
    assert found.fps == rate
    assert found.path.read_bytes() == (tmp_path / "clip.mp4").read_bytes()


def test_a_picture_has_seconds_where_a_video_has_minutes(tmp_path: Path, output_dir: Path) -> None:
    slow = write_photo(tmp_path / "slow.png", side=3000)
    assert "passed a limit (signal" in refused(slow, output_dir, picture_cpu_s=1)
    with VideoWriter(tmp_path / "clip.mp4", fps=Fraction(8), width=64, height=48) as writer:
        writer.write(np.full((9, 48, 64, 3), 90, np.uint8))
    assert normalise(tmp_path / "clip.mp4", output_dir, picture_cpu_s=0).kind == "video"


def test_the_same_file_twice_is_one_file(tmp_path: Path, output_dir: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    assert normalise(photo, output_dir) == normalise(photo, output_dir)
    assert len(list(output_dir.iterdir())) == 1


def test_a_relative_path_is_taken_in(
    tmp_path: Path, output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photo(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    assert normalise(Path("photo.png"), Path("store")).path.is_file()


def test_a_refusal_of_the_child_arrives_word_for_word(tmp_path: Path, output_dir: Path) -> None:
    (tmp_path / "notes.png").write_text("hello")
    assert refused(tmp_path / "notes.png", output_dir).startswith("notes.png is a text file, not an image")


def test_a_video_cut_off_leaves_no_partial_copy(tmp_path: Path, output_dir: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", fps=Fraction(25), width=64, height=48) as writer:
        writer.write(np.random.default_rng(1).integers(0, 255, (9, 48, 64, 3)).astype(np.uint8))
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    middle = len(content) // 2
    content[middle:] = bytes(len(content) - middle)
    (tmp_path / "damaged.mp4").write_bytes(content)
    assert "damaged.mp4" in refused(tmp_path / "damaged.mp4", output_dir)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path, output_dir: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "does not exist" in refused(tmp_path / "gone.png", output_dir)
    assert "is a folder" in refused(tmp_path, output_dir)
    assert "is a device or a pipe" in refused(tmp_path / "pipe", output_dir)
    assert "no file name can have" in refused(Path("a\0b.png"), output_dir)


def test_a_check_that_says_nothing_for_too_long_is_stopped(tmp_path: Path, output_dir: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    assert "its decoder took more than 0.01 s for a part of it" in refused(photo, output_dir, silence_s=0.01)


def test_a_child_that_needs_too_much_memory_is_stopped(tmp_path: Path, output_dir: Path) -> None:
    photo = write_photo(tmp_path / "photo.png", side=3000)
    started = normalise(write_photo(tmp_path / "small.png"), output_dir, memory_bytes=400 << 20)
    started.path.unlink()
    message = refused(photo, output_dir, memory_bytes=400 << 20)
    assert message == "photo.png needs too much memory to decode; make it smaller."


def test_a_child_that_crashes_is_refused_with_one_line(tmp_path: Path, output_dir: Path) -> None:
    message = refused(write_photo(tmp_path / "photo.png"), output_dir, memory_bytes=16 << 20)
    assert "its decoder crashed or passed a limit" in message


def test_a_child_that_writes_too_much_is_stopped(tmp_path: Path, output_dir: Path) -> None:
    message = refused(write_photo(tmp_path / "photo.png", side=256), output_dir, file_bytes=10_000)
    assert "cannot be copied (File too large)" in message


def test_the_child_does_not_import_what_the_environment_or_the_folders_offer(
    tmp_path: Path, output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, output_dir.parent, tmp_path / "path"):
        folder.mkdir(exist_ok=True)
        (folder / "PIL.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.chdir(tmp_path)
    assert normalise(write_photo(tmp_path / "photo.png"), output_dir).kind == "image"


def test_a_name_with_a_line_break_still_gives_one_line(tmp_path: Path, output_dir: Path) -> None:
    photo = write_photo(tmp_path / "two\nlines.png")
    assert refused(photo, output_dir, silence_s=0.01).startswith("two?lines.png could not be")


def test_what_is_told_of_the_look_may_end_it(
    tmp_path: Path, output_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.media.intake_sandbox._LOOK_S", 0.01)
    told: list[tuple[int, float | None]] = []

    def enough(num_frames: int, share: float | None) -> None:
        told.append((num_frames, share))
        if len(told) == 3:
            raise InvalidInput("enough")

    with VideoWriter(tmp_path / "clip.mp4", fps=Fraction(8), width=64, height=48) as writer:
        writer.write(np.full((9, 48, 64, 3), 90, np.uint8))
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(InvalidInput, match="enough"):
        normalise(tmp_path / "clip.mp4", output_dir, enough)
    assert told == [(0, None)] * 3
    assert list(output_dir.iterdir()) == []
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"num_frames": 90, "share": 0.5}', (90, 0.5)),
        ('{"num_frames": 90, "share": null}', (90, None)),
        ('{"num_frames": 90, "share": 7}', (90, 1.0)),
        ('{"num_frames": 90, "share": "x"}', None),
        ('{"error": "it is empty"}', None),
        ("[1]", None),
        ("no json", None),
    ],
)
def test_a_line_of_progress_is_told_from_the_answer(line: str, told: tuple[int, float | None] | None) -> None:
    assert _progress(line) == told


def test_a_photo_of_a_hundred_million_pixels_is_made_smaller_within_the_limits(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("L", (12_000, 8_400), 200).save(photo)
    (tmp_path / "out").mkdir()
    found = normalise(photo, tmp_path / "out")
    assert (found.width, found.height) == (4096, 2867)
    assert found.notes == ("photo.jpg is 12000x8400, scaled down to 4096x2867",)


def test_an_animation_is_a_video_where_one_is_asked_for(tmp_path: Path, output_dir: Path) -> None:
    first, *others = (Image.new("RGB", (64, 48), (level,) * 3) for level in (20, 90, 160))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=100)
    assert normalise(tmp_path / "a.gif", output_dir).kind == "image"
    found = normalise(tmp_path / "a.gif", output_dir, clip=True)
    assert (found.kind, found.num_frames, found.fps) == ("video", 3, 10)
