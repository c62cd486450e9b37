"""Named settings for what is wanted most often. Pure: a preset is a few options, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from farm.errors import InvalidInput
from farm.values import Value


class Preset(Value):
    name: str
    title: str
    #: What it is for and what it costs, in a sentence or two.
    description: str
    #: Fields of a ``JobRequest``.
    options: dict[str, Any]
    #: The inputs it is for.
    suits: tuple[Literal["image", "video"], ...] = ("image", "video")


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="standard",
        title="Standard",
        description="The model's own steps, in the mode that is done soonest here.",
        options={},
    ),
    Preset(
        name="preview",
        title="Preview",
        description="A quick look in the model's fewest steps: the same motion, without fine detail.",
        options={"preview": True},
    ),
    Preset(
        name="careful",
        title="Careful",
        description=(
            "Each window goes on from the one before instead of over a draft: the finest detail, "
            "and the longest wait, for only one worker renders a shot at a time."
        ),
        options={"mode": "chain"},
        suits=("image",),
    ),
    Preset(
        name="touch-up",
        title="Touch-up",
        description="The input video stays as it is but for its surface: a third of the way to the prompt.",
        options={"strength": 0.35},
        suits=("video",),
    ),
    Preset(
        name="restyle",
        title="Restyle",
        description="Of the input video only layout and motion stay: most of the way to the prompt.",
        options={"strength": 0.85},
        suits=("video",),
    ),
)


def preset(name: str) -> Preset:
    """
    Raises:
        InvalidInput: there is none of that name.
    """
    found = next((p for p in PRESETS if p.name == name), None)
    if found is None:
        names = ", ".join(p.name for p in PRESETS)
        raise InvalidInput(f"preset is {name!r}, expected one of {names}", param="preset")
    return found


def apply(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """These options, and what the preset says of the rest: what is given wins.

    Args:
        name: Of the preset.
        options: Fields of a ``JobRequest``; those left out, None or ``mode`` "auto" are the preset's to set.

    Raises:
        InvalidInput: there is no preset of that name.
    """
    given = {f: value for f, value in options.items() if value is not None and (f, value) != ("mode", "auto")}
    return {**options, **preset(name).options, **given}
