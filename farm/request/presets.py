"""Named settings for what is wanted most often. Pure: a preset is a few options, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from farm.errors import InvalidInput
from farm.values import Value


class Level(Value):
    """Size, frames and steps by name; which of them a model takes is the planner's to find."""

    #: The frames have the area of a square of so many pixels a side, in the shape of the input.
    side_px: int
    window_frames: int
    #: An engine that is made for fewer than ``MIN_STEPS`` keeps its own number.
    num_inference_steps: int


#: Who takes fewer by default is made for few: more of them make nothing better there.
MIN_STEPS = 20


class Preset(Value):
    name: str
    title: str
    #: What it is for and what it costs, in a sentence or two.
    description: str
    #: Fields of a ``JobRequest``.
    options: dict[str, Any]
    #: The inputs it is for.
    suits: tuple[Literal["text", "image", "video"], ...] = ("text", "image", "video")
    level: Level | None = None


PRESETS: tuple[Preset, ...] = (
    Preset(
        name="plain",
        title="As the model has it",
        description="The model's own size and steps, in the mode that is done soonest here.",
        options={},
    ),
    Preset(
        name="preview",
        title="Preview",
        description="A quick look: 256 pixels, windows of 8 frames, 30 steps, 24 frames a second.",
        options={"preview": True, "deliver_fps": 24},
        level=Level(side_px=256, window_frames=8, num_inference_steps=30),
    ),
    Preset(
        name="standard",
        title="Standard",
        description="512 pixels, windows of 16 frames, 50 steps, 24 frames a second.",
        options={"deliver_fps": 24},
        level=Level(side_px=512, window_frames=16, num_inference_steps=50),
    ),
    Preset(
        name="high",
        title="High",
        description="768 pixels, windows of 24 frames, 60 steps, 24 frames a second.",
        options={"deliver_fps": 24},
        level=Level(side_px=768, window_frames=24, num_inference_steps=60),
    ),
    Preset(
        name="careful",
        title="Careful",
        description=(
            "Each window goes on from the one before instead of over a draft: the finest detail, "
            "and the longest wait, for only one worker renders a shot at a time."
        ),
        options={"mode": "chain"},
        suits=("text", "image"),
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
    return {**options, "preset": name, **preset(name).options, **given}
