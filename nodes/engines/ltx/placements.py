"""How each rung runs an LTX-Video model: what is on the card, and what passes through the ring."""

from __future__ import annotations

from dataclasses import dataclass

from farm.capabilities import DeviceKind, Rung
from nodes.engines.placement import Parts, Placement


@dataclass(frozen=True)
class OneAtATime(Placement):
    """The transformer and the halves of the VAE take turns on the card."""

    def resident(self, parts: Parts) -> tuple[str, ...]:
        return ()


#: Of windows, in the ladder's order. On H200s a window of the 2B model took 1.00 to 1.11 times as long
#: streamed as with its transformer visiting the card (docs/measured.md). Streamed feed-forward layers are
#: whole: they have more than a group of the ring, and pieces would cross each.
CUDA: tuple[Placement, ...] = (
    Placement("resident", "resident", False, 1, 1, 16, 1.0),
    OneAtATime("evict", "visiting", False, 4, 1, 16, 1.05),
    Placement("stream", "visiting", True, 1, 1, 8, 1.1),
    # Where a machine's memory is short; a guess, for disks differ.
    Placement("disk", "visiting", True, 1, 1, 8, 4.0, from_files=True),
)
#: Of prompts, which are encoded apart from windows: the encoder whole, or streamed.
TEXT_ENCODERS: dict[Rung, Placement] = {
    "resident": Placement("resident", "visiting", False, 1, 1, 1, 1.0),
    "evict": Placement("evict", "streamed", False, 1, 1, 1, 1.0),
    "stream": Placement("stream", "streamed", False, 1, 1, 1, 1.0),
    "disk": Placement("disk", "streamed", False, 1, 1, 1, 1.3, from_files=True),
    "chunk": Placement("chunk", "visiting", False, 1, 1, 1, 1.0),
}
#: A CPU has no card to leave: what is in flight shrinks, from both guidance passes to one.
_CPU: tuple[Placement, ...] = (
    Placement("resident", "resident", False, 1, 2, 16, 1.0),
    Placement("chunk", "resident", False, 4, 1, 8, 1.9),
)


def placements(kind: DeviceKind) -> tuple[Placement, ...]:
    """The rungs offered on a kind of device."""
    return CUDA if kind == "cuda" else _CPU
