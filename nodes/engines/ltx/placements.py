"""How each rung runs an LTX-Video model: what is on the card, and what passes through the ring."""

from __future__ import annotations

from dataclasses import dataclass

from farm.capabilities import DeviceKind
from nodes.engines.placement import Parts, Placement


@dataclass(frozen=True)
class VaeVisits(Placement):
    """The VAE is on the card only while it works: it has 2.5 GB, the small transformer 3.8."""

    def resident(self, parts: Parts) -> tuple[str, ...]:
        return tuple(name for name in super().resident(parts) if name != parts.vae)


#: In the ladder's order. Streamed layer by layer, the stock 2B model took twice its resident time on an H200:
#: its steps are shorter than its weights take to cross. The 13B one hides more of them.
CUDA: tuple[Placement, ...] = (
    Placement("resident", "resident", False, 1, 1, 16, 1.0),
    Placement("evict", "visiting", False, 1, 1, 16, 1.05),
    VaeVisits("chunk", "streamed", False, 4, 1, 8, 1.1),
    Placement("stream", "streamed", True, 4, 1, 8, 2.0),
)
#: A CPU has no card to leave: what is in flight shrinks, from both guidance passes to one.
_CPU: tuple[Placement, ...] = (
    Placement("resident", "resident", False, 1, 2, 16, 1.0),
    Placement("chunk", "resident", False, 4, 1, 8, 1.9),
)


def placements(kind: DeviceKind) -> tuple[Placement, ...]:
    """The rungs offered on a kind of device."""
    return CUDA if kind == "cuda" else _CPU
