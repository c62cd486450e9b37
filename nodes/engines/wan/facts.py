"""What the weights of a Wan folder were trained for, when its ``farm.json`` does not say it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from farm.capabilities import Conditioning
from nodes.engines.folders import WeightedFacts

#: Which frames a window was given in training: its first; both ends; its last; its first few; a few at both
#: ends; one within.
KnownFrames = Literal["first", "first_and_last", "last", "first_k", "both_ends_k", "middle"]


class ModelFacts(WeightedFacts):
    """What no config of the folder says; each default is Wan 2.2 I2V-A14B's."""

    native_width: int = Field(832, gt=0)
    native_height: int = Field(480, gt=0)
    native_fps: int = Field(16, gt=0)
    #: The lowest frame rate in the training data.
    min_fps: float = Field(16.0, gt=0)
    window_frames: int = Field(81, ge=1)
    #: Windows the weights were trained on; the largest is the longest that is rendered.
    windows: tuple[int, ...] = Field((81,), min_length=1)
    default_steps: int = Field(40, ge=1)
    default_guidance_scale: float = Field(3.5, ge=0)
    default_strength: float = Field(0.5, gt=0, le=1)
    known_frames: tuple[KnownFrames, ...] = ("first", "first_and_last", "last")
    #: What else it was not trained for, of what its kind can be given.
    untrained: tuple[Conditioning, ...] = ()
    #: A multiple of what the shapes ask for.
    side_multiple: int | None = Field(None, gt=0)
    #: Tokens a prompt is padded or cut to.
    max_sequence_length: int = Field(512, gt=0)
    #: What the text encoder reads, of {prompt} and {fps}.
    prompt_template: str = "{prompt}"
    #: The frame rates that may be told in it; the nearest is. Empty: any.
    told_fps: tuple[float, ...] = ()
    #: In place of the scheduler's: sigma' = shift * sigma / (1 + (shift - 1) * sigma).
    flow_shift: float | None = Field(None, gt=0)
    #: The noise levels (0 to 1000) of a few-step model, for as many steps as there are.
    timesteps: tuple[float, ...] = ()
    #: ``renoise``: to the next level with fresh noise, as models distilled by distribution matching step.
    solver: Literal["euler", "renoise"] = "euler"


class InPlaceFacts(ModelFacts):
    """Each default is Wan 2.2 TI2V-5B's."""

    native_width: int = Field(1280, gt=0)
    native_height: int = Field(704, gt=0)
    native_fps: int = Field(24, gt=0)
    min_fps: float = Field(24.0, gt=0)
    window_frames: int = Field(121, ge=1)
    windows: tuple[int, ...] = Field((121,), min_length=1)
    default_steps: int = Field(50, ge=1)
    default_guidance_scale: float = Field(5.0, ge=0)
    known_frames: tuple[KnownFrames, ...] = ("first",)


class VaceFacts(ModelFacts):
    """Each default is Wan 2.1 VACE-1.3B's."""

    default_steps: int = Field(50, ge=1)
    default_guidance_scale: float = Field(5.0, ge=0)
    known_frames: tuple[KnownFrames, ...] = (
        "first",
        "first_and_last",
        "last",
        "first_k",
        "both_ends_k",
        "middle",
    )


def told_prompt(facts: ModelFacts, prompt: str, fps: float) -> str:
    """What the text encoder reads of a prompt for video of that rate (see ``prompt_template``)."""
    told = min(facts.told_fps, key=lambda rate: max(rate / fps, fps / rate), default=fps)
    return facts.prompt_template.format(prompt=prompt, fps=told)
