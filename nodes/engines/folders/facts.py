"""What the weights of a model folder were trained for: ``farm.json`` beside ``model_index.json``."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from farm.capabilities import WeightFormat
from farm.complaints import complaint
from farm.errors import CannotRun
from farm.values import Value

FACTS_NAME = "farm.json"


class FolderFacts(Value):
    """What a folder of any family may say; each family adds its own."""

    #: Fields of ``EngineSpec``.
    preview_steps: int = Field(3, ge=1)
    trained_sides: tuple[int, int] | None = None
    vocabulary: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class WeightedFacts(FolderFacts):
    """The same of a family whose weights may be kept in fewer bits."""

    #: How near a window is to that in 16 bits with its weights in a format, in dB (peak: white), where it was
    #: measured.
    format_db: dict[WeightFormat, float] = Field(default_factory=dict)


_Facts = TypeVar("_Facts", bound=FolderFacts)


def model_facts(folder: Path, kind: type[_Facts]) -> _Facts:
    """The facts of a model folder; without the file the family's defaults.

    Args:
        folder: May hold a ``farm.json``.
        kind: The family's facts: fields of ``EngineSpec`` that no config of its folders says.

    Raises:
        CannotRun: the file is not JSON, or a key or a value is none of ``kind``.
    """
    path = folder / FACTS_NAME
    if not path.is_file():
        return kind()
    try:
        return kind.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            reason = f"{first['loc'][0]} is not known; known are {', '.join(kind.model_fields)}"
        else:
            where = ".".join(map(str, first["loc"])) or "the file"
            reason = f"{where}: {complaint(first)}"
        raise CannotRun(f"{path} cannot be read ({reason}): correct it, or remove it") from error
