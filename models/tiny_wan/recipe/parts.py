"""Finished parts, and where a stage goes on from: a working folder, carried files, or the model itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file

from models.tiny_wan.recipe.architecture import new_transformer, new_vae, write_pipeline_files
from models.tiny_wan.recipe.checkpoint import collect

CLASSES: dict[str, Any] = {"vae": AutoencoderKLWan, "transformer": WanTransformer3DModel}
#: What a stage trains on that is no part of its own.
TRAINS = {"texture": "transformer"}
#: In the model's folder: steps and seconds each part was trained for.
PROGRESS = "training.json"
#: No file of the model is larger.
SHARD_BYTES = 14 * 10**6


def state_of(name: str, work: Path, model: Path, device: str) -> dict[str, Any] | None:
    """What to go on from, the first there is: the whole state, carried files, the model's folder; or None."""
    whole = work / f"{name}_state.pt"
    if whole.exists():
        return dict(torch.load(whole, map_location=device))
    beside = work / "carry" / "discriminator.safetensors"
    more = {}
    if name in TRAINS and beside.exists():
        more["discriminator"] = {key: value.float() for key, value in load_file(beside).items()}
    if carried := collect(work / "carry", name):
        return {**carried, **more}
    part_name = TRAINS.get(name, name)
    if (model / part_name).is_dir() and (model / PROGRESS).exists():
        progress = json.loads((model / PROGRESS).read_text()).get(name, {"step": 0, "trained_s": 0.0})
        part = CLASSES[part_name].from_pretrained(model / part_name, torch_dtype=torch.float32)
        weights = [w.detach() for w in part.parameters()]
        return {**progress, "weights": weights, "average": weights, **more}
    return None


def finished(name: str, work: Path, model: Path) -> Any:
    """A part in full precision: of the working folder, of carried files, or of the model's folder.

    Raises:
        FileNotFoundError: If it is nowhere.
    """
    for folder in (work / name, model / name):
        later = next((stage for stage, part in TRAINS.items() if part == name), name)
        carried = collect(work / "carry", later) or collect(work / "carry", name)
        if folder == model / name and carried:
            part = {"vae": new_vae, "transformer": new_transformer}[name]()
            if name == "vae":
                part.register_to_config(
                    latents_mean=carried["latents_mean"], latents_std=carried["latents_std"]
                )
            with torch.no_grad():
                for weight, value in zip(part.parameters(), carried["average"], strict=True):
                    weight.copy_(value)
            return part
        if folder.is_dir():
            return CLASSES[name].from_pretrained(folder, torch_dtype=torch.float32)
    raise FileNotFoundError(f"no {name} in {work} or {model}: run the stage {name} first")


def text_folder(work: Path, model: Path) -> Path:
    """Where tokenizer and text encoder lie."""
    return work if (work / "text_encoder").is_dir() else model


def save_part(name: str, part: Any, folder: Path) -> None:
    """Write a part in half precision, in shards, as diffusers reads it."""
    shutil.rmtree(folder / name, ignore_errors=True)
    # Read with its folder's path it would save that path.
    part.register_to_config(_name_or_path="")
    part.half().save_pretrained(folder / name, max_shard_size=SHARD_BYTES)


def export(work: Path, model: Path, facts: dict[str, Any]) -> dict[str, int]:
    """Put what there is of the parts into an ordinary pipeline folder; bytes in all and of the largest."""
    model.mkdir(parents=True, exist_ok=True)
    progress = json.loads((model / PROGRESS).read_text()) if (model / PROGRESS).exists() else {}
    for name in CLASSES:
        state = state_of(name, work, model, "cpu")
        if state is not None:
            progress[name] = {key: state[key] for key in ("step", "trained_s")}
            save_part(name, finished(name, work, model), model)
    for name, part in TRAINS.items():
        state = state_of(name, work, model, "cpu") if part in progress else None
        if state is not None and state["step"]:
            progress[name] = {key: state[key] for key in ("step", "trained_s")}
    for name in ("text_encoder", "tokenizer"):
        if (work / name).is_dir():
            shutil.rmtree(model / name, ignore_errors=True)
            shutil.copytree(work / name, model / name)
    write_pipeline_files(model, facts)
    (model / PROGRESS).write_text(json.dumps(progress, indent=1) + "\n")
    sizes = [path.stat().st_size for path in model.rglob("*.safetensors")]
    return {"bytes": sum(sizes), "largest": max(sizes, default=0)}
