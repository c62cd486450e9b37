"""Checkpoints to go on from: whole ones here, half-precision ones in small files to carry elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

#: No carried file is larger.
PART_BYTES = 14 * 10**6


def save_whole(state: dict[str, Any], path: Path) -> None:
    """Everything, optimizers too, replaced at once."""
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def deliver(state: dict[str, Any], folder: Path, name: str) -> None:
    """The averaged weights in half precision, in as many files as it takes; plain values go in the header."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for place, weight in enumerate(state["average"]):
        half = weight.half().cpu().contiguous()
        if filled + 2 * half.numel() > PART_BYTES:
            parts.append({})
            filled = 0
        parts[-1][str(place)] = half
        filled += 2 * half.numel()
    plain = {key: value for key, value in state.items() if _is_plain(value)}
    for number, tensors in enumerate(parts):
        path = folder / f"{name}-{number}.safetensors"
        save_file(tensors, path.with_suffix(".new"), {"state": json.dumps(plain), "parts": str(len(parts))})
        os.replace(path.with_suffix(".new"), path)


def deliver_module(module: torch.nn.Module, folder: Path, name: str) -> None:
    """A small network in half precision, in one file."""
    half = {key: value.half().cpu().contiguous() for key, value in module.state_dict().items()}
    path = folder / f"{name}.safetensors"
    save_file(half, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def collect(folder: Path, name: str) -> dict[str, Any] | None:
    """What ``deliver`` wrote, as a state to go on from with fresh optimizers; None if there is nothing."""
    first = folder / f"{name}-0.safetensors"
    if not first.exists():
        return None
    with safe_open(first, "pt") as file:
        header = file.metadata()
    tensors: dict[str, torch.Tensor] = {}
    for number in range(int(header["parts"])):
        tensors |= load_file(folder / f"{name}-{number}.safetensors")
    average = [tensors[str(place)].float() for place in range(len(tensors))]
    return {**json.loads(header["state"]), "weights": average, "average": average}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, int | float) for item in value)
    return isinstance(value, int | float)
