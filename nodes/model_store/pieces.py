"""What is decided when models come and go: which piece is given next, and what is dropped for room. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from farm.capabilities import PIECE_BYTES, Manifest
from farm.errors import CannotRun
from nodes.model_store.store import Kept


@dataclass(frozen=True)
class Piece:
    """A range of a file."""

    path: str
    offset: int
    size_bytes: int
    sha256: str


def pieces_of(manifest: Manifest) -> list[Piece]:
    """Every piece, in the order of the manifest: a piece is spoken of by its place in it."""
    return [
        Piece(file.path, begin, min(PIECE_BYTES, file.size_bytes - begin), sha256)
        for file in manifest.files
        for begin, sha256 in zip(range(0, file.size_bytes, PIECE_BYTES), file.pieces, strict=True)
    ]


def next_piece(wanted: Iterable[int], has: Collection[int], served: Sequence[int]) -> int | None:
    """The piece that whoever gives should give next; None: nothing of what is wanted is here.

    The one that was given least often, of equals the first: so a single source gives every piece once before
    it gives one twice, and those that it gave to get the others from each other meanwhile.

    Args:
        wanted: What is asked for.
        has: What is here.
        served: How often each was given.
    """
    return min((number for number in wanted if number in has), key=lambda n: (served[n], n), default=None)


def to_drop(
    kept: Iterable[Kept],
    wanted_bytes: int,
    *,
    quota_bytes: int | None,
    free_bytes: int,
    in_use: Collection[str] = (),
) -> list[Kept]:
    """The models that go so that so much more has room, those first that were not loaded for longest.

    What the machine's owner added or fetched is counted, and never goes.

    Args:
        quota_bytes: What all models may take; None: nobody said, and none goes.
        free_bytes: What the disk can spare.
        in_use: Keys of those that are loaded, or are coming.

    Raises:
        CannotRun: there is no room, whatever goes.
    """
    found = list(kept)
    taken = sum(model.size_bytes for model in found)
    over = wanted_bytes - free_bytes
    if quota_bytes is not None:
        over = max(over, taken + wanted_bytes - quota_bytes)
    may_go = [m for m in found if quota_bytes is not None and m.origin == "farm" and m.key not in in_use]
    dropped: list[Kept] = []
    for model in sorted(may_go, key=lambda m: (m.used_at, m.key)):
        if over <= 0:
            break
        dropped.append(model)
        over -= model.size_bytes
    if over > 0:
        limit = "" if quota_bytes is None else f", of a quota of {quota_bytes / 1e9:.1f} GB"
        raise CannotRun(
            f"{wanted_bytes / 1e9:.1f} GB of models have no room: the disk can spare "
            f"{free_bytes / 1e9:.1f} GB, and {taken / 1e9:.1f} GB are kept{limit}",
            param="model",
        )
    return dropped
