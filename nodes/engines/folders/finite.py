"""Whether a file's values are numbers at all: told where it is checked, for a render tells it at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from nodes.engines.folders.stored_tensors import StoredTensor

#: Of a type: its words, and the bits of the exponent, which are all set in what is no finite number.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0 << 48),
    "F8_E5M2": (np.uint8, 0x7C),
    # Of this one all bits but the sign: it has no infinity.
    "F8_E4M3": (np.uint8, 0x7F),
}
_PIECE_BYTES = 2**24


def not_finite(tensors: Mapping[str, StoredTensor]) -> str | None:
    """The first of a file's tensors that holds a NaN or an infinity; None: none does. Reads all of them, once
    for as long as the file stays what it is."""
    in_order = tuple(sorted(tensors.items(), key=lambda item: item[1].offset))
    if not in_order:
        return None
    path = in_order[0][1].path
    return _not_finite(path, in_order, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _not_finite(path: Path, tensors: Sequence[tuple[str, StoredTensor]], mtime_ns: int) -> str | None:
    with path.open("rb") as file:
        for name, tensor in tensors:
            if tensor.type not in _EXPONENTS:
                continue
            words, exponent = _EXPONENTS[tensor.type]
            mask = words(exponent)
            file.seek(tensor.offset)
            for count in _pieces(tensor.nbytes):
                if bool(((np.frombuffer(file.read(count), words) & mask) == mask).any()):
                    return name
    return None


def _pieces(nbytes: int) -> Iterator[int]:
    while nbytes > 0:
        yield min(nbytes, _PIECE_BYTES)
        nbytes -= _PIECE_BYTES
