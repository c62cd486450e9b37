"""How weights are kept on disk and in host memory: which tensors in fewer bits, and what that comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

#: ``plain``: every tensor in the dtype of computation. Else the weights of linear layers are float8 (e4m3) or
#: int8 with a float32 scale for each output channel, and the rest is plain.
WeightFormat = Literal["plain", "float8", "int8"]


def is_quantised(name: str, shape: Sequence[int], kept: Sequence[str]) -> bool:
    """Whether a format in fewer bits takes this tensor: a matrix that nothing in ``kept`` matches.

    Args:
        name: Of the tensor in its component, with dots: ``blocks.0.attn1.to_q.weight``.
        shape: Of the tensor.
        kept: Parts of names that stay plain; ``.wo.`` matches a whole name between dots.
    """
    return name.endswith(".weight") and len(shape) == 2 and not any(part in f".{name}." for part in kept)
