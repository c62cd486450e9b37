"""The files of a model as machines hand them to each other: in pieces, each known by its hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from farm.values import Value

#: Of every piece but the last of a file. A quarter of a second at 250 Mbit/s.
PIECE_BYTES = 8 * 2**20
_KEY = re.compile(r"[^./\\\0\n][^/\\\0\n]{0,199}")


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part in ("..", ".") or "\\" in part for part in parts):
        raise ValueError("is no path within a folder")
    if any(part.startswith(".") or "\0" in part for part in parts):
        raise ValueError("is hidden, or no name")
    return path


def _key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError("is no name that a model is kept by")
    return key


class ModelFile(Value):
    """One file: where it is within its folder, and its pieces."""

    path: Annotated[str, Field(max_length=1000), AfterValidator(_inside)]
    size_bytes: int = Field(ge=0, lt=2**53)
    #: SHA-256 of each.
    pieces: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...]


class Manifest(Value):
    """A model as it lies on the farm's machine."""

    #: What it is kept by (``nodes.model_store``).
    key: Annotated[str, AfterValidator(_key)]
    files: tuple[ModelFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def id(self) -> str:
        """The same for the same content alone."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Source(Value):
    """A machine that gives pieces."""

    host: str
    port: int = Field(ge=1, le=65535)


class ModelHeld(Value):
    """A model that is whole on a machine's disk, by the name it is asked for by."""

    model: str
    size_bytes: int = Field(ge=0, lt=2**53)
