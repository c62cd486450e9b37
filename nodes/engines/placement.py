"""How a rung of the memory ladder runs: what is on the card, and how much is in flight at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from farm.capabilities import Rung

#: Slots of the weight ring that streams a component, and bytes of one unit unless a single tensor is larger.
RING_SLOTS = 3
RING_GROUP_BYTES = 64 * 2**20
#: Elements that a slice of a layer makes on its way at most, where layers run in slices: 128 MiB in half
#: precision, which keep a card busy.
ELEMENTS_AT_ONCE = 2**26


def ring_bytes(tensor_bytes: Collection[int]) -> int:
    """Card bytes of the ring that streams a component with tensors of these bytes."""
    return min(sum(tensor_bytes), RING_SLOTS * max(RING_GROUP_BYTES, max(tensor_bytes, default=0)))


@dataclass(frozen=True)
class Parts:
    """Which components of a model do what, by their names."""

    denoisers: tuple[str, ...]
    #: None of a model that makes nothing of latents: prompts are encoded by one of their own.
    vae: str | None
    encoders: tuple[str, ...]


@dataclass(frozen=True)
class Placement:
    """How a rung runs: what is on the card, and how much is in flight at once."""

    rung: Rung
    #: What the prompt and the images are encoded with: on the card for good, only while they work, or
    #: streamed through the ring.
    encoders: Literal["resident", "visiting", "streamed"]
    #: The denoiser is on the card (and the VAE with it), or streamed (and the VAE there only while it works).
    denoiser_streamed: bool
    #: Pieces a resnet of the widest level runs in; the other layers follow (see common/pieces.py).
    pieces: int
    #: Batch rows of a guided call of the denoiser: 2, or 1 with one call for each.
    guided_batch: int
    #: Frames the VAE decodes at once.
    decode_frames: int
    #: Seconds relative to ``resident``.
    slowdown: float
    #: What is streamed waits in the files it is mapped from, not in pinned host memory.
    from_files: bool = False

    def resident(self, parts: Parts) -> tuple[str, ...]:
        """The components that stay on the card from the first to the last stage.

        Of several denoisers, which take turns, none does: each is there for its own steps.
        """
        denoisers = parts.denoisers if len(parts.denoisers) == 1 else ()
        vae = () if parts.vae is None else (parts.vae,)
        names = () if self.denoiser_streamed else (*denoisers, *vae)
        return (*names, *parts.encoders) if self.encoders == "resident" else names

    def streamed(self, parts: Parts) -> tuple[str, ...]:
        """The components whose weights pass through the ring while they work."""
        names = parts.denoisers if self.denoiser_streamed else ()
        return (*names, *parts.encoders) if self.encoders == "streamed" else names


def once(placements: Iterable[Placement]) -> tuple[Placement, ...]:
    """The same for weights that are streamed once and let go: from their files, which the system keeps in
    memory where there is some. To copy them to pinned memory first takes longer than to read them."""
    return tuple(replace(p, from_files=p.from_files or p.encoders == "streamed") for p in placements)
