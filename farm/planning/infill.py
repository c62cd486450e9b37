"""Mode ``infill``: one window between two images. Pure."""

from __future__ import annotations

from farm.errors import CannotRun
from farm.planning.cutting import Cut
from farm.planning.plan import Segment, Shot


def infill(shot: Shot, cut: Cut) -> list[Segment]:
    """One window between two keyframes; neighbours share the key frame.

    Raises:
        CannotRun: there are more frames between two images than a window has, or a number the model refuses.
    """
    length = shot.end - shot.start
    num_frames = cut.spec.frames.at_least(length)
    if num_frames > cut.window or num_frames != length:
        raise CannotRun(
            f"mode infill has {length} frames between two images, and {cut.spec.model} renders a window of "
            f"{cut.window}; give more images or fewer frames",
            param="frames",
        )
    return [
        Segment(
            id=f"s{shot.index}-0",
            shot=shot.index,
            level="final",
            start=shot.start,
            end=shot.end,
            num_frames=length,
            head=0 if shot.index == 0 else 1,
        )
    ]
