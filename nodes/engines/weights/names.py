"""The names that others give to a model's tensors, as diffusers gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

_Value = TypeVar("_Value")

#: One of diffusers' ``convert_..._to_diffusers``: a dict by other names to one by diffusers'. It is called
#: with names alone, so it must rename and compute nothing.
Rename = Callable[[dict[str, str]], dict[str, str]]

#: What tools put before every name.
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "base_model.model.", "transformer.")


def without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def renamed(
    tensors: Mapping[str, _Value], known: Collection[str], rename: Rename | None
) -> Mapping[str, _Value]:
    """The same tensors by diffusers' names: as they are, without a prefix or renamed, as most of them fit.

    Args:
        tensors: By the names of a file.
        known: The names that the model has.
        rename: The family's conversion from the names its authors use; None where there is none.
    """
    plain = {without_prefix(name): value for name, value in tensors.items()}
    ways: list[Mapping[str, _Value]] = [tensors, plain]
    if rename is not None:
        originals = rename({name: name for name in plain})
        ways.append({name: plain[original] for name, original in originals.items()})
    wanted = set(known)
    return max(ways, key=lambda way: len(way.keys() & wanted))
