"""An animated picture is a video where one is asked for, each picture for as long as browsers show it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from stitching.intake import IntakeError, normalise_file
from stitching.source import Reading, animation, frames_at

LEVELS = [20 + 25 * number for number in range(8)]
SHOWN_MS = [100, 100, 300, 100, 100, 100, 100, 200]
READ = [20, 45, 70, 70, 70, 95, 120, 145, 170, 195, 195]


def written(path: Path, *, durations: int | list[int], background: int | None = None) -> Path:
    first, *others = (Image.new("RGB", (64, 48), (level,) * 3) for level in LEVELS)
    if background is not None:
        first, *others = (Image.new("RGBA", (64, 48), (level, level, level, background)) for level in LEVELS)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return path


def levels(found: dict[str, object]) -> list[int]:
    told, fps = found["reading"], Fraction(str(found["fps"]))
    assert isinstance(told, dict)
    reading = Reading(Fraction(told["start_s"]), told["interlaced"], told["counted"], told["seekable"])
    moments = [k / fps for k in range(int(str(found["num_frames"])))]
    return [round(float(f.mean())) for f in frames_at(Path(str(found["path"])), reading, moments, rate=fps)]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_its_pictures_are_read_at_their_own_times(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"moving{suffix}", durations=SHOWN_MS)
    (tmp_path / "store").mkdir()
    found = normalise_file(path, tmp_path / "store", clip=True)
    assert (found["kind"], found["fps"], found["width"], found["height"]) == ("video", "10/1", 64, 48)
    assert levels(found) == pytest.approx(READ, abs=2)
    assert found["notes"][0] == f"{path.name} is animated: its 8 pictures are read as a video, once through"
    assert [each.name for each in (tmp_path / "store").iterdir()] == [found["sha256"] + ".mkv"]


def test_an_avif_sequence_is_a_video_too(tmp_path: Path) -> None:
    found = normalise_file(written(tmp_path / "a.avif", durations=40), tmp_path, clip=True)
    assert (found["num_frames"], found["fps"]) == (8, "25/1")
    assert levels(found) == pytest.approx(LEVELS, abs=8)


def test_a_time_that_browsers_do_not_believe_is_a_tenth_of_a_second(tmp_path: Path) -> None:
    found = normalise_file(written(tmp_path / "fast.gif", durations=10), tmp_path, clip=True)
    assert (found["num_frames"], found["fps"]) == (8, "10/1")


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    found = normalise_file(written(tmp_path / "clear.webp", durations=100, background=0), tmp_path, clip=True)
    assert levels(found) == [255] * 8


def test_a_picture_that_stands_still_is_a_picture(tmp_path: Path) -> None:
    for name in ("still.gif", "still.png", "still.jpg"):
        path = tmp_path / name
        Image.new("RGB", (64, 48), "red").save(path)
        assert normalise_file(path, tmp_path, clip=True)["kind"] == "image"


def test_one_without_end_or_cut_off_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "moving.gif", durations=100)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntakeError, match=r"is cut off or damaged: its picture \d cannot be decoded"):
        normalise_file(path, tmp_path, clip=True)
    path.write_bytes(whole)
    monkeypatch.setattr(animation, "MAX_PICTURES", 5)
    with pytest.raises(IntakeError, match=r"is too long to be read as a video.*save it as mp4"):
        normalise_file(path, tmp_path, clip=True)
