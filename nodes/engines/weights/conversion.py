"""Weights converted to a format once, file by file and some rows at a time, and kept beside their model."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from farm.capabilities import LoraFile
from farm.errors import CannotRun
from nodes.engines.folders import (
    PLAIN_TYPES,
    Kept,
    StoredTensor,
    WeightFormat,
    file_tensors,
    stored_tensors,
)
from nodes.engines.weights.files import TORCH_TYPES, rows_of
from nodes.engines.weights.layers import quantised
from nodes.engines.weights.lora import Change, read_loras
from nodes.engines.weights.names import Rename, renamed
from nodes.engines.weights.skeleton import kept_by, linear_weights, skeleton

_LOG = logging.getLogger(__name__)
#: Folders of another version are made anew.
_VERSION = 1
_TYPE_NAMES = {dtype: name for name, dtype in TORCH_TYPES.items()}
_STORED_TYPES: dict[WeightFormat, str] = {"float8": "F8_E4M3", "int8": "I8"}
#: What a folder ends with until it is whole.
_PART = ".part"
#: Left on the disk beside what a conversion writes.
_SPARE_BYTES = 2**30


def converted(
    kind: Any,
    component: Path,
    tensors: Mapping[str, StoredTensor],
    *,
    format: WeightFormat,
    dtype: torch.dtype,
    rename: Rename | None = None,
    loras: Sequence[LoraFile] = (),
    not_here: tuple[str, ...] = (),
) -> dict[str, StoredTensor]:
    """The weights of a component in ``format``, converted first when need be; inside ``reading()``.

    A quantised weight ``x.weight`` is kept as ``x.stored`` and ``x.scale`` (out, 1). They lie in
    ``farm_weights`` beside the component's folder, or in the user's cache when that cannot be written to, and
    are made anew when a source file has changed. Two processes that want the same wait for one of them. A
    conversion holds some rows of one tensor.

    Args:
        kind: The component's class, of diffusers or transformers.
        component: Its folder, with the config; where it is a link, its target.
        tensors: Its weights as they are, of types that torch has (see ``component_tensors``).
        format: How to keep the weights of its linear layers.
        dtype: How to keep the rest, but for what its class keeps in float32.
        rename: Of the family's own names to diffusers', for single files and LoRAs.
        loras: What is added to the weights first, in float32 and rounded with them; a set of LoRAs has a
            conversion of its own.
        not_here: What keys of LoRAs begin with that are for another component of the model.

    Returns:
        The converted tensors by name, for ``load_weights``.

    Raises:
        InvalidInput: a LoRA does not fit the model.
        CannotRun: a LoRA is missing or damaged, the disk has too little space, no folder can be written to,
            or the weights are in fewer bits already.
    """
    sources = sorted({tensor.path for tensor in tensors.values()})
    origin = _origin(component.resolve(), sources)
    format_name = f"{format}-{str(dtype).removeprefix('torch.')}"
    source = _identity([_file(path) for path in sources])
    for lora in loras:
        file_tensors(lora.path)  # refuses what is no file
    added = [(lora.scale, *_file(lora.path)) for lora in loras]
    name = f"{format_name}-{source}" + (f"-{_identity(added)}" if added else "")
    for place in _places(origin):
        if (found := _read(place / name)) is not None:
            return found
    place = _writable(_places(origin))
    with FileLock(place / ".lock"):
        if (found := _read(place / name)) is not None:
            return found
        for folder in place.glob(f"{format_name}-*"):  # of a model that has changed, or cut short
            if source not in folder.name or folder.name in (name, f"{name}{_PART}"):
                shutil.rmtree(folder)
        _LOG.info("converting %s to %s once, into %s", origin, format_name, place / name)
        module = skeleton(kind, component)
        tensors = renamed(tensors, module.state_dict(), rename)
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        changes = read_loras(loras, shapes, rename, not_here=not_here)
        outputs = _outputs(module, kept_by(kind, dtype), tensors, format, dtype)
        _check_space(place, outputs)
        part = place / f"{name}{_PART}"
        part.mkdir()
        for number, path in enumerate(sources):  # of several folders, some may be called the same
            of_file = {each: tensors[each] for each in outputs if tensors[each].path == path}
            _write(part / f"{number:03}-{path.stem}.safetensors", of_file, outputs, changes)
        part.rename(place / name)
        found = _read(place / name)
        assert found is not None
        return found


#: A tensor that is written: its name, its type, its shape.
_Output = tuple[str, str, tuple[int, ...]]


def _outputs(
    module: nn.Module,
    kept: Kept,
    tensors: Mapping[str, StoredTensor],
    format: WeightFormat,
    dtype: torch.dtype,
) -> dict[str, list[_Output]]:
    """What is written of each tensor that the model has."""
    linears = linear_weights(module)
    outputs: dict[str, list[_Output]] = {}
    for name in module.state_dict():
        if name not in tensors:
            continue
        shape, type_name = tensors[name].shape, tensors[name].type
        if type_name not in PLAIN_TYPES:
            raise CannotRun(
                f"{name} of {tensors[name].path} is {type_name}, in fewer bits already: use the file as it is"
            )
        if format != "plain" and name in linears and kept.quantises(name, shape):
            base = name.removesuffix("weight")
            outputs[name] = [
                (f"{base}stored", _STORED_TYPES[format], shape),
                (f"{base}scale", "F32", (shape[0], 1)),
            ]
        else:
            outputs[name] = [(name, "F32" if kept.is_float32(name) else _TYPE_NAMES[dtype], shape)]
    return outputs


def _write(
    path: Path,
    tensors: Mapping[str, StoredTensor],
    outputs: Mapping[str, list[_Output]],
    changes: Mapping[str, Sequence[Change]],
) -> None:
    """Write one safetensors file: a header (see ``tensors_of``), then every tensor's rows in their place."""
    header: dict[str, Any] = {}
    end = 0
    # Wide types first, so that everything is aligned to its own size.
    every = (each for name in tensors for each in outputs[name])
    for name, type_name, shape in sorted(every, key=lambda each: -TORCH_TYPES[each[1]].itemsize):
        nbytes = math.prod(shape) * TORCH_TYPES[type_name].itemsize
        header[name] = {"dtype": type_name, "shape": shape, "data_offsets": (end, end + nbytes)}
        end += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for source, tensor in tensors.items():
            for first, rows in rows_of(tensor):
                for change in changes.get(source, ()):
                    rows += change.rows(first, rows.shape[0])
                for (name, type_name, _), made in zip(
                    outputs[source], _stored(rows, outputs[source]), strict=True
                ):
                    size = made[:1].numel() * TORCH_TYPES[type_name].itemsize
                    file.seek(start + header[name]["data_offsets"][0] + first * size)
                    file.write(made.contiguous().view(torch.uint8).numpy().data)
        file.truncate(start + end)
        file.flush()
        os.fsync(file.fileno())


def _stored(rows: torch.Tensor, outputs: Sequence[_Output]) -> Sequence[torch.Tensor]:
    type_name = outputs[0][1]
    formats = [format for format, stored in _STORED_TYPES.items() if stored == type_name]
    return quantised(rows, formats[0]) if formats else [rows.to(TORCH_TYPES[type_name])]


def _origin(component: Path, sources: Sequence[Path]) -> Path:
    """What the converted weights are of: the component, or a single file elsewhere."""
    if len(sources) == 1 and sources[0].parent.resolve() != component:
        return sources[0].resolve()
    return component


def _places(origin: Path) -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [
        origin.parent / "farm_weights" / origin.name,
        cache / "reelfarm" / "weights" / _identity(str(origin)),
    ]


def _writable(places: Iterable[Path]) -> Path:
    reasons = []
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / ".lock").touch()
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
        else:
            return place
    raise CannotRun(
        f"converted weights cannot be kept anywhere ({'; '.join(reasons)}): make one of them writable"
    )


def _check_space(place: Path, outputs: Mapping[str, list[_Output]]) -> None:
    every = (each for of_tensor in outputs.values() for each in of_tensor)
    need = sum(math.prod(shape) * TORCH_TYPES[type_name].itemsize for _, type_name, shape in every)
    free = shutil.disk_usage(place).free
    if free < need + _SPARE_BYTES:
        raise CannotRun(
            f"the converted weights need {need / 1e9:.1f} GB and 1 GB to spare, {place} has "
            f"{free / 1e9:.1f} GB free: make space there"
        )


def _read(folder: Path) -> dict[str, StoredTensor] | None:
    """The converted tensors of a folder; None when they are not there or a file was cut short."""
    try:
        return {
            name: tensor
            for path in sorted(folder.glob("*.safetensors"))
            for name, tensor in stored_tensors(path).items()
        } or None
    except CannotRun:
        return None


def _file(path: Path) -> tuple[str, int, int]:
    """What changes when a file does."""
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns


def _identity(value: Any) -> str:
    return hashlib.sha256(json.dumps([_VERSION, value]).encode()).hexdigest()[:16]
