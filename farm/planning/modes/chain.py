"""Mode ``chain``: every window starts from a frame of the one before. Pure."""

from __future__ import annotations

from farm.capabilities import EngineSpec
from farm.planning.modes.cutting import Cut, chained, final_segments
from farm.planning.modes.windows import cropped_windows
from farm.planning.plan import Segment, Shot


def chain(shot: Shot, cut: Cut) -> list[Segment]:
    """Each window starts from the frame where the one before hands over: the first of their overlap.

    Where the model can, it starts from the latents of the rest of the overlap, too.
    """
    spec, overlap = cut.spec, max(1, cut.overlap)
    windows = cropped_windows(shot.end - shot.start, cut.window, overlap)
    finals = final_segments(shot, windows, spec.model_copy(update={"random_access": False}))
    return chained(finals, handover_latents=_handover_latents(spec, overlap))


def _handover_latents(spec: EngineSpec, overlap: int) -> int:
    """Latents of the overlap that the next window takes over, where the model was trained for that."""
    if "prefix" not in spec.takes - spec.untrained:
        return 0
    return min(spec.frames.num_latents(overlap) - 1, spec.max_prefix_latents)
