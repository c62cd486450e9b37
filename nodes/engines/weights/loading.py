"""A component built around the tensors of its files: mapped where they are as they are wanted, else cast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from farm.capabilities import LoraFile
from farm.errors import CannotRun, InvalidInput
from nodes.engines.folders import Kept, StoredTensor
from nodes.engines.weights.files import TORCH_TYPES, MappedFiles
from nodes.engines.weights.gguf_blocks import BLOCKS, GgufLinear, dequantised, row_bytes
from nodes.engines.weights.layers import QuantisedLinear, ScaledLinear
from nodes.engines.weights.lora import Change, read_loras
from nodes.engines.weights.names import Rename, renamed
from nodes.engines.weights.skeleton import kept_by, skeleton

#: What tools call the one scale of a whole float8 weight.
_SCALE_NAMES = ("scale_weight", "weight_scale")


def load_weights(
    kind: Any,
    component: Path,
    tensors: Mapping[str, StoredTensor],
    *,
    dtype: torch.dtype,
    rename: Rename | None = None,
    loras: Sequence[LoraFile] = (),
    not_here: tuple[str, ...] = (),
) -> nn.Module:
    """A component with the weights of ``tensors``, to be run and not trained; inside ``reading()``.

    Nothing is read of what already has its dtype, nor of weights in fewer bits: they are mapped, and the
    system brings them when they are used. Linear layers whose weights are float8, int8 or GGUF blocks
    dequantise them as they compute, unless the component's class keeps them in float32. LoRAs are added to
    plain tensors, in float32 and rounded once; beside a weight in fewer bits they are a low-rank branch.

    Args:
        kind: Its class, of diffusers or transformers.
        component: Its folder, with the config.
        tensors: Its weights by name: of a folder, of a single file, or as ``converted`` gives them.
        dtype: Of computation; what its class keeps in float32 is float32.
        rename: Of the family's own names to diffusers', for single files and LoRAs.
        loras: All for this component, in the order they are added.
        not_here: What keys of LoRAs begin with that are for another component of the model.

    Raises:
        CannotRun: weights are missing, of a type that is not known, or do not fit the config.
        InvalidInput: a LoRA does not fit the model, or changes a weight in fewer bits by a whole difference.
    """
    module, kept = skeleton(kind, component), kept_by(kind, dtype)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    changes = read_loras(loras, shapes, rename, not_here=not_here)
    reader = _Reader(renamed(tensors, _names_with_stored(module), rename), kept, dtype, changes)
    for path, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                layer = reader.layer(f"{path}.{name}".removeprefix("."), child)
                if layer is not None:
                    setattr(parent, name, layer)
    for name, empty in module.state_dict().items():
        if name in reader.tensors and name not in reader.used:
            _set(module, name, reader.tensor(name, empty.shape))
    tie_weights: Callable[[], None] | None = getattr(module, "tie_weights", None)  # of transformers alone
    if tie_weights is not None:
        tie_weights()
    missing = sorted(name for name, tensor in module.state_dict().items() if tensor.is_meta)
    if missing:
        paths = {tensor.path for tensor in tensors.values()}
        where = paths.pop() if len(paths) == 1 else component
        raise CannotRun(
            f"{where} lacks {len(missing)} weights ({missing[0]}, ...) of the {kind.__name__} that "
            f"{component} describes: download it again"
        )
    reader.files.remember(module)
    return module


def _names_with_stored(module: nn.Module) -> list[str]:
    names = list(module.state_dict())
    return [*names, *(f"{name.removesuffix('weight')}stored" for name in names)]


class _Reader:
    """The tensors of files as a module wants them; ``used`` are those that became part of a layer."""

    def __init__(
        self,
        tensors: Mapping[str, StoredTensor],
        kept: Kept,
        dtype: torch.dtype,
        changes: Mapping[str, Sequence[Change]],
    ) -> None:
        self.tensors = tensors
        self.used: set[str] = set()
        self._changes = changes
        self._kept = kept
        self._dtype = dtype
        self.files = MappedFiles()

    def layer(self, path: str, linear: nn.Linear) -> QuantisedLinear | None:
        """A layer around a linear layer's weight in fewer bits and its LoRAs; None where it is plain."""
        layer = self._layer(path, linear)
        if layer is not None and (changes := self._changes.get(f"{path}.weight")):
            layer.set_branch(*_branch(f"{path}.weight", changes, self._dtype))
        return layer

    def _layer(self, path: str, linear: nn.Linear) -> QuantisedLinear | None:
        name = f"{path}.weight"
        if f"{path}.stored" in self.tensors:
            stored, scale = self.tensors[f"{path}.stored"], self.files.tensor(self.tensors[f"{path}.scale"])
            self.used |= {f"{path}.stored", f"{path}.scale"}
            return self._scaled(stored, scale, linear)
        tensor = self.tensors.get(name)
        if tensor is None or self._kept.is_float32(name) or tensor.shape != linear.weight.shape:
            return None
        if tensor.type == "F8_E4M3":
            self.used.add(name)
            return self._scaled(tensor, self._scale_of(path).expand(linear.out_features, 1).clone(), linear)
        if tensor.type in BLOCKS and (size := row_bytes(tensor.type, tensor.shape)) is not None:
            self.used.add(name)
            rows = self.files.bytes_of(tensor).view(-1, size)
            return GgufLinear(rows, linear.bias, type=tensor.type, dtype=self._dtype)
        return None

    def tensor(self, name: str, shape: torch.Size) -> torch.Tensor:
        """A tensor in its dtype, with its LoRAs.

        Raises:
            CannotRun: its type is not known, or its shape is another.
        """
        changes = self._changes.get(name)
        wanted = torch.float32 if self._kept.is_float32(name) else self._dtype
        if not changes:
            return self._plain(name, shape, wanted)
        value = self._plain(name, shape, torch.float32)
        for change in changes:
            value = value + change.rows(0, change.num_rows).view(shape)
        return value.to(wanted)

    def _plain(self, name: str, shape: torch.Size, wanted: torch.dtype) -> torch.Tensor:
        stored = self.tensors[name]
        # Some tools leave dimensions of one away.
        if [n for n in stored.shape if n != 1] != [n for n in shape if n != 1]:
            raise CannotRun(
                f"{name} of {stored.path} is {stored.shape}, the model's config asks for {tuple(shape)}: the "
                "weights belong to another model"
            )
        if stored.type in BLOCKS:
            size = row_bytes(stored.type, stored.shape) or stored.nbytes
            rows = self.files.bytes_of(stored).view(-1, size)
            return dequantised(rows, stored.type, dtype=wanted).view(shape)
        if stored.type not in TORCH_TYPES:
            raise CannotRun(
                f"{name} of {stored.path} is {stored.type}: known are {', '.join((*TORCH_TYPES, *BLOCKS))}; "
                "take a file in another quantisation"
            )
        tensor = self.files.tensor(stored).view(shape)
        if stored.type.startswith("F8"):
            return (tensor.float() * self._scale_of(name.removesuffix(".weight"))).to(wanted)
        return tensor.to(wanted) if tensor.is_floating_point() else tensor

    def _scaled(self, stored: StoredTensor, scale: torch.Tensor, linear: nn.Linear) -> ScaledLinear:
        weight = self.files.tensor(stored)
        format = "int8" if weight.dtype == torch.int8 else "float8"
        return ScaledLinear(weight, scale, linear.bias, format=format, dtype=self._dtype)  # type: ignore[arg-type]

    def _scale_of(self, path: str) -> torch.Tensor:
        for name in _SCALE_NAMES:
            if (stored := self.tensors.get(f"{path}.{name}")) is not None:
                return self.files.tensor(stored).float().reshape(())
        return torch.ones(())


def _branch(name: str, changes: Sequence[Change], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """All LoRAs of a weight as one: (ranks, in) and (out, ranks)."""
    if any(change.up is None for change in changes):
        raise InvalidInput(
            f"a LoRA changes {name} by a whole difference, which weights in fewer bits cannot take: use the "
            "model in 16 bits, whose LoRAs are merged before it is converted",
            param="loras",
        )
    downs, ups = zip(*(change.branch() for change in changes), strict=True)
    return torch.cat(downs).to(dtype), torch.cat(ups, dim=1).to(dtype)


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
