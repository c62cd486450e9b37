"""Mode ``chain``: every window starts from a frame of the one before. Pure."""

from __future__ import annotations

from farm.planning.cutting import Cut, chained, final_segments
from farm.planning.plan import Segment, Shot
from farm.planning.windows import cropped_windows


def chain(shot: Shot, cut: Cut) -> list[Segment]:
    """Each window starts from the frame where the one before hands over: the first of their overlap."""
    windows = cropped_windows(shot.end - shot.start, cut.window, max(1, cut.overlap))
    return chained(final_segments(shot, windows, cut.spec.model_copy(update={"random_access": False})))
