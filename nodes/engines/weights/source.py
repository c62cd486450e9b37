"""Which weights a component runs with, and how it gets them: the way of a family to everything here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from nodes.engines.folders import (
    PLAIN_TYPES,
    THE_FOLDERS,
    StoredTensor,
    WeightSource,
    in_fewer_bits,
    source_tensors,
)
from nodes.engines.weights.conversion import converted
from nodes.engines.weights.files import TORCH_TYPES
from nodes.engines.weights.loading import load_weights
from nodes.engines.weights.names import Rename
from nodes.engines.weights.skeleton import kept_by


def read_weights(
    kind: Any,
    component: Path,
    source: WeightSource = THE_FOLDERS,
    *,
    stem: str,
    dtype: torch.dtype,
    rename: Rename | None = None,
    beside: Mapping[str, StoredTensor] = MappingProxyType({}),
    not_here: tuple[str, ...] = (),
) -> nn.Module:
    """One component, to be run and not trained; inside ``reading()``.

    Args:
        kind: Its class, of diffusers or transformers.
        component: Its folder.
        source: Which weights.
        stem: Of the folder's weight files (see ``Layout``).
        dtype: Of computation.
        rename: Of the family's own names to diffusers', for single files and LoRAs.
        beside: Tensors of another folder that are part of it.
        not_here: What keys of LoRAs begin with that are for another component of the model.

    Raises:
        CannotRun: a file is missing or damaged, weights are missing from it or belong to another model, or a
            conversion has nowhere to go.
        InvalidInput: a LoRA does not fit the model.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    tensors = {**source_tensors(source, component, stem, half=half), **beside}
    more: dict[str, Any] = {"rename": rename, "loras": source.loras, "not_here": not_here}
    as_is = source.format == "plain" and not (source.in_files and _is_cast(kind, tensors, source, dtype))
    if in_fewer_bits(tensors) or as_is:
        return load_weights(kind, component, tensors, dtype=dtype, **more)
    made = converted(kind, component, tensors, format=source.format, dtype=dtype, **more)
    return load_weights(kind, component, made, dtype=dtype)


def _is_cast(kind: Any, tensors: dict[str, StoredTensor], source: WeightSource, dtype: torch.dtype) -> bool:
    """Whether matrices would be changed as they are loaded, and so be in memory."""
    kept = kept_by(kind, dtype)
    return bool(source.loras) or any(
        len(tensor.shape) > 1 and TORCH_TYPES[tensor.type] != dtype and not kept.is_float32(name)
        for name, tensor in tensors.items()
        if tensor.type in PLAIN_TYPES
    )
