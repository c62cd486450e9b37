from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.contact_sheet import ContactSheet

Make = Callable[..., NDArray[np.uint8]]
GREEN, RED, BLUE = (70, 190, 110), (235, 78, 72), (84, 150, 245)


def pixels_of(sheet: NDArray[np.uint8], color: tuple[int, int, int]) -> int:
    above_legend = sheet[:-60]
    return int((above_legend == np.array(color)).all(axis=2).sum())


def test_a_sheet_of_any_length_keeps_at_most_its_tiles(make_scene: Make, tmp_path: Path) -> None:
    frame = make_scene(1)[0]
    sheet = ContactSheet(100_000, columns=4, max_tiles=12)
    for index in range(0, 100_000):
        sheet.add(index, frame)
    assert len(sheet._pictures) == 12
    sheet.write_png(tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == sheet.draw().shape


def test_seams_are_drawn_in_the_colour_of_their_verdict() -> None:
    sheet = ContactSheet(48)
    assert [pixels_of(sheet.draw(), c) for c in (GREEN, RED, BLUE)] == [0, 0, 0]
    sheet.mark_seam(5, 7, True)
    assert pixels_of(sheet.draw(), GREEN) == 3 * 240 * 8  # three tiles of one frame each, the whole time line
    sheet.mark_seam(10, 12, False)
    sheet.mark_seam(20, 20, True, kind="cut")
    assert pixels_of(sheet.draw(), RED) == 3 * 240 * 8
    assert pixels_of(sheet.draw(), BLUE) == 240 * 8


def test_a_one_frame_seam_of_a_long_video_can_still_be_seen() -> None:
    sheet = ContactSheet(50_000)
    sheet.mark_seam(49_999, 49_999, False)
    assert pixels_of(sheet.draw(), RED) >= 4 * 8


def test_counts_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0, 6, 48"):
        ContactSheet(0)
