"""Mode ``independent``: every window alone, for engines that can start at any frame. Pure."""

from __future__ import annotations

from farm.planning.modes.cutting import Cut, final_segments
from farm.planning.modes.windows import cropped_windows
from farm.planning.plan import Segment, Shot


def independent(shot: Shot, cut: Cut) -> list[Segment]:
    """Every window alone."""
    windows = cropped_windows(shot.end - shot.start, cut.window, cut.overlap)
    return final_segments(shot, windows, cut.spec)
