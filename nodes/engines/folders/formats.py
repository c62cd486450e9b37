"""How weights are kept on disk and in host memory: which tensors in fewer bits, and what that comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nodes.engines.folders.stored_tensors import PLAIN_TYPES, StoredTensor

#: ``plain``: every tensor in the dtype of computation. Else the weights of linear layers are float8 (e4m3) or
#: int8 with a float32 scale for each output channel, and the rest is plain.
WeightFormat = Literal["plain", "float8", "int8"]


@dataclass(frozen=True)
class Kept:
    """What of a model stays out of formats in fewer bits.

    Args:
        plain: Parts of tensors' names: in the dtype of computation. ``.wo.`` is a whole name between dots.
        float32: Whole names between dots: in float32, whatever the dtype of computation.
    """

    plain: tuple[str, ...] = ()
    float32: tuple[str, ...] = ()

    def quantises(self, name: str, shape: Sequence[int]) -> bool:
        """Whether a format in fewer bits takes a tensor: a matrix that is not kept."""
        is_matrix = name.endswith(".weight") and len(shape) == 2
        return is_matrix and not self.is_float32(name) and not any(part in f".{name}." for part in self.plain)

    def is_float32(self, name: str) -> bool:
        return any(part in name.split(".") for part in self.float32)


def stored_bytes(
    tensors: Mapping[str, StoredTensor], format: WeightFormat, *, kept: Kept, dtype_bytes: int = 2
) -> int:
    """Bytes of a component's weights when they are kept in ``format``, from headers alone.

    Tensors that a file has in fewer bits already (GGUF, float8) stay as they are.

    Args:
        tensors: Of its files, by name (see ``component_tensors``, ``stored_tensors``).
        kept: What its model keeps.
        dtype_bytes: Of the dtype of computation.
    """

    def of(name: str, tensor: StoredTensor) -> int:
        if tensor.type not in PLAIN_TYPES:
            return tensor.nbytes
        elements = math.prod(tensor.shape)
        if format != "plain" and kept.quantises(name, tensor.shape):
            return elements + 4 * tensor.shape[0]
        return elements * (4 if kept.is_float32(name) else dtype_bytes)

    return sum(of(name, tensor) for name, tensor in tensors.items())
