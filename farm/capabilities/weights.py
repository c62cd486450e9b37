"""Which weights a model runs with: files in place of its own, LoRAs, and the format they are kept in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from farm.errors import InvalidInput
from farm.values import Value

#: Of a model with two denoisers: the one for high noise levels, or the one for low.
Part = Literal["high", "low"]
#: ``bf16``: every weight in the 16 bits a card computes in (32 on a CPU). Else the weights of linear layers
#: are float8 (e4m3) or int8 with a scale for each output channel, and the rest has 16 bits.
WeightFormat = Literal["bf16", "float8", "int8"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("bf16", "float8", "int8")

#: Each is read in 64 places for its fingerprint, whenever a plan is made.
MAX_LORAS = 32

#: The formats that are read, by the ends of their files' names.
_ENDS = (".safetensors", ".gguf")


class _PartFile(Value):
    """A file for one of two denoisers; without a part, for the one or for both.

    ``path`` is absolute, the same on every machine, or relative to the weights folder of the farm's.
    """

    path: Path
    part: Part | None = None
    #: Of its content, as the planner found it; "": not looked at yet.
    fingerprint: str = ""

    def __str__(self) -> str:
        return f"{self.part}={self.path}" if self.part else str(self.path)


class WeightFile(_PartFile):
    """A transformer in one file, GGUF or safetensors, in place of the one of a model's folder."""

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        """``[high=|low=]FILE``.

        Raises:
            InvalidInput: no file is named, or one of a kind that is not read.
        """
        if not isinstance(value, str):
            return value
        part, name = _part_of(value)
        if not name.endswith(_ENDS):
            raise _not_read(value, "weights", "[high=|low=]FILE with a .gguf or .safetensors file", name)
        return {"part": part, "path": name}

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"


class LoraFile(_PartFile):
    """A LoRA, and how strongly it is added."""

    #: Finite however it comes: JSON has no other numbers, and a journal keeps it.
    scale: float = Field(default=1.0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        """``[high=|low=]FILE[:SCALE]``; without a scale it is 1.

        Raises:
            InvalidInput: no safetensors file is named, or the scale is no finite number.
        """
        if not isinstance(value, str):
            return value
        part, rest = _part_of(value)
        name, colon, number = rest.rpartition(":")
        if not colon or rest.endswith(".safetensors"):
            name, number = rest, "1"
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not name.endswith(".safetensors") or not math.isfinite(scale):
            expected = (
                "[high=|low=]FILE[:SCALE] with a .safetensors file and a number, "
                "like high=lightning.safetensors:0.8"
            )
            raise _not_read(value, "loras", expected, name)
        return {"part": part, "path": name, "scale": scale}

    def __str__(self) -> str:
        return super().__str__() + (f":{self.scale:g}" if self.scale != 1 else "")


class Weights(Value):
    """What a model's transformer is made of; nothing: the weights of its folder, as they are."""

    files: tuple[WeightFile, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    #: None: as the files are, where these have fewer bits, else 16.
    format: WeightFormat | None = None

    def __str__(self) -> str:
        """In words, for logs; "" where nothing is chosen."""
        said = [*map(str, self.files), *(f"LoRA {lora}" for lora in self.loras), self.format]
        return ", ".join(filter(None, said))


#: A model's own, as they are.
OWN_WEIGHTS = Weights()


def check_weights(weights: Weights) -> None:
    """Refuse files that contradict each other, before any is looked at.

    Raises:
        InvalidInput: names the parameter, what it was and what it may be.
    """
    if len(weights.loras) > MAX_LORAS:
        raise InvalidInput(f"got {len(weights.loras)} LoRAs, at most {MAX_LORAS} are taken", param="loras")
    parts = [file.part for file in weights.files]
    if len(set(parts)) < len(parts) or (None in parts and len(parts) > 1):
        raise InvalidInput(
            f"weights are {', '.join(map(str, weights.files))}: give one file, or one for high and one "
            "for low",
            param="weights",
        )
    gguf = next((file for file in weights.files if file.is_gguf), None)
    if gguf is not None and weights.format is not None:
        raise InvalidInput(
            f"weight_format is {weights.format}, and {gguf.path.name} has a format of its own; "
            "leave one of them out",
            param="weight_format",
        )
    for name, files in (("weights", weights.files), ("loras", weights.loras)):
        for file in files:
            if not file.path.is_absolute() and ".." in file.path.parts:
                raise InvalidInput(
                    f"{name}: {file.path} leads out of the weights folder; give a name in it, or an "
                    "absolute path",
                    param=name,
                )


def _part_of(text: str) -> tuple[Part | None, str]:
    parts: tuple[Part, ...] = ("high", "low")
    for part in parts:
        if text.startswith(f"{part}="):
            return part, text.removeprefix(f"{part}=")
    return None, text


def _not_read(text: str, param: str, expected: str, name: str) -> InvalidInput:
    why = ""
    if name.endswith((".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")):
        why = "; a pickled checkpoint is a program, and is never opened: convert it to safetensors"
    return InvalidInput(f"{param}: {text!r}, expected {expected}{why}", param=param)
