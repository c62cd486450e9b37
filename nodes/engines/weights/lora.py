"""LoRAs of the forms people share, as what they add to each tensor of a model.

A layer's weight (out, in) gets ``scale x alpha / rank x up @ down`` (Hu et al. 2021); files of distilled
models have whole differences for biases, norms and modulation beside it. Names are those of diffusers and
peft, of a model's authors, or kohya's with underscores for dots.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from farm.capabilities import LoraFile
from farm.errors import InvalidInput
from nodes.engines.folders import StoredTensor, file_tensors
from nodes.engines.weights.files import whole
from nodes.engines.weights.names import NameFinder, Rename

#: The end of a key: the part of a change that it holds.
_PARTS = {
    ".lora_A.weight": "down",
    ".lora_A.default.weight": "down",
    ".lora_down.weight": "down",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.default.weight": "up",
    ".lora_up.weight": "up",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
    ".diff": "weight",
    ".diff_b": "bias",
    ".lora_B.bias": "bias",
    ".diff_m": "modulation",
}
#: The parts that are a difference of a tensor: what is put behind the layer's name, the first that fits.
_TARGETS = {"weight": (".weight", ""), "bias": (".bias",), "modulation": (".modulation",)}


@dataclass(frozen=True)
class Change:
    """What is added to a tensor: ``scale x up @ down``, or ``scale x down`` where there is no ``up``.

    Of convolutions and the like, ``down`` is taken as a matrix (rank, everything else).
    """

    down: StoredTensor
    up: StoredTensor | None
    scale: float
    #: Of the tensor that is changed.
    num_rows: int

    def rows(self, first: int, count: int) -> torch.Tensor:
        """``count`` rows from ``first`` on of what is added, (count, elements of a row) float32."""
        if self.up is None:
            return whole(self.down).view(self.num_rows, -1)[first : first + count] * self.scale
        down, up = self.branch()
        return up[first : first + count] @ down

    def branch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The two matrices (rank, in) and (out, rank) float32, the scale within the second."""
        assert self.up is not None
        return whole(self.down).flatten(1), whole(self.up).flatten(1) * self.scale


def read_loras(
    files: Iterable[LoraFile],
    shapes: Mapping[str, Sequence[int]],
    rename: Rename | None,
    *,
    not_here: tuple[str, ...] = (),
) -> dict[str, list[Change]]:
    """What some LoRAs add to each tensor of a model, by the tensor's name.

    Args:
        files: The LoRAs, all of this model.
        shapes: Of the model's tensors by name.
        rename: Of the family's own names to diffusers'.
        not_here: What keys begin with that are for another component of the model.

    Raises:
        CannotRun: a file is missing or damaged.
        InvalidInput: a key matches no layer or is of a form that is not known, or shapes do not fit.
    """
    finder = NameFinder(shapes, rename)
    changes: defaultdict[str, list[Change]] = defaultdict(list)
    for file in files:
        for name, change in _read(file, shapes, finder, not_here):
            changes[name].append(change)
    return dict(changes)


def _read(
    file: LoraFile, shapes: Mapping[str, Sequence[int]], finder: NameFinder, not_here: tuple[str, ...]
) -> Iterable[tuple[str, Change]]:
    layers: defaultdict[str, dict[str, tuple[str, StoredTensor]]] = defaultdict(dict)
    unknown: list[str] = []
    tensors = file_tensors(file.path)
    for key, tensor in tensors.items():
        if key.startswith(not_here):
            continue
        suffix = next((suffix for suffix in _PARTS if key.endswith(suffix)), None)
        if suffix is None:
            unknown.append(key)
        else:
            layers[key.removesuffix(suffix)][_PARTS[suffix]] = (key, tensor)
    found: list[tuple[str, Change]] = []
    for layer, parts in layers.items():
        for part in parts.keys() & _TARGETS.keys():
            key, tensor = parts[part]
            target = next((t for end in _TARGETS[part] if (t := finder.find(layer + end))), None)
            if target is None:
                unknown.append(key)
            else:
                found.append((target, Change(tensor, None, file.scale, shapes[target][0])))
        if "down" in parts or "up" in parts or "alpha" in parts:
            target = finder.find(f"{layer}.weight")
            if target is None or not {"down", "up"} <= parts.keys():
                unknown += [parts[part][0] for part in ("down", "up", "alpha") if part in parts]
                continue
            down, up = parts["down"][1], parts["up"][1]
            alpha = float(whole(parts["alpha"][1])) if "alpha" in parts else float(down.shape[0])
            found.append((target, Change(down, up, file.scale * alpha / down.shape[0], shapes[target][0])))
    if unknown:
        raise InvalidInput(
            f"{len(unknown)} of the {len(tensors)} keys of {file.path} match no layer of the model "
            f"({sorted(unknown)[0]}, ...): it was made for another model, or is no LoRA of a form that is "
            "read (lora_A and lora_B, lora_down and lora_up, diff, diff_b)",
            param="loras",
        )
    for name, change in found:
        _check(file.path, name, change, shapes[name])
    return found


def _check(path: Path, name: str, change: Change, shape: Sequence[int]) -> None:
    down, up = change.down.shape, change.up.shape if change.up is not None else None
    if up is None:
        fits = [n for n in down if n != 1] == [n for n in shape if n != 1]
    else:
        rank = down[0]
        fits = math.prod(up) == shape[0] * rank and math.prod(down) == rank * math.prod(shape[1:])
    if not fits:
        what = down if up is None else f"{up} x {down}"
        raise InvalidInput(
            f"{path} changes {name} by {what}, but the model's is {tuple(shape)}: it was made for another "
            "model",
            param="loras",
        )
