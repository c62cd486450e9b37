"""The weight files and LoRAs of this machine: where they lie, whether they are the ones that are meant."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from farm.capabilities import LoraFile, WeightFile, Weights
from farm.errors import CannotRun
from nodes.engines.folders.headers import metadata_of
from nodes.model_store import folder_of

#: Where a machine keeps weight files that are asked for by name.
FOLDER_VARIABLE = "REELFARM_WEIGHTS"
#: A fingerprint is of so many blocks, evenly spread, of so many bytes: a LoRA's next version has the same
#: size and header.
_BLOCKS = 64
_BLOCK_BYTES = 64 * 2**10

_KEPT_AS = "weights@"

_File = TypeVar("_File", WeightFile, LoraFile)


def weights_folder() -> Path:
    """``$REELFARM_WEIGHTS``, else ``~/.local/share/reelfarm/weights``."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "reelfarm" / "weights"


def weights_key(fingerprint: str) -> str:
    """What a file that came from the farm is kept as (see ``nodes.model_store``)."""
    return f"{_KEPT_AS}{fingerprint}"


def is_weights_key(key: str) -> bool:
    """Whether what is kept as that is a file of weights."""
    return key.startswith(_KEPT_AS)


def found_here(weights: Weights) -> Weights:
    """The same weights, each file by its path on this machine and with the fingerprint of what is there.

    Raises:
        CannotRun: a file is not here, or is another than the one whose fingerprint it comes with.
    """
    files = tuple(_found(file, "weights") for file in weights.files)
    loras = tuple(_found(lora, "loras") for lora in weights.loras)
    return weights.model_copy(update={"files": files, "loras": loras})


def _found(file: _File, param: str) -> _File:
    path = file.path if file.path.is_absolute() else weights_folder() / file.path
    if file.fingerprint:  # as it was planned with: where the planner has it, by its name, or from the farm
        brought = folder_of(weights_key(file.fingerprint))
        for place in (path, weights_folder() / file.path.name, brought / file.path.name):
            if place.is_file() and _fingerprint(place) == file.fingerprint:
                return file.model_copy(update={"path": place})
    if not path.is_file():
        where = f"{path} is no file" if file.path.is_absolute() else f"{file.path} is not in {path.parent}"
        raise CannotRun(f"{where} on this machine: copy it there", param=param)
    fingerprint = _fingerprint(path)
    if file.fingerprint not in ("", fingerprint):
        raise CannotRun(
            f"{path} is another file than the one the job was planned with: copy that one there", param=param
        )
    return file.model_copy(update={"path": path, "fingerprint": fingerprint})


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for offset in sorted({max(0, size - _BLOCK_BYTES) * i // (_BLOCKS - 1) for i in range(_BLOCKS)}):
            file.seek(offset)
            found.update(file.read(_BLOCK_BYTES))
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class StepsOfLora:
    """How a LoRA says in its header that it wants to be run."""

    name: str
    num_inference_steps: int
    #: None: it does not say.
    guidance_scale: float | None


def steps_of(loras: Sequence[LoraFile]) -> StepsOfLora | None:
    """What the first LoRA says that says it, as ``num_inference_steps`` and ``guidance_scale`` in its header.

    Raises:
        CannotRun: one is truncated or no safetensors file.
    """
    for lora in loras:
        said = metadata_of(lora.path)
        try:
            steps = int(said["num_inference_steps"])
            guidance = float(said["guidance_scale"]) if "guidance_scale" in said else None
        except (KeyError, ValueError):
            continue
        if 1 <= steps <= 1000:
            return StepsOfLora(lora.path.name, steps, guidance)
    return None
