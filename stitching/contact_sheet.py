"""One picture of a whole video: evenly spaced frames, numbered, with its seams on a time line below them.

Memory is bounded by the number of tiles, whatever the video's length.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from stitching.clip import Image

_Color: TypeAlias = tuple[int, int, int]  # RGB

_BACKGROUND: _Color = (18, 20, 24)
_TIME_LINE: _Color = (46, 50, 58)
_TEXT: _Color = (196, 202, 212)
_FAINT_TEXT: _Color = (128, 135, 148)
_PASSED: _Color = (70, 190, 110)
_FAILED: _Color = (235, 78, 72)
_CUT: _Color = (84, 150, 245)

_TILE_WIDTH = 240
_GAP = 10
_MARGIN = 18
_LINE_HEIGHT = 8  # of the time line under a tile
_LABEL_HEIGHT = 20
_LEGEND_HEIGHT = 34
_LEAST_BAR = 4  # pixels; a seam of one frame in a long video must still be seen
# OpenCV reads its font once for each thread that writes with it: 25 ms, more than the rest of a small sheet.
_PEN = ThreadPoolExecutor(1, "contact-sheet")


@dataclass(frozen=True)
class _Mark:
    first: int
    last: int
    color: _Color


class ContactSheet:
    """Collects frames and seams of a video of `num_frames` frames, in any order, and draws them."""

    def __init__(self, num_frames: int, *, columns: int = 6, max_tiles: int = 48) -> None:
        """Raises ValueError when a count is not positive."""
        if min(num_frames, columns, max_tiles) < 1:
            got = f"{num_frames}, {columns}, {max_tiles}"
            raise ValueError(f"num_frames, columns, max_tiles: got {got}, expected 1 or more each")
        tiles = min(num_frames, max_tiles)
        self._num_frames = num_frames
        self._columns = min(columns, tiles)
        self._starts = [i * num_frames // tiles for i in range(tiles)]  # a tile shows its first frame
        self._places = {start: place for place, start in enumerate(self._starts)}
        self._pictures: dict[int, Image] = {}
        self._marks: list[_Mark] = []

    def add(self, index: int, frame: Image) -> None:
        """Frame number `index` (from 0), (H, W, 3) uint8; kept, scaled down, where the sheet shows it."""
        place = self._places.get(index)
        if place is None:
            return
        height = max(1, round(frame.shape[0] * _TILE_WIDTH / frame.shape[1]))
        method = cv2.INTER_AREA if frame.shape[1] >= _TILE_WIDTH else cv2.INTER_CUBIC
        picture = cv2.resize(frame, (_TILE_WIDTH, height), interpolation=method)
        self._pictures[place] = np.asarray(picture, np.uint8)

    def mark_seam(
        self,
        first_frame_index: int,
        last_frame_index: int,
        passed: bool,
        *,
        kind: Literal["morph", "cut"] = "morph",
    ) -> None:
        """Frames first ... last (both included) were joined; for a cut, the first frame after it, twice."""
        color = _CUT if kind == "cut" and passed else _PASSED if passed else _FAILED
        self._marks.append(_Mark(first_frame_index, last_frame_index, color))

    def draw(self) -> Image:
        """The sheet, (H, W, 3) uint8 RGB."""
        return _PEN.submit(self._draw).result()

    def _draw(self) -> Image:
        tile_height = max((p.shape[0] for p in self._pictures.values()), default=_TILE_WIDTH * 9 // 16)
        row_height = tile_height + _LINE_HEIGHT + _LABEL_HEIGHT + _GAP
        rows = math.ceil(len(self._starts) / self._columns)
        width = 2 * _MARGIN + self._columns * (_TILE_WIDTH + _GAP) - _GAP
        sheet = np.empty((2 * _MARGIN + rows * row_height + _LEGEND_HEIGHT, width, 3), np.uint8)
        sheet[:] = _BACKGROUND
        for place, start in enumerate(self._starts):
            x = _MARGIN + place % self._columns * (_TILE_WIDTH + _GAP)
            y = _MARGIN + place // self._columns * row_height
            picture = self._pictures.get(place)
            if picture is None:
                sheet[y : y + tile_height, x : x + _TILE_WIDTH] = _TIME_LINE
            else:
                sheet[y : y + picture.shape[0], x : x + _TILE_WIDTH] = picture
            end = self._starts[place + 1] if place + 1 < len(self._starts) else self._num_frames
            line = sheet[y + tile_height + 2 : y + tile_height + 2 + _LINE_HEIGHT, x : x + _TILE_WIDTH]
            self._draw_time_line(line, start, end)
            baseline = y + tile_height + _LINE_HEIGHT + 16
            _write(sheet, str(start), (x, baseline), _TEXT)
        self._draw_legend(sheet)
        return sheet

    def write_png(self, path: Path | str) -> None:
        """Raises OSError when the file cannot be written."""
        done, data = cv2.imencode(".png", cv2.cvtColor(self.draw(), cv2.COLOR_RGB2BGR))
        assert done
        Path(path).write_bytes(data.tobytes())

    def _draw_time_line(self, line: Image, start: int, end: int) -> None:
        """The frames start ... end - 1 from left to right, seams in colour; failures on top."""
        line[:] = _TIME_LINE
        per_frame = line.shape[1] / (end - start)
        for mark in sorted(self._marks, key=lambda m: m.color == _FAILED):
            if mark.last < start or mark.first >= end:
                continue
            left = round(max(0, mark.first - start) * per_frame)
            right = round(min(end - start, mark.last + 1 - start) * per_frame)
            left = min(left, line.shape[1] - _LEAST_BAR)
            line[:, left : max(right, left + _LEAST_BAR)] = mark.color

    def _draw_legend(self, sheet: Image) -> None:
        x, y = _MARGIN, sheet.shape[0] - _MARGIN
        counts = {c: sum(m.color == c for m in self._marks) for c in (_PASSED, _FAILED, _CUT)}
        names = {_PASSED: "passed", _FAILED: "failed", _CUT: "cut"}
        for color, name in names.items():
            sheet[y - 10 : y, x : x + 18] = color
            x = _write(sheet, f"{counts[color]} {name}", (x + 25, y), _TEXT) + 18
        _write(sheet, f"{len(self._marks)} seams, {self._num_frames} frames", (x + 6, y), _FAINT_TEXT)


def _write(sheet: Image, text: str, at: tuple[int, int], color: _Color) -> int:
    """Draws text with its baseline at `at`; returns where it ends, in pixels from the left."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    cv2.putText(sheet, text, at, font, scale, color, 1, cv2.LINE_AA)
    (width, _), _ = cv2.getTextSize(text, font, scale, 1)
    return at[0] + width
