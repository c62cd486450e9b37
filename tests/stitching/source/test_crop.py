"""What a container cuts off its frames is not shown."""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.intake import IntakeError, normalise_file
from stitching.source import first_frame, frames_at, look
from stitching.source.crop import WHOLE, Crop, clean_aperture, crop_of

Write: TypeAlias = Callable[..., Path]
Image: TypeAlias = NDArray[np.uint8]


def framed(number: int) -> Image:
    """64x48: a grey picture with black bars, 8 wide at the left, 4 at the right, 6 high above, 2 below."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[6:46, 8:60] = 100 + 8 * number
    return image


FRAMES = [framed(number) for number in range(8)]
BARS = Crop(left=8, top=6, right=4, bottom=2)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def clap(width: float, height: float, right_by: float, down_by: float) -> bytes:
    numbers = [n for value in (width, height, right_by, down_by) for n in (round(value * 2), 2)]
    return box(b"clap", struct.pack(">8i", *numbers))


def with_box(path: Path, added: bytes, entry: bytes = b"avc1") -> Path:
    """The box at the end of the only track's sample entry; the index is the last thing in the file."""
    data = bytearray(path.read_bytes())
    at = data.rindex(entry) - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", entry):
        start = data.rindex(name, 0, at + 8) - 4
        data[start : start + 4] = (int.from_bytes(data[start : start + 4], "big") + len(added)).to_bytes(
            4, "big"
        )
    data[end:end] = added
    path.write_bytes(data)
    return path


def with_crop_elements(path: Path, crop: Crop) -> Path:
    """PixelCrop elements in the only track's Video, in the room of the Void before."""
    data = bytearray(path.read_bytes())
    sides = ((0xAA, crop.bottom), (0xBB, crop.top), (0xCC, crop.left), (0xDD, crop.right))
    added = b"".join(bytes([0x54, name, 0x81, side]) for name, side in sides)
    void = data.index(b"\xec\x01")
    data[void + 8] -= len(added)
    del data[void + 9 : void + 9 + len(added)]
    for name in (b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b"):  # where the SeekHead says that they are
        at = data.index(b"\x53\xab\x84" + name) + 7 + 3
        data[at] -= len(added)
    tracks = data.index(b"\x16\x54\xae\x6b\x40")
    data[tracks + 5] += len(added)
    track = data.index(b"\xae\x01", tracks)
    data[track + 8] += len(added)
    video = data.index(b"\xe0", data.index(b"\x23\xe3\x83", track))
    data[video + 1] += len(added)
    data[video + 2 : video + 2] = added
    path.write_bytes(data)
    return path


def cropped_file(write: Write, name: str, **options: object) -> Path:
    path = write(name, FRAMES, options={"crf": "4"}, **options)
    if path.suffix == ".mkv":
        return with_crop_elements(path, BARS)
    return with_box(path, clap(52, 40, 2, 2))


@pytest.mark.parametrize("name", ["crop.mp4", "crop.mov", "crop.mkv"])
def test_what_the_container_cuts_off_is_not_shown_and_said(write: Write, tmp_path: Path, name: str) -> None:
    path = cropped_file(write, name)
    found = normalise_file(path, tmp_path)
    assert (found["width"], found["height"]) == (52, 40)
    assert found["notes"] == [f"{name}: it is cropped, as it says: of 64x48 stored pixels 52x40 are shown"]
    looked = look(path, max_frames=100, on_progress=lambda num_frames, share: None)
    read = list(frames_at(path, looked.reading, [Fraction(k, 25) for k in (0, 7)], rate=Fraction(25)))
    for frame, level in ((first_frame(path), 100), (read[0], 100), (read[1], 156)):
        assert frame.shape == (40, 52, 3)
        assert np.abs(frame.astype(int) - level).max() < 12, "no bar is left"


@pytest.mark.parametrize(("codec", "name"), [("h264", "stream.mp4"), ("hevc", "stream.mkv")])
def test_the_crop_of_the_video_stream_itself_is_applied_once(
    write: Write, tmp_path: Path, codec: str, name: str
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    quiet = {"crf": "4"} if codec == "h264" else {"x265-params": "log-level=none:crf=4"}
    whole, path = write(f"whole-{name}", FRAMES, codec=encoder, options=quiet), tmp_path / name
    sides = f"{codec}_metadata=crop_left=8:crop_top=6:crop_right=4:crop_bottom=2"
    command = ["ffmpeg", "-v", "error", "-i", str(whole), "-c", "copy", "-bsf:v", sides, str(path)]
    subprocess.run(command, check=True)
    found = normalise_file(path, tmp_path)
    assert (found["width"], found["height"], found["notes"]) == (52, 40, [])
    assert np.abs(first_frame(path).astype(int) - 100).max() < 12


def test_a_crop_is_made_before_the_picture_is_turned_and_made_square(write: Write, tmp_path: Path) -> None:
    turned = normalise_file(cropped_file(write, "turned.mp4", rotation=90), tmp_path)
    assert (turned["width"], turned["height"]) == (40, 52)
    for name in ("wide.mp4", "wide.mkv"):
        wide = normalise_file(cropped_file(write, name, aspect=Fraction(2)), tmp_path)
        assert (wide["width"], wide["height"]) == (104, 40)
        assert "not square (2:1): 52x40 is brought to 104x40" in wide["notes"][1]


def test_a_track_whose_sides_are_those_that_are_shown_has_square_pixels(write: Write, tmp_path: Path) -> None:
    path = cropped_file(write, "square.mp4")
    data = bytearray(path.read_bytes())
    sides = data.rindex(b"tkhd") + 80  # fixed point
    assert data[sides : sides + 8] == struct.pack(">II", 64 << 16, 48 << 16)
    data[sides : sides + 8] = struct.pack(">II", 52 << 16, 40 << 16)
    path.write_bytes(data)
    found = normalise_file(path, tmp_path)
    assert (found["width"], found["height"]) == (52, 40)


def test_a_crop_of_an_interlaced_video_leaves_its_fields_where_they_are(write: Write, tmp_path: Path) -> None:
    path = write("fields.mkv", FRAMES, options={"x264-params": "interlaced=1:tff=1"})
    found = normalise_file(with_crop_elements(path, Crop(left=1, top=3)), tmp_path)
    assert (found["width"], found["height"]) == (63, 45)
    assert found["reading"]["interlaced"]


@pytest.mark.parametrize(
    ("aperture", "crop"),
    [
        (("64", "48", "0", "0"), Crop()),
        (("52", "40", "2", "2"), BARS),
        (("52", "40", "0", "0"), Crop(6, 4, 6, 4)),
        (("63", "48", "0", "0"), Crop(right=1)),  # half a pixel on either side: as libav rounds
        (("63", "48", "1/2", "0"), Crop(left=1)),
        (("63", "48", "-1/2", "0"), Crop(right=1)),
        (("65", "48", "0", "0"), Crop()),
        (("52", "40", "20", "0"), Crop()),
        (("0", "40", "0", "0"), Crop()),
        (("-4", "40", "0", "0"), Crop()),
    ],
)
def test_the_clean_aperture_is_a_middle_and_sides(aperture: tuple[str, ...], crop: Crop) -> None:
    assert clean_aperture(64, 48, [Fraction(number) for number in aperture]) == crop


@pytest.mark.parametrize(
    ("crop", "sides"),
    [(Crop(8, 6, 4, 2), (52, 40)), (Crop(left=64), (64, 48)), (Crop(top=1 << 62, right=3), (64, 48))],
)
def test_a_crop_that_leaves_nothing_is_none(crop: Crop, sides: tuple[int, int]) -> None:
    assert crop.of(64, 48) == sides


def test_a_clean_aperture_that_makes_no_sense_leaves_the_whole_picture(write: Write, tmp_path: Path) -> None:
    for name, added in (("large.mp4", clap(500, 40, 0, 0)), ("zeros.mp4", box(b"clap", bytes(32)))):
        found = normalise_file(with_box(write(name, FRAMES), added), tmp_path)
        assert (found["width"], found["height"], found["notes"]) == (64, 48, [])


def test_a_picture_that_a_crop_leaves_too_small_is_refused(write: Write, tmp_path: Path) -> None:
    path = with_crop_elements(write("small.mkv", FRAMES), Crop(left=40, right=20))
    with pytest.raises(IntakeError, match="is 4x48"):
        normalise_file(path, tmp_path)


@pytest.mark.parametrize(("name", "demuxer"), [("crop.mp4", "mov"), ("crop.mkv", "matroska")])
def test_a_header_of_any_bytes_ends_and_raises_nothing(write: Write, name: str, demuxer: str) -> None:
    data = cropped_file(write, name).read_bytes()
    assert crop_of(io.BytesIO(data), len(data), demuxer, 1).crop == BARS
    head = data.index(b"moov") if demuxer == "mov" else 0
    chance = random.Random(5)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 20)):
            broken[chance.randrange(head, min(head + 800, len(data)))] = chance.choice((0, 1, 255, 128))
        crop_of(io.BytesIO(broken), len(broken), demuxer, 1)
        crop_of(io.BytesIO(broken[: chance.randrange(len(broken))]), len(data), demuxer, 1)


def test_a_file_of_nothing_but_elements_is_given_up() -> None:
    boxes = io.BytesIO(box(b"free", b"") * 200_000)
    assert crop_of(boxes, len(boxes.getvalue()), "mov", 1).crop == WHOLE
    assert boxes.tell() < 1_000_000
