"""Reading what people type of a video: its size, its rate and its settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from farm.capabilities import MODES, WEIGHT_FORMATS, LoraFile, WeightFile
from farm.errors import InvalidInput
from farm.request.job import FITS
from farm.request.media import FrameRate
from farm.request.presets import apply

#: It comes with the farm and renders on any CPU.
DEFAULT_MODEL = "tiny_wan"

_File = TypeVar("_File", WeightFile, LoraFile)

_frame_rate: TypeAdapter[Fraction] = TypeAdapter(FrameRate)


def parse_size(text: str) -> tuple[int, int]:
    """``512x512`` -> (width, height)."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if not found:
        raise InvalidInput(f"size is {text!r}, expected WIDTHxHEIGHT such as 512x512", param="size")
    return int(found[1]), int(found[2])


def parse_fps(text: str, param: str = "fps") -> Fraction:
    """``8``, ``29.97`` or ``30000/1001``."""
    try:
        return _frame_rate.validate_python(text)
    except ValidationError:
        raise InvalidInput(
            f"{param} is {text!r}, expected a number such as 8 or 30000/1001", param=param
        ) from None


def model_here(name: str) -> str:
    """A model's folder, or file, by its whole path where it is on this machine; else its name, as it is."""
    path = Path(name)
    is_path = path.exists() if "/" in name else (path / "model_index.json").is_file()
    return str(path.absolute()) if is_path else name


def file_here(file: _File) -> _File:
    """A weight file by its whole path where it is on this machine; else its name in the weights folder."""
    return file.model_copy(update={"path": file.path.absolute()}) if file.path.exists() else file


def request_options(
    *,
    prompts: Sequence[str],
    negative_prompt: str,
    model: str,
    mode: str,
    weights: Sequence[WeightFile] = (),
    loras: Sequence[LoraFile] = (),
    weight_format: str | None = None,
    draft_model: str | None = None,
    seconds: float | None,
    frames: int | None,
    fps: str | None,
    deliver_fps: str | None = None,
    size: str | None,
    fit: str,
    audio: Path | None,
    mask: Path | None = None,
    references: Sequence[Path] = (),
    window: int | None,
    overlap: int | None,
    steps: int | None,
    guidance: float | None,
    strength: float | None,
    seed: int,
    priority: int,
    review: bool = False,
    preview: bool = False,
    preset: str | None = None,
) -> dict[str, Any]:
    """The fields of a ``JobRequest`` but its inputs, from the command line's words; ``audio``, ``mask`` and
    ``references`` as paths.

    Raises:
        InvalidInput: a mode, a size, a preset or a format that is none, or a preview with steps of its own.
    """
    if preview and preset is not None:
        raise InvalidInput(f"--preview and --preset {preset} are both given; give one", param="preset")
    if preview and steps is not None:
        raise InvalidInput(
            f"steps is {steps} and --preview takes the model's fewest; give one of them", param="steps"
        )
    if mode != "auto" and mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}, expected one of auto, {', '.join(MODES)}", param="mode")
    if fit not in FITS:
        raise InvalidInput(f"fit is {fit!r}, expected one of {', '.join(FITS)}", param="fit")
    if weight_format is not None and weight_format not in WEIGHT_FORMATS:
        known = ", ".join(WEIGHT_FORMATS)
        raise InvalidInput(
            f"weight_format is {weight_format!r}, expected one of {known}", param="weight_format"
        )
    width, height = (None, None) if size is None else parse_size(size)
    options = {
        "prompts": tuple(prompts) or ("",),
        "negative_prompt": negative_prompt,
        "model": model,
        "weights": tuple(weights),
        "loras": tuple(loras),
        "weight_format": weight_format,
        "mode": mode,
        "draft_model": draft_model,
        "seconds": seconds,
        "num_frames": frames,
        "fps": None if fps is None else parse_fps(fps),
        "deliver_fps": None if deliver_fps is None else parse_fps(deliver_fps, "deliver_fps"),
        "width": width,
        "height": height,
        "fit": fit,
        "audio": audio,
        "mask": mask,
        "references": tuple(references),
        "window_frames": window,
        "overlap_frames": overlap,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "strength": strength,
        "seed": seed,
        "priority": priority,
        "review": review,
    }
    if preview:
        options["preview"] = True
    return options if preset is None else apply(preset, options)
