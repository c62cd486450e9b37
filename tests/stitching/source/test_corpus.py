"""A corpus of videos is taken or refused as its table says, and read as ffmpeg itself reads it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.intake import IntakeError, normalise_file
from stitching.source import Reading, frames_at, look
from tests.stitching.source.corpus import KINDS, Video, corpus, written

pytestmark = pytest.mark.slow  # writes and reads a file of every kind

ALL = corpus()
#: In every run of the tests: one of every kind, but for what takes long to write.
FEW = [video for video in KINDS if video.codec not in ("libsvtav1", "libvpx-vp9")][:34] + [
    video for video in ALL if video.cut == 0.5 or video.rotation == 90
]


def by_ffmpeg(paths: Sequence[Path], folder: Path) -> list[bytes]:
    """What ffmpeg shows of each, as raw RGB, in one process."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    for path in paths:
        command += ["-probesize", "50M", "-analyzeduration", "50M", "-i", str(path)]
    outputs = [folder / f"{number}.rgb" for number in range(len(paths))]
    for number, output in enumerate(outputs):
        command += ["-map", f"{number}:V:0", "-vsync", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"]
        command += [str(output)]
    subprocess.run(command, check=True, capture_output=True)
    return [output.read_bytes() for output in outputs]


def corners(frame: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The colour in the middle of each quarter."""
    height, width = frame.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    return np.array([frame[row, column] for row in rows for column in columns], np.int64)


def wrong(videos: Sequence[Video], folder: Path) -> list[str]:
    """What is not as the table or ffmpeg says, a line each."""
    said = []
    taken = []
    for video in videos:
        path = written(video, folder)
        (folder / "store").mkdir(exist_ok=True)
        try:
            found = normalise_file(path, folder / "store")
        except IntakeError as error:
            if not video.refused or video.refused not in str(error):
                said.append(f"{video.name}: refused: {error}")
            continue
        if video.refused:
            said.append(f"{video.name}: taken")
        else:
            taken.append((video, path, found))
    for (video, _, found), raw in zip(taken, by_ffmpeg([p for _, p, _ in taken], folder), strict=True):
        fps = Fraction(found["fps"])
        width, height = video.size[::-1] if (video.rotation or 0) % 180 else video.size
        shown = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
        if (found["num_frames"], fps) != (len(shown), video.rate):
            said.append(f"{video.name}: {found['num_frames']} at {fps}, ffmpeg {len(shown)} at {video.rate}")
            continue
        told = found["reading"]
        reading = Reading(Fraction(told["start_s"]), told["interlaced"], told["counted"], told["seekable"])
        moments = [k / fps for k in range(len(shown))]
        frames = list(frames_at(Path(found["path"]), reading, moments, rate=fps))
        alone = next(frames_at(Path(found["path"]), reading, moments[-1:], rate=fps))
        if not np.array_equal(alone, frames[-1]):
            said.append(f"{video.name}: its last frame alone is another")
        for number, (frame, expected) in enumerate(zip(frames, shown, strict=True)):
            off = int(np.abs(corners(frame) - corners(expected)).max())
            if off > 6:
                said.append(f"{video.name}: frame {number}: {off} levels off what ffmpeg shows")
                break
    return said


def test_a_file_of_every_kind_is_read_as_ffmpeg_reads_it(tmp_path: Path) -> None:
    assert len(FEW) >= 40
    assert wrong(FEW, tmp_path) == []


@pytest.mark.long
def test_the_corpus_is_large() -> None:
    assert len(ALL) >= 200


@pytest.mark.long
@pytest.mark.parametrize("suffix", sorted({video.suffix for video in ALL}))
def test_the_whole_corpus_is_read_as_ffmpeg_reads_it(tmp_path: Path, suffix: str) -> None:
    assert wrong([video for video in ALL if video.suffix == suffix], tmp_path) == []


@pytest.mark.long
def test_theora_which_only_ffmpeg_writes_is_taken(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    path = tmp_path / "a.ogv"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=2"]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-c:v", "libtheora", str(path)], check=True)
    (tmp_path / "store").mkdir()
    found = normalise_file(path, tmp_path / "store")
    assert (found["num_frames"], found["fps"], Path(found["path"]).suffix) == (50, "25/1", ".ogv")


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mov", "cut.mkv", "cut.ts"])
def test_a_copy_that_begins_within_a_group_shows_what_ffmpeg_shows(
    write: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    levels = [10 + 3 * i for i in range(60)]
    frames = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    whole = write("whole.mp4", frames, options={"g": "20", "bf": "2", "crf": "8"})
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    path = tmp_path / name
    command = ["ffmpeg", "-v", "error", "-ss", "1.1", "-i", str(whole), "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    found = look(path, max_frames=100, on_progress=lambda num_frames, share: None)
    [raw] = by_ffmpeg([path], tmp_path)
    shown = np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3)
    moments = [k / found.fps for k in range(found.num_frames)]
    read = list(frames_at(path, found.reading, moments, rate=found.fps))
    assert [f.mean() for f in read] == pytest.approx([f.mean() for f in shown], abs=2)
    for k in (1, 13, len(read) - 1):
        alone = next(frames_at(path, found.reading, [moments[k]], rate=found.fps))
        assert np.array_equal(alone, read[k])
