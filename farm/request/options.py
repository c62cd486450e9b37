"""Reading what people type of a video: its size, its rate, its settings, where it is to go."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from farm.capabilities import MODES
from farm.errors import InvalidInput
from farm.request.media import FrameRate
from farm.request.presets import PREVIEW_STEPS, apply

#: It comes with the farm and renders on any CPU.
DEFAULT_MODEL = "tiny_i2v"

_frame_rate: TypeAdapter[Fraction] = TypeAdapter(FrameRate)


def parse_size(text: str) -> tuple[int, int]:
    """``512x512`` -> (width, height)."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if not found:
        raise InvalidInput(f"size is {text!r}, expected WIDTHxHEIGHT such as 512x512", param="size")
    return int(found[1]), int(found[2])


def parse_fps(text: str) -> Fraction:
    """``8``, ``29.97`` or ``30000/1001``."""
    try:
        return _frame_rate.validate_python(text)
    except ValidationError:
        raise InvalidInput(
            f"fps is {text!r}, expected a number such as 8 or 30000/1001", param="fps"
        ) from None


def request_options(
    *,
    prompts: Sequence[str],
    negative_prompt: str,
    model: str,
    mode: str,
    seconds: float | None,
    frames: int | None,
    fps: str | None,
    size: str | None,
    window: int | None,
    overlap: int | None,
    steps: int | None,
    guidance: float | None,
    strength: float | None,
    seed: int,
    priority: int,
    preview: bool = False,
    preset: str | None = None,
) -> dict[str, Any]:
    """The fields of a ``JobRequest`` but its inputs, from the command line's words.

    Raises:
        InvalidInput: a mode, a size or a preset that is none, or a preview with steps of its own.
    """
    if preview and preset is not None:
        raise InvalidInput(f"--preview and --preset {preset} are both given; give one", param="preset")
    if preview and steps is not None:
        raise InvalidInput(
            f"steps is {steps} and --preview takes {PREVIEW_STEPS}; give one of them", param="steps"
        )
    if mode != "auto" and mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}, expected one of auto, {', '.join(MODES)}", param="mode")
    width, height = (None, None) if size is None else parse_size(size)
    options = {
        "prompts": tuple(prompts) or ("",),
        "negative_prompt": negative_prompt,
        "model": model,
        "mode": mode,
        "seconds": seconds,
        "num_frames": frames,
        "fps": None if fps is None else parse_fps(fps),
        "width": width,
        "height": height,
        "window_frames": window,
        "overlap_frames": overlap,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "strength": strength,
        "seed": seed,
        "priority": priority,
    }
    chosen = "preview" if preview else preset
    return options if chosen is None else apply(chosen, options)


def check_output(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that could not be written in the end, before any work is done.

    The contact sheet, which goes beside the video, must be writable too, and neither may replace an input.
    """
    if path.suffix.lower() != ".mp4":
        raise InvalidInput(f"output is {path}, expected a name that ends in .mp4", param="output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target in (path, path.with_suffix(".png")):
            if target.is_dir():
                raise InvalidInput(f"output {target} is a folder; give another name", param="output")
            if target.exists() and any(given.exists() and given.samefile(target) for given in inputs):
                raise InvalidInput(
                    f"output {target} would replace the input of that name; choose another", param="output"
                )
            if target.exists() and not os.access(target, os.W_OK):
                raise InvalidInput(f"output {target} is write-protected; choose another name", param="output")
            # Only trying tells of a full disk, a quota, a read-only mount or too long a name.
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".writing-{target.name}").close()
    except OSError as error:
        raise InvalidInput(
            f"output {path} cannot be written ({error.strerror}); choose another place", param="output"
        ) from error
