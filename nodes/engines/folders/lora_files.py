"""How users name LoRAs and weight files: ``[high=|low=]FILE[:SCALE]``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from farm.errors import InvalidInput

#: Of a model with two denoisers: the one for high noise levels, or the one for low.
Expert = Literal["high", "low"]


@dataclass(frozen=True)
class WeightFile:
    """A file that takes a denoiser's place; None where the model has one denoiser, or for both."""

    path: Path
    expert: Expert | None = None


@dataclass(frozen=True)
class LoraFile:
    """A LoRA, how strongly it is added, and to which of two denoisers; None for the one, or for both."""

    path: Path
    scale: float = 1.0
    expert: Expert | None = None


def weight_file(text: str) -> WeightFile:
    """Parse ``[high=|low=]FILE``.

    Raises:
        InvalidInput: no file is named.
    """
    expert, name = _expert_of(text)
    if not name:
        raise InvalidInput(f"weights are {text!r}: expected [high=|low=]FILE", param="weights")
    return WeightFile(Path(name), expert)


def lora_file(text: str) -> LoraFile:
    """Parse ``[high=|low=]FILE[:SCALE]``; without a scale it is 1.

    Raises:
        InvalidInput: no safetensors file is named, or the scale is no finite number.
    """
    expert, rest = _expert_of(text)
    name, colon, number = rest.rpartition(":")
    if not colon or rest.endswith(".safetensors"):
        name, number = rest, "1"
    try:
        scale = float(number)
    except ValueError:
        scale = math.nan
    if not name.endswith(".safetensors") or not math.isfinite(scale):
        raise InvalidInput(
            f"lora is {text!r}: expected [high=|low=]FILE[:SCALE] with a .safetensors file and a number, "
            "like high=lightning.safetensors:0.8",
            param="lora",
        )
    return LoraFile(Path(name), scale, expert)


def _expert_of(text: str) -> tuple[Expert | None, str]:
    for expert in ("high", "low"):
        if text.startswith(f"{expert}="):
            return expert, text.removeprefix(f"{expert}=")
    return None, text
