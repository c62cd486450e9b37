"""From a shot to the segments it is made of: a mode a file, and the windows they cut it into.

Functions from a shot and what it is cut by to segments enter; what is asked and chosen is decided before.
"""

from __future__ import annotations

from collections.abc import Callable

from farm.capabilities import Mode
from farm.planning.modes.chain import chain
from farm.planning.modes.cutting import Cut
from farm.planning.modes.drafting import (
    DraftChoice,
    Frames,
    draft_choice,
    draft_notes,
    draft_spec_of,
    of_draft,
)
from farm.planning.modes.independent import independent
from farm.planning.modes.infill import infill
from farm.planning.modes.refine import DRAFT_STRENGTH, refine
from farm.planning.plan import Segment, Shot

SEGMENTS_OF: dict[Mode, Callable[[Shot, Cut], list[Segment]]] = {
    "independent": independent,
    "chain": chain,
    "refine": refine,
    "infill": infill,
    # The windows of one shared latent canvas are the same; only their denoising is in step.
    "co_denoise": independent,
}

__all__ = [
    "DRAFT_STRENGTH",
    "SEGMENTS_OF",
    "Cut",
    "DraftChoice",
    "Frames",
    "draft_choice",
    "draft_notes",
    "draft_spec_of",
    "of_draft",
]
