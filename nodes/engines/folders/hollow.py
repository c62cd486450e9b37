"""A model folder without weights, from the shapes of its tensors: a spec is read from it as from any."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_BYTES_PER_ELEMENT = 2


def write_hollow(shapes: Path, folder: Path) -> int:
    """Write a folder whose weight files are headers and holes. Returns the bytes of a whole one.

    Args:
        shapes: JSON: ``files`` by name with what is in them, and ``weights`` by name with rows ``[pattern,
            shape, numbers]``, where each number stands for the ``*`` of a tensor's name.
        folder: Where it is written; takes some MB of a disk.
    """
    described = json.loads(shapes.read_text(encoding="utf-8"))
    for name, value in described["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    whole_bytes = 0
    for name, rows in described["weights"].items():
        header: dict[str, Any] = {}
        end = 0
        for tensor, shape in _tensors(rows):
            begin, end = end, end + _BYTES_PER_ELEMENT * math.prod(shape)
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        whole_bytes += end
    return whole_bytes


def _tensors(rows: Sequence[Any]) -> Iterator[tuple[str, list[int]]]:
    for pattern, shape, numbers in rows:
        for name in [pattern.replace("*", str(number)) for number in numbers] or [pattern]:
            yield name, shape
