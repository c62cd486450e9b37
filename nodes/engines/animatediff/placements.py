"""How each rung runs a model: what is on the card, and what passes through the ring."""

from __future__ import annotations

from dataclasses import replace

from farm.capabilities import DeviceKind
from nodes.engines.placement import Placement

#: In the ladder's order. Layers run in slices at every rung. Slowdowns are guesses after stock's on an H200.
CUDA: tuple[Placement, ...] = (
    Placement("resident", "resident", False, 1, 2, 1, 1.0),
    Placement("evict", "visiting", False, 1, 2, 1, 1.01),
    Placement("cfg_split", "streamed", False, 1, 1, 1, 1.15),
    Placement("stream", "streamed", True, 1, 2, 1, 1.2),
    Placement("stream_cfg_split", "streamed", True, 1, 1, 1, 1.5),
    # Where a machine's memory is short; a guess, for disks differ.
    Placement("disk", "streamed", True, 1, 1, 1, 4.0, from_files=True),
)
#: A CPU has no card to leave: what is in flight shrinks, from both guidance passes and four frames to one.
_CPU: tuple[Placement, ...] = (
    Placement("resident", "resident", False, 1, 2, 4, 1.0),
    replace(CUDA[2], encoders="resident", slowdown=1.9),
)


def placements(kind: DeviceKind) -> tuple[Placement, ...]:
    """The rungs offered on a kind of device."""
    return CUDA if kind == "cuda" else _CPU
