"""A video whose seeks lead nowhere sure is copied once, packet by packet, and then found by seeking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.intake import normalise_file
from stitching.source import Reading, frames_at, look
from stitching.source.decoding import Opened, VideoFrame, shown_frames
from stitching.source.remux import packet_stamps

Image: TypeAlias = NDArray[np.uint8]
Write: TypeAlias = Callable[..., Path]
LEVELS = [10 + 3 * i for i in range(75)]
FPS = Fraction(25)


def grey(level: int) -> Image:
    return np.full((48, 64, 3), level, np.uint8)


def reading_of(found: dict[str, Any]) -> Reading:
    told = found["reading"]
    return Reading(Fraction(told["start_s"]), told["interlaced"], told["counted"], told["seekable"])


def whole(path: Path) -> list[Image]:
    """All frames of the user's own file, read from its beginning."""
    found = look(path, max_frames=100, on_progress=lambda num_frames, share: None)
    return list(frames_at(path, found.reading, [k / FPS for k in range(75)], rate=FPS))


KINDS = [
    ("a.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
    ("one.mpg", "mpeg1video", {"g": "12", "bf": "2"}),
    ("b.avi", "libx264", {"g": "12", "bf": "2"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), KINDS)
def test_every_frame_is_found_by_a_seek_afterwards(
    write: Write, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write(name, map(grey, LEVELS), codec=codec, options=options)
    found = normalise_file(path, tmp_path)
    assert (found["num_frames"], found["fps"]) == (75, "25/1")
    assert "copied as they are into Matroska" in found["notes"][0]
    assert found["path"].endswith(found["sha256"] + ".mkv")
    assert [each.name for each in tmp_path.iterdir()] == [Path(found["path"]).name], "nothing else is left"
    expected = whole(path)
    for first in (0, 1, 23, 24, 25, 60, 73):
        moments = [first / FPS, (first + 1) / FPS]
        read = frames_at(Path(found["path"]), reading_of(found), moments, rate=FPS)
        for frame, right in zip(read, expected[first:], strict=False):
            assert np.array_equal(frame, right), first


def test_the_frames_that_are_decoded_grow_with_the_length_and_not_with_its_square(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        "long.mpg", (grey(20 + i % 200) for i in range(400)), codec="mpeg2video", options={"g": "10"}
    )
    found = normalise_file(path, tmp_path)
    decoded = 0

    def counted(source: Opened) -> Iterator[VideoFrame]:
        nonlocal decoded
        for frame in shown_frames(source):
            decoded += 1
            yield frame

    monkeypatch.setattr("stitching.source.moments.shown_frames", counted)
    for first in range(0, 400, 8):
        moments = [k / FPS for k in range(first, first + 8)]
        assert len(list(frames_at(Path(found["path"]), reading_of(found), moments, rate=FPS))) == 8
    assert decoded < 4 * 400, "read from its beginning each time it would be 10,000"


def test_the_sound_stays_in_step(tmp_path: Path) -> None:
    path = tmp_path / "loud.mpg"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg2video", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=48000)
        for number in range(75):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(grey(10 + 3 * number), format="rgb24")))
            samples = np.zeros((1, 1920), np.int16)
            samples[:, :] = 9000 if number == 50 else 0
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            block.sample_rate, block.pts = 48000, 1920 * number
            container.mux(sound.encode(block))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    store = tmp_path / "store"
    store.mkdir()
    found = normalise_file(path, store)
    assert "copied as they are into Matroska" in " ".join(found["notes"])
    before = look(path, max_frames=100, on_progress=lambda num_frames, share: None)
    zero_before = None if before.reading.counted else before.reading.start_s
    assert beep_s(Path(found["path"]), reading_of(found).start_s) == pytest.approx(
        beep_s(path, zero_before), abs=0.002
    )


def beep_s(path: Path, zero_s: Fraction | None) -> float:
    """When the sound is heard, from the first frame that is shown on."""
    with av.open(str(path)) as container:
        if zero_s is None:
            first = next(container.decode(video=0))
            zero_s = Fraction(first.pts or 0) * (first.time_base or 1)
    with av.open(str(path)) as container:
        for block in container.decode(audio=0):
            loud = np.flatnonzero(
                np.abs(block.to_ndarray().astype(float)[0])
                > 0.1 * 32768 / (1 if block.format.name.startswith("s16") else 32768)
            )
            if loud.size:
                return float(block.pts * block.time_base + loud[0] / Fraction(block.sample_rate) - zero_s)
    raise AssertionError("it is silent")


@pytest.mark.parametrize(
    ("packets", "stamps", "given"),
    [
        ([0, 1, 2], [5, 6, 7], {0: 5, 1: 6, 2: 7}),
        ([0, 2, 3, 1], [0, 40, 80, 120], {0: 0, 1: 120, 2: 40, 3: 80}),
        ([0, 2], [0, 40], {0: 0, 1: 40, 2: 40}),  # 1 is a hidden reference of 2
        ([3, 4], [0, 40], {3: 0, 4: 40}),  # 0 to 2 come before the first keyframe
    ],
)
def test_packets_get_the_times_of_the_frames_that_are_made_of_them(
    packets: list[int], stamps: list[int], given: dict[int, int]
) -> None:
    assert packet_stamps(packets, stamps) == given


def test_a_copy_that_shows_something_else_is_not_taken(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stitching.source.remux.packet_stamps", lambda packets, stamps: dict(enumerate(stamps))
    )
    path = write("kept.mpg", map(grey, LEVELS), codec="mpeg2video", options={"g": "12", "bf": "2"})
    found = normalise_file(path, tmp_path)
    assert found["path"].endswith(".mpg")
    assert "every window is read from its beginning" in found["notes"][0]
    assert len(list(tmp_path.iterdir())) == 1


def test_no_copy_takes_the_room_that_others_need(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("full.mpg", map(grey, LEVELS), codec="mpeg2video", options={"g": "12", "bf": "2"})
    free = 2 * path.stat().st_size - 2
    monkeypatch.setattr("stitching.source.remux.shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    found = normalise_file(path, tmp_path)
    assert found["path"].endswith(".mpg")
    assert "every window is read from its beginning" in found["notes"][0]
