"""Reading what people type: sizes, amounts of memory, lists of workers, output paths."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from farm.capabilities import GIB, Worker
from farm.errors import InvalidInput

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> tuple[int, int]:
    """``512x512`` -> (width, height)."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if not found:
        raise InvalidInput(f"size is {text!r}, expected WIDTHxHEIGHT such as 512x512", param="size")
    return int(found[1]), int(found[2])


def parse_fps(text: str) -> Fraction:
    """``8``, ``29.97`` or ``30000/1001``."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InvalidInput(
            f"fps is {text!r}, expected a number such as 8 or 30000/1001", param="fps"
        ) from None


def parse_bytes(text: str, *, param: str = "vram-limit") -> int:
    """``12GiB``, ``12GB``, ``800MiB`` -> bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if not found or unit is None:
        raise InvalidInput(f"{param} is {text!r}, expected an amount such as 12GiB or 800MiB", param=param)
    amount = round(float(found[1]) * unit)
    if not 0 < amount <= 1024 * GIB:
        raise InvalidInput(f"{param} is {text!r}, expected more than 0 and at most 1024GiB", param=param)
    return amount


def cpu_workers(
    text: str,
    *,
    node: str,
    address: str,
    vram_limit_bytes: int | None = None,
    price_per_hour: float | None = None,
) -> list[Worker]:
    """``12GiB,12GiB,8GiB`` -> CPU workers of this machine with those memory budgets.

    The machine's price is shared evenly.
    """
    amounts = [parse_bytes(part, param="workers") for part in text.split(",")]
    if len(amounts) > 64:
        raise InvalidInput(
            f"got {len(amounts)} workers, at most 64 are started on a machine", param="workers"
        )
    return [
        Worker(
            id=f"{node}/cpu{i}",
            node=node,
            address=address,
            kind="cpu",
            device_name="CPU",
            vram_bytes=min(amount, vram_limit_bytes or amount),
            price_per_hour=None if price_per_hour is None else price_per_hour / len(amounts),
        )
        for i, amount in enumerate(amounts)
    ]


def node_name(name: str | None = None) -> str:
    """A name fit for ids: given, or the machine's own."""
    cleaned = re.sub(r"[^a-z0-9-]+", "-", (name or socket.gethostname().split(".")[0]).lower()).strip("-")
    return cleaned[:32] or "node"


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
) -> dict[str, Any]:
    """The fields of a ``JobRequest`` but its inputs, from the command line's words."""
    width, height = parse_size(size) if size else (None, None)
    return {
        "prompts": tuple(prompts) or ("",),
        "negative_prompt": negative_prompt,
        "model": model,
        "mode": mode,
        "seconds": seconds,
        "num_frames": frames,
        "fps": parse_fps(fps) if fps else None,
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


def check_output(path: Path) -> None:
    """Refuse an output that could not be written in the end, before any work is done."""
    if path.suffix.lower() != ".mp4":
        raise InvalidInput(f"output is {path}, expected a name that ends in .mp4", param="output")
    if path.is_dir():
        raise InvalidInput(f"output {path} is a folder; give a file name", param="output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"the folder {path.parent} cannot be made ({error.strerror}); choose another", param="output"
        ) from error
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InvalidInput(f"output {path} cannot be written; choose another place", param="output")
