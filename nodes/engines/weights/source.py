"""Which weights a component runs with, and how it gets them: the way of a family to everything here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from farm.capabilities import LoraFile
from nodes.engines.folders import (
    PLAIN_TYPES,
    StoredTensor,
    WeightFormat,
    component_tensors,
    file_tensors,
)
from nodes.engines.weights.conversion import converted
from nodes.engines.weights.files import TORCH_TYPES
from nodes.engines.weights.loading import load_weights
from nodes.engines.weights.names import Rename
from nodes.engines.weights.skeleton import kept_by


@dataclass(frozen=True)
class WeightSource:
    """Which weights a component runs with, beside a folder that has its config.

    Args:
        file: A single file in place of the folder's weights.
        loras: What is added to them, in this order.
        format: How they are kept; weights that come in fewer bits stay as they are.
        in_files: Convert plain weights, too, where they must be cast or have LoRAs, so that they can be
            streamed from files; else these are in memory.
    """

    file: Path | None = None
    loras: tuple[LoraFile, ...] = ()
    format: WeightFormat = "plain"
    in_files: bool = False


def read_weights(
    kind: Any,
    component: Path,
    source: WeightSource = WeightSource(),
    *,
    stem: str,
    dtype: torch.dtype,
    rename: Rename | None = None,
) -> nn.Module:
    """One component, to be run and not trained; inside ``reading()``.

    Args:
        kind: Its class, of diffusers or transformers.
        component: Its folder.
        source: Which weights.
        stem: Of the folder's weight files (see ``Layout``).
        dtype: Of computation.
        rename: Of the family's own names to diffusers', for single files and LoRAs.

    Raises:
        CannotRun: a file is missing or damaged, weights are missing from it or belong to another model, or a
            conversion has nowhere to go.
        InvalidInput: a LoRA does not fit the model.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    tensors = file_tensors(source.file) if source.file else component_tensors(component, stem, half=half)
    as_is = source.format == "plain" and not (source.in_files and _is_cast(kind, tensors, source, dtype))
    if _in_fewer_bits(tensors) or as_is:
        return load_weights(kind, component, tensors, dtype=dtype, rename=rename, loras=source.loras)
    made = converted(
        kind, component, tensors, format=source.format, dtype=dtype, rename=rename, loras=source.loras
    )
    return load_weights(kind, component, made, dtype=dtype)


def _is_cast(kind: Any, tensors: dict[str, StoredTensor], source: WeightSource, dtype: torch.dtype) -> bool:
    """Whether matrices would be changed as they are loaded, and so be in memory."""
    kept = kept_by(kind, dtype)
    return bool(source.loras) or any(
        len(tensor.shape) > 1 and TORCH_TYPES[tensor.type] != dtype and not kept.is_float32(name)
        for name, tensor in tensors.items()
        if tensor.type in PLAIN_TYPES
    )


def _in_fewer_bits(tensors: dict[str, StoredTensor]) -> bool:
    """Whether matrices come in a type that nothing but their layer can read."""
    return any(len(t.shape) == 2 and t.type not in PLAIN_TYPES for t in tensors.values())
