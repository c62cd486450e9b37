"""The names that others give to a model's tensors, as diffusers gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import product
from typing import TypeVar

_Value = TypeVar("_Value")

#: One of diffusers' ``convert_..._to_diffusers``: a dict by other names to one by diffusers'. It is called
#: with names alone, so it must rename and compute nothing.
Rename = Callable[[dict[str, str]], dict[str, str]]

#: What tools put before every name.
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "base_model.model.", "transformer.", "unet.")


def without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return without_prefix(name.removeprefix(prefix))
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


#: What kohya's tools put before a layer's name, in which they have underscores for dots.
_UNDERSCORED = ("lora_unet_", "lora_transformer_", "lycoris_", "lora_te_text_model_", "lora_te_")


class NameFinder:
    """Finds the tensor of a model that a name means, whoever gave it.

    Args:
        known: The names that the model has.
        rename: The family's conversion from the names its authors use; None where there is none.
    """

    def __init__(self, known: Collection[str], rename: Rename | None) -> None:
        self._known = set(known)
        self._rename = rename or (lambda names: names)
        #: Of layers' names but for their first number: where dots are.
        self._dots: dict[tuple[str, ...], tuple[str, ...] | None] = {}

    def find(self, name: str) -> str | None:
        """The model's own name, or None."""
        for prefix in _UNDERSCORED:
            if name.startswith(prefix):
                return self._underscored(name.removeprefix(prefix))
        return self._dotted(without_prefix(name))

    def _dotted(self, name: str) -> str | None:
        if name in self._known:
            return name
        return next((each for each in self._rename({name: name}) if each in self._known), None)

    def _underscored(self, name: str) -> str | None:
        """Try which underscores were dots, once for the layers of all blocks."""
        layer, _, rest = name.partition(".")
        words = layer.split("_")
        number = next((i for i, word in enumerate(words) if word.isdecimal()), None)
        pattern = (*("#" if i == number else word for i, word in enumerate(words)), rest)
        if pattern not in self._dots:
            self._dots[pattern] = self._dots_of(words, rest)
        dots = self._dots[pattern]
        return None if dots is None else self._dotted(_joined(words, dots, rest))

    def _dots_of(self, words: list[str], rest: str) -> tuple[str, ...] | None:
        if len(words) > _MAX_WORDS:
            return None
        ways = {_joined(words, dots, rest): dots for dots in product("._", repeat=len(words) - 1)}
        plain = next((dots for way, dots in ways.items() if way in self._known), None)
        if plain is not None:
            return plain
        others = self._rename({way: way for way in ways})  # takes much longer
        return next((ways[original] for name, original in others.items() if name in self._known), None)


#: Of an underscored name: two to this power are the ways to read it.
_MAX_WORDS = 12


def _joined(words: list[str], dots: tuple[str, ...], rest: str) -> str:
    layer = words[0] + "".join(dot + word for dot, word in zip(dots, words[1:], strict=True))
    return f"{layer}.{rest}" if rest else layer
