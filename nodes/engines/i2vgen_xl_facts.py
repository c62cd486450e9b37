"""What the weights of a model folder were trained for: ``farm.json`` beside ``model_index.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from farm.errors import CannotRun
from farm.values import Value

FACTS_NAME = "farm.json"


class ModelFacts(Value):
    """Fields of ``EngineSpec`` that no config of the folder says; each default is the published model's."""

    native_width: int = Field(1280, gt=0)
    native_height: int = Field(704, gt=0)
    native_fps: int = Field(8, gt=0)
    window_frames: int = Field(8, ge=1, le=32)
    default_steps: int = Field(50, ge=1)
    default_guidance_scale: float = Field(9.0, ge=0)
    default_strength: float = Field(0.6, gt=0, le=1)
    #: The lowest frame rate in the training data.
    min_fps: float = Field(4.0, gt=0)


def model_facts(folder: Path) -> ModelFacts:
    """The facts of a model folder; without the file the published model's.

    Raises:
        CannotRun: the file is not JSON, or a key or a value is none of ``ModelFacts``.
    """
    path = folder / FACTS_NAME
    if not path.is_file():
        return ModelFacts()
    try:
        return ModelFacts.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            reason = f"{first['loc'][0]} is not known; known are {', '.join(ModelFacts.model_fields)}"
        else:
            where = ".".join(map(str, first["loc"])) or "the file"
            reason = f"{where}: {first['msg'].lower()}"
        raise CannotRun(f"{path} cannot be read ({reason}): correct it, or remove it") from error
