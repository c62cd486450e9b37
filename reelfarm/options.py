"""What may be asked for of a video, by keyword."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

from typing_extensions import TypedDict

from farm.capabilities import LoraFile, WeightFile
from farm.errors import InvalidInput
from farm.request import DEFAULT_MODEL, JobRequest, file_here, presets

#: A file, or several images.
Inputs: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Options(TypedDict, total=False):
    """What may be asked for beside inputs and prompt; whatever is left out is decided by the plan.

    Length and shape
        seconds: float, or num_frames: int. Length of the video; 4 s for each picture, or the input video's.
        fps: Frames a second: 8, 29.97, ``Fraction(30000, 1001)`` or "30000/1001".
        deliver_fps: Frames a second of the finished video, likewise: those between are interpolated.
        width, height: Pixels; the input's shape at the model's own area.
        fit: How an input of another shape fills them: "crop", "pad" or "stretch".

    What is made
        model: A name that ``farm models`` lists, or a model folder; "tiny_wan".
        mode: "auto", "independent", "chain", "refine" or "infill".
        negative_prompt: What should not be seen.
        seed: Same seed, same video; 0.
        num_inference_steps, guidance_scale: The model's own.
        strength: How far an input video is changed, above 0 to 1.
        preview: A quick look: the same motion in the model's fewest steps.
        preset: Settings by name ("careful", "restyle", ...); what is given besides wins.
        clip: An animated GIF, WebP, PNG or AVIF is a video to restyle.
        audio: A file with sound for the video; a restyled video keeps its own.
        mask: Where an input video is changed (white), a picture or a video; for a model that takes one.
        references: Pictures of what is to be seen, likewise; one or several.

    How it is made
        window_frames, overlap_frames: Frames of a segment, and shared by neighbours.
        draft_model: A lighter model for the keyframes of "infill".
        weights, loras: Files, "[high=|low=]FILE", of a LoRA with ":SCALE" behind; one or several.
        weight_format: "bf16", "float8" or "int8"; what fits.
        priority: 0 to 100, higher first; 50.
        review: Wait for you after its keyframes (``farm review``).
    """

    audio: str | os.PathLike[str]
    clip: bool
    draft_model: str
    fit: Literal["crop", "pad", "stretch"]
    fps: float | str | Fraction
    deliver_fps: float | str | Fraction
    guidance_scale: float
    height: int
    loras: str | Sequence[str]
    mask: str | os.PathLike[str]
    mode: Literal["auto", "independent", "chain", "refine", "infill", "co_denoise"]
    model: str | os.PathLike[str]
    negative_prompt: str
    num_frames: int
    num_inference_steps: int
    overlap_frames: int
    preset: str
    preview: bool
    priority: int
    references: Inputs
    review: bool
    seconds: float
    seed: int
    strength: float
    weight_format: Literal["bf16", "float8", "int8"]
    weights: str | Sequence[str]
    width: int
    window_frames: int


def paths_of(inputs: Inputs) -> list[Path]:
    """The files that are meant; none for words alone."""
    return [Path(inputs)] if isinstance(inputs, str | os.PathLike) else [Path(each) for each in inputs]


def job_options(prompt: str | Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ``JobRequest`` but its inputs, and ``clip`` where it is true; files as paths.

    Args:
        prompt: One for all inputs, or one for each; without inputs one for each shot.
        options: Of ``Options``.

    Raises:
        InvalidInput: there is no option of that name, or no such preset.
    """
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        known = ", ".join(sorted(Options.__annotations__))
        raise InvalidInput(f"{unknown[0]} is no option; there are {known}", param=unknown[0])
    given = {name: value for name, value in options.items() if value is not None}
    preset = given.pop("preset", None)
    for name in ("audio", "mask"):
        if name in given:
            given[name] = Path(given[name])
    if "references" in given:
        given["references"] = tuple(paths_of(given["references"]))
    if "model" in given:
        given["model"] = os.fspath(given["model"])
    if "weights" in given:
        given["weights"] = tuple(file_here(WeightFile.model_validate(t)) for t in _texts(given["weights"]))
    if "loras" in given:
        given["loras"] = tuple(file_here(LoraFile.model_validate(t)) for t in _texts(given["loras"]))
    if given.get("clip") is False:
        del given["clip"]
    fields = {n: f.default for n, f in JobRequest.model_fields.items() if n not in ("inputs", "model")}
    chosen = {**fields, "model": DEFAULT_MODEL, "prompts": _texts(prompt), **given}
    return chosen if preset is None else presets.apply(preset, chosen)


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
