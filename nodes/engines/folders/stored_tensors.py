"""Where every tensor of a weight file lies, and how it is kept there: read from headers, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodes.engines.folders.headers import tensors_of
from nodes.engines.folders.layout import variant, weight_files

#: The types whose values are numbers of at least 16 bits that anything can cast.
PLAIN_TYPES = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: ``nbytes`` bytes from ``offset`` on.

    ``type`` is the format's own word: of safetensors ``F32``, ``BF16``, ``F8_E4M3``, ``I8`` and so on.
    """

    path: Path
    offset: int
    nbytes: int
    type: str
    shape: tuple[int, ...]


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file by name.

    Raises:
        CannotRun: the file is truncated or no safetensors file.
    """
    entries = tensors_of(path)
    # Data ends with the file.
    start = path.stat().st_size - max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    return {
        name: StoredTensor(
            path,
            start + entry["data_offsets"][0],
            _length(entry["data_offsets"]),
            entry["dtype"],
            tuple(entry["shape"]),
        )
        for name, entry in entries.items()
    }


def _length(offsets: list[int]) -> int:
    return offsets[1] - offsets[0]


def component_tensors(component: Path, stem: str, *, half: bool) -> dict[str, StoredTensor]:
    """The tensors of a component's folder by name, from all its files of one precision.

    Args:
        component: Its folder.
        stem: Of its weight files (see ``Layout``).
        half: Read the smaller files where there are two.

    Raises:
        CannotRun: a file is truncated or no safetensors file.
    """
    fp16 = variant(component, stem, half=half) == "fp16"
    paths = [path for path in weight_files(component, stem) if (f"{stem}.fp16" in path.name) == fp16]
    return {name: tensor for path in paths for name, tensor in stored_tensors(path).items()}
