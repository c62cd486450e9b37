"""A component built around the tensors of its files: mapped where they are as they are wanted, else cast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from farm.errors import CannotRun
from nodes.engines.folders import StoredTensor
from nodes.engines.weights.files import MappedFiles
from nodes.engines.weights.layers import ScaledLinear
from nodes.engines.weights.skeleton import kept_by, skeleton


def load_weights(
    kind: Any, component: Path, tensors: Mapping[str, StoredTensor], *, dtype: torch.dtype
) -> nn.Module:
    """A component with the weights of ``tensors``, to be run and not trained; inside ``reading()``.

    Nothing is read of what already has its dtype: it is mapped, and the system brings it when it is used.

    Args:
        kind: Its class, of diffusers or transformers.
        component: Its folder, with the config.
        tensors: Its weights by name, plain or as ``converted`` gives them.
        dtype: Of computation; what its class keeps in float32 is float32.

    Raises:
        CannotRun: weights are missing, or do not fit the config.
    """
    module, kept = skeleton(kind, component), kept_by(kind, dtype)
    files = MappedFiles()
    for path, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            base = f"{path}.{name}." if path else f"{name}."
            if isinstance(child, nn.Linear) and f"{base}stored" in tensors:
                setattr(parent, name, _scaled(child, base, tensors, files, dtype))
    for name, empty in module.state_dict(keep_vars=True).items():
        owner = module.get_submodule(name.rpartition(".")[0])
        if name not in tensors or (isinstance(owner, ScaledLinear) and not name.endswith(".bias")):
            continue
        wanted = torch.float32 if kept.is_float32(name) else dtype
        tensor = files.tensor(tensors[name])
        if tensor.shape != empty.shape:
            raise CannotRun(
                f"{name} of {tensors[name].path} is {tuple(tensor.shape)}, {component / 'config.json'} asks "
                f"for {tuple(empty.shape)}: the weights belong to another model"
            )
        _set(module, name, tensor.to(wanted) if tensor.is_floating_point() else tensor)
    tie_weights: Callable[[], None] | None = getattr(module, "tie_weights", None)  # of transformers alone
    if tie_weights is not None:
        tie_weights()
    missing = sorted(name for name, tensor in module.state_dict().items() if tensor.is_meta)
    if missing:
        raise CannotRun(
            f"{component} lacks {len(missing)} weights ({missing[0]}, ...): download the model again"
        )
    return module


def _scaled(
    linear: nn.Linear, base: str, tensors: Mapping[str, StoredTensor], files: MappedFiles, dtype: torch.dtype
) -> ScaledLinear:
    stored, scale = tensors[f"{base}stored"], tensors[f"{base}scale"]
    return ScaledLinear(
        files.tensor(stored),
        files.tensor(scale),
        linear.bias,
        format="int8" if stored.type == "I8" else "float8",
        dtype=dtype,
    )


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
