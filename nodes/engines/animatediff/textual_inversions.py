"""Textual inversions: words that a text encoder was taught, one or several vectors each, without torch.

They come as LoRAs do (``Weights.loras``) and are told from them by their tensors. As diffusers saves one, its
tensor is called by its word; others call it ``emb_params``, and the word is the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.capabilities import LoraFile
from farm.errors import InvalidInput
from nodes.engines.folders import StoredTensor, WeightSource, file_tensors, not_finite, read_json

_NAMED_BY_ITS_FILE = ("emb_params", "<concept>")


@dataclass(frozen=True)
class TextualInversion:
    word: str
    #: (vectors, width), or (width,) of one.
    tensor: StoredTensor

    @property
    def num_vectors(self) -> int:
        return self.tensor.shape[0] if len(self.tensor.shape) > 1 else 1

    @property
    def tokens(self) -> list[str]:
        """What its vectors are called: the word, and numbers behind it."""
        return [self.word, *(f"{self.word}_{i}" for i in range(1, self.num_vectors))]


def without_inversions(source: WeightSource) -> tuple[WeightSource, tuple[TextualInversion, ...]]:
    """The same weights without what are textual inversions among their LoRAs, and these.

    Raises:
        CannotRun: a file is missing or damaged.
    """
    found = {lora: _inversion(lora.path) for lora in source.loras}
    loras = tuple(lora for lora, inversion in found.items() if inversion is None)
    return replace(source, loras=loras), tuple(each for each in found.values() if each is not None)


def _inversion(path: Path) -> TextualInversion | None:
    tensors = file_tensors(path)
    if len(tensors) != 1:
        return None
    name, tensor = next(iter(tensors.items()))
    if len(tensor.shape) not in (1, 2) or "lora" in name or name.endswith((".alpha", ".diff", ".diff_b")):
        return None
    return TextualInversion(path.stem if name in _NAMED_BY_ITS_FILE else name, tensor)


def check_inversions(
    inversions: Sequence[TextualInversion], loras: Iterable[LoraFile], folder: Path, *, width: int, model: str
) -> None:
    """Refuse textual inversions that the text encoder of a folder cannot be taught.

    Args:
        inversions: As ``without_inversions`` gives them.
        loras: All that were asked for.
        folder: The model's.
        width: Of an embedding of its text encoder.
        model: Its name, for refusals.

    Raises:
        InvalidInput: one is of another width, holds values that are not finite, has a scale, or its word is
            known already.
    """
    known = set(read_json(folder, "tokenizer/vocab.json"))
    scaled = {lora.path for lora in loras if lora.scale != 1}
    for each in inversions:
        path = each.tensor.path
        problem = None
        if each.tensor.shape[-1] != width:
            problem = (
                f"has vectors of {each.tensor.shape[-1]} numbers, and the text encoder of {model} reads "
                f"{width}: it was made for another model"
            )
        elif not_finite({each.word: each.tensor}) is not None:
            problem = "holds values that are not finite: it is damaged; give another"
        elif path in scaled:
            problem = "is a textual inversion, which has no scale; leave it out"
        elif known & {*each.tokens}:
            problem = f"teaches {each.word}, a word that {model} knows; rename the file"
        if problem:
            raise InvalidInput(f"{path} {problem}", param="loras")
        known |= {*each.tokens}


def with_every_vector(prompt: str, inversions: Sequence[TextualInversion]) -> str:
    """A prompt with each word that has several vectors followed by those."""
    tokens: Mapping[str, str] = {each.word: " ".join(each.tokens) for each in inversions}
    if not tokens:
        return prompt
    words = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    return re.sub(words, lambda found: tokens[found[0]], prompt)
