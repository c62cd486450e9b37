"""Which settings of the founding articles fit which card, by the farm's own predictions, for every engine.

    python benchmarks/coordination/settings_by_memory.py

Folders of the published sizes are written hollow, headers alone, and read as any model folder is: a spec, a
plan and its needs, without a card. Each cell is the fastest rung that fits a card of so many GiB (all of them
taken to be free, and 64 GiB of memory in the machine), with the need there; or the nearest settings that fit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.engines import _full_size
from benchmarks.engines.unets import _animatediff_folder, _svd_folder
from benchmarks.i2vgen_xl_memory import FULL
from farm.capabilities import EngineSpec, Worker, fitting_rungs
from farm.errors import FarmError
from farm.planning import nothing_asked, plan_over
from nodes.engines.table import spec_of

CARDS_GIB = (6, 8, 12, 16, 24)
#: Side of a square of that area, and frames of a window.
SETTINGS = ((256, 8), (512, 16), (768, 16), (768, 24), (1024, 32))
RESULTS = Path(__file__).resolve().parents[1] / "results" / "settings_by_memory.json"
GIB = 2**30


def hollow(folder: Path, make: Any, config: Any, dtype: torch.dtype, **more: Any) -> None:
    _write(folder, make, config, dtype, **(more | {"hollow": True}))


_write = _full_size.write_component
_full_size.write_component = hollow
_svd_folder.write_component = hollow
_animatediff_folder.write_component = hollow


def i2vgen_xl(folder: Path) -> Path:
    from diffusers import AutoencoderKL, I2VGenXLUNet
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    stem = "diffusion_pytorch_model"
    text, vision = CLIPTextConfig(**FULL["text_encoder"]), CLIPVisionConfig(**FULL["image_encoder"])
    half = torch.bfloat16
    hollow(folder / "unet", lambda: I2VGenXLUNet(**FULL["unet"]), None, half, stem=stem)
    hollow(folder / "vae", lambda: AutoencoderKL(**FULL["vae"]), None, half, stem=stem)
    hollow(folder / "text_encoder", lambda: CLIPTextModel(text), text, half, stem="model")
    hollow(
        folder / "image_encoder", lambda: CLIPVisionModelWithProjection(vision), vision, half, stem="model"
    )
    files = {
        "model_index.json": {"_class_name": "I2VGenXLPipeline"},
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "prediction_type": "v_prediction",
        },
        "tokenizer/vocab.json": {},
        "tokenizer/tokenizer_config.json": {},
        "feature_extractor/preprocessor_config.json": {},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return folder


def folders(home: Path) -> dict[str, Path]:
    made = {"i2vgen_xl": i2vgen_xl(home / "i2vgen-xl")}
    made["svd-xt"] = _svd_folder.write_folder(home / "svd", "xt", tiny=False)
    made["animatediff"] = _animatediff_folder.write_folder(home / "animatediff", "sparse", tiny=False)
    names = {
        "ti2v": "wan2.2 5B",
        "a14b": "wan2.2 A14B",
        "ltx-2b-distilled": "ltx 2B",
        "ltx-13b-distilled": "ltx 13B",
    }
    for key, name in names.items():
        made[name] = _full_size.write_folder(home, key, _full_size.MODELS[key], torch.bfloat16)
    return made


def cell(spec: EngineSpec, side: int, window: int, card_gib: int) -> str:
    card = Worker(
        id="a/cuda0",
        node="a",
        kind="cuda",
        device_name="card",
        vram_bytes=card_gib * GIB,
        host_bytes=64 * GIB,
    )
    window = spec.frames.nearest(window)
    multiple = spec.side_multiple
    side = side // multiple * multiple
    asked = nothing_asked(spec).model_copy(
        update={"width": side, "height": side, "window_frames": window, "num_frames": window}
    )
    try:
        made = plan_over(asked, spec, [card])
    except FarmError as error:
        fits = error.message.partition("these fit: --size ")[2].split(" (")[0]
        return f"no; {fits.replace(' --window ', ' x ')}" if fits else "no"
    needs = made.on["cuda"].needs
    rung = fitting_rungs(needs, card)[0]
    bits = "" if made.weights == spec.weights else f", {made.weights.format}"
    return f"{rung}{bits}, {needs[rung].vram_bytes / GIB:.1f}"


def main() -> None:
    tables: dict[str, dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, folder in folders(Path(home)).items():
            spec = spec_of(str(folder))
            rows = {}
            for side, frames in SETTINGS:
                window = spec.frames.nearest(frames)
                rows[f"{side}p x {window}"] = [cell(spec, side, frames, gib) for gib in CARDS_GIB]
            tables[name] = rows
            print(f"\n| {name} | " + " | ".join(f"{gib} GiB" for gib in CARDS_GIB) + " |")
            print("|---" * (len(CARDS_GIB) + 1) + "|")
            for setting, cells in rows.items():
                print(f"| {setting} | " + " | ".join(cells) + " |", flush=True)
    RESULTS.write_text(json.dumps({"cards_gib": CARDS_GIB, "models": tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
