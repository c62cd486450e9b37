"""What this machine can give of a model: all of a folder, or the pieces of one that is still coming."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from farm.capabilities import Manifest
from nodes.model_store.pieces import Piece, pieces_of
from nodes.model_store.store import folder_of, is_key, models_folder

_NUMBER = struct.Struct("<I")
#: What a file is called of which pieces are here.
SPARSE = ".pieces"
#: Numbers of the pieces that are here, four bytes each, in the order they came.
_JOURNAL = ".journal"


class Holding(Protocol):
    """Pieces of one manifest."""

    pieces: list[Piece]

    def numbers(self) -> Collection[int]:
        """Those that can be given now."""

    def file_of(self, piece: Piece) -> Path:
        """Where a piece lies, at its offset; may be gone by the time it is opened."""


class WholeFolder:
    """A folder that has all of it."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self.pieces = pieces_of(manifest)
        self._root = root

    def numbers(self) -> Collection[int]:
        return range(len(self.pieces))

    def file_of(self, piece: Piece) -> Path:
        return self._root / piece.path


class InStore:
    """What the store has of it, whichever process of this machine brings it."""

    def __init__(self, manifest: Manifest) -> None:
        self.pieces = pieces_of(manifest)
        self._key = manifest.key
        self._places = (folder_of(manifest.key), staging_of(manifest.key))
        self._journal = Journal(manifest.key)

    def numbers(self) -> Collection[int]:
        if all((self._places[0] / path).is_file() for path in {piece.path for piece in self.pieces}):
            return range(len(self.pieces))
        return self._journal.read() | {
            number for number, piece in enumerate(self.pieces) if self._whole(piece.path) is not None
        }

    def file_of(self, piece: Piece) -> Path:
        return self._whole(piece.path) or self._places[1] / f"{piece.path}{SPARSE}"

    def _whole(self, path: str) -> Path | None:
        return next((place / path for place in self._places if (place / path).is_file()), None)


class Journal:
    """Which pieces of a model that comes are on the disk."""

    def __init__(self, key: str) -> None:
        self._path = staging_of(key) / _JOURNAL
        self._numbers: set[int] = set()
        self._read_bytes = 0

    def read(self) -> set[int]:
        """Those that are there by now; what was read before is not read again."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_bytes:  # begun anew
                    self._read_bytes = 0
                    self._numbers.clear()
                file.seek(self._read_bytes)
                told = file.read()
        except OSError:
            self._read_bytes = 0
            self._numbers.clear()
            return self._numbers
        whole = len(told) - len(told) % _NUMBER.size
        self._numbers.update(number for (number,) in _NUMBER.iter_unpack(told[:whole]))
        self._read_bytes += whole
        return self._numbers

    def add(self, number: int) -> None:
        """A piece was written, and is what it should be."""
        with self._path.open("ab") as file:
            file.write(_NUMBER.pack(number))

    def begin(self, numbers: Collection[int]) -> None:
        """Anew, with these."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(b"".join(map(_NUMBER.pack, numbers)))

    def end(self) -> None:
        self._path.unlink(missing_ok=True)


def staging_of(key: str) -> Path:
    """Where a model is until it is whole."""
    return models_folder() / ".coming" / key


def recorded() -> list[Manifest]:
    """The manifests of the models that were brought here, or are coming."""
    found = []
    for path in sorted((models_folder() / ".records").glob("*.manifest.json")):
        try:
            manifest = Manifest.model_validate_json(path.read_text())
        except (OSError, ValueError):
            continue
        if is_key(manifest.key):
            found.append(manifest)
    return found
