from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.__main__ import main
from stitching.video_io import encode_lossless, probe_video, read_frames

Make = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="module")
def encoded(make_scene: Make, rerender: Make) -> dict[str, bytes]:
    scene = make_scene(50)
    parts = {"a": scene[:20], "b": rerender(scene[16:40]), "c": scene[36:]}
    return {f"{name}.mkv": encode_lossless(frames, Fraction(24)) for name, frames in parts.items()}


@pytest.fixture
def clips(encoded: dict[str, bytes], tmp_path: Path) -> list[str]:
    for name, content in encoded.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in encoded]


def test_three_clips_become_one_video_with_report_and_sheet(
    clips: list[str], tmp_path: Path, make_scene: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "joined.mp4", tmp_path / "sheet.png"
    code = main([*clips, "--overlap", "4", "-o", str(out), "--contact-sheet", str(sheet), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert probe_video(out).num_frames == 50
    assert [seam["first_frame"] for seam in report["seams"]] == [16, 36]
    assert all(seam["passed"] for seam in report["seams"])
    assert cv2.PSNR(read_frames(out, 10, 11)[0], make_scene(50)[10]) > 33
    assert cv2.imread(str(sheet)) is not None
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["a.mkv", "b.mkv", "c.mkv", "joined.mp4", "sheet.png"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--overlap", "30"], "--overlap: got 30"),
        (["--overlap", "-1"], "--overlap: got -1"),
        (["--overlap", "4", "--contact-sheet", "/nonexistent/sheet.png"], "/nonexistent/sheet.png"),
    ],
)
def test_a_wrong_request_is_one_line_exit_code_2_and_no_file(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    before = sorted(tmp_path.iterdir())
    assert main([*clips, "-o", str(tmp_path / "out.mp4"), *change]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_or_single_clip_is_named(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--overlap", "4", "-o", str(tmp_path / "out.mp4")]
    assert main([clips[0], str(tmp_path / "none.mp4"), *wanted]) == 2
    assert "none.mp4: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert main([clips[0], *wanted]) == 2
    assert "got 1, expected two or more" in capsys.readouterr().err


def test_clips_of_different_size_are_named(
    clips: list[str], make_scene: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.mkv"
    small.write_bytes(encode_lossless(make_scene(9, width=64, height=48), Fraction(24)))
    assert main([clips[0], str(small), "--overlap", "2", "-o", str(tmp_path / "out.mp4")]) == 2
    assert "small.mkv: is 64x48 at 24 fps, but" in capsys.readouterr().err


def test_no_file_is_replaced_unasked_and_a_clip_never(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.png"
    kept.write_bytes(b"a photo")
    for change, words in (
        (["-o", clips[0], "--force"], "is one of the clips"),
        (["-o", str(tmp_path / "out.mp4"), "--contact-sheet", clips[1], "--force"], "is one of the clips"),
        (["-o", str(tmp_path / "out.mp4"), "--contact-sheet", str(kept)], "exists; give another name"),
    ):
        assert main([*clips, "--overlap", "4", *change]) == 2
        assert words in capsys.readouterr().err
    assert kept.read_bytes() == b"a photo"
    assert probe_video(clips[0]).num_frames == 20
    assert not (tmp_path / "out.mp4").exists()
