"""Configs and file headers: what a model is and how large its tensors are, before anything is loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from farm.errors import CannotRun
from nodes.engines.folders.layout import variant, weight_files

#: The format's own limit.
_MAX_HEADER_BYTES = 100 * 2**20


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One JSON file of the folder.

    Raises:
        CannotRun: the file is not a JSON object.
    """
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CannotRun(f"{folder / name} is not JSON ({error}): download the model again") from error
    if not isinstance(value, dict):
        raise CannotRun(f"{folder / name} holds {type(value).__name__}, expected an object")
    return value


def config_of(folder: Path, name: str) -> dict[str, Any]:
    """One JSON file of whatever a user named; empty when there is none or it cannot be read: for claims."""
    try:
        return read_json(folder, name)
    except (OSError, CannotRun):
        return {}


def tensor_sizes(component: Path, stem: str) -> list[int]:
    """Elements of every tensor of a component's folder, from the headers of its safetensors files alone.

    Raises:
        CannotRun: a file is truncated or no safetensors file.
    """
    fp16 = variant(component, stem, half=False) == "fp16"
    paths = [path for path in weight_files(component, stem) if (f"{stem}.fp16" in path.name) == fp16]
    return [math.prod(entry["shape"]) for path in paths for entry in tensors_of(path).values()]


def metadata_of(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors.

    Raises:
        CannotRun: the file is no safetensors file.
    """
    said = _header_of(path)[0].get("__metadata__")
    return {str(name): str(value) for name, value in said.items()} if isinstance(said, dict) else {}


def tensors_of(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file by name: ``dtype``, ``shape`` and ``data_offsets`` of each.

    A file starts with eight bytes, little-endian: the length of the JSON header that follows
    (https://huggingface.co/docs/safetensors).

    Raises:
        CannotRun: the file is truncated or no safetensors file.
    """
    header, length = _header_of(path)
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    try:
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise _not_safetensors(path) from error
    if path.stat().st_size != 8 + length + end:
        raise CannotRun(
            f"{path} has {path.stat().st_size} bytes, expected {8 + length + end}: the download was cut short"
        )
    return tensors


def _header_of(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and its bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if 0 < length <= _MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
    except ValueError as error:
        raise _not_safetensors(path) from error
    if not isinstance(header, dict):
        raise _not_safetensors(path)
    return header, length


def _not_safetensors(path: Path) -> CannotRun:
    return CannotRun(f"{path} is not a safetensors file: download the model again")
