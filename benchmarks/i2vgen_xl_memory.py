"""Does the predicted need hold on a real card? Every rung x size of I2VGen-XL, capped at its own need.

A model of the full size with random weights is written to a folder (weights change neither memory nor
speed), then each rung runs in a process of its own: per size the process is capped at the predicted need,
renders a few steps and reports what it reserved, allocated and took. An out of memory is a wrong prediction.
Then the largest size runs under a cap below its need, lower until it runs out of memory, and the smallest one
must render in the same process under the same cap: "recovers". The highest cap that failed also bounds how
much the prediction is over: held is what the allocator takes when it may, not what it could do with.

    python benchmarks/i2vgen_xl_memory.py --out benchmarks/results/i2vgen_xl_memory.json    # five minutes
    python benchmarks/i2vgen_xl_memory.py --tiny --out /tmp/rehearsal.json      # on a CPU, a minute

Expandable segments are set here as a GPU worker sets them; set PYTORCH_CUDA_ALLOC_CONF to measure others.

After a run, tests/nodes/engines/i2vgen_xl/test_spec.py reads the table. Where it fails, or the ratio is over
1 or under 0.87, change nodes/engines/i2vgen_xl/spec.py: the slope of ``reserved_gib`` between 768x768x16 and
768x768x24 is RESERVE_RATIO x the coefficient of ``denoise`` (resident and evict: denoise_whole; else
denoise_in_pieces); rows at 512x512x8 of resident and stream_cfg_split are VAE decoding; ``context_gib`` is
CONTEXT_BYTES. Then put the ``x resident`` column of 512x512x16 in PLACEMENTS, and say in both comments what
was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nodes.engines.memory.vram import cap_process, peak_bytes, reset_peak, use_expandable_segments  # noqa: E402

use_expandable_segments()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from farm.capabilities.engine_spec import EngineSpec, RenderShape, need_bytes  # noqa: E402
from farm.planning.render_task import RenderTask  # noqa: E402
from nodes.engines.engine import OutOfMemory, RenderInputs  # noqa: E402
from nodes.engines.i2vgen_xl.engine import I2VGenXL  # noqa: E402
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec  # noqa: E402

GIB = 2**30
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL_SIZES = "512x512x8,512x512x16,768x768x16,768x768x24"
TINY_SIZES = "64x64x8,128x128x8"
#: Caps of the out-of-memory rehearsal, relative to the predicted need.
TOO_LITTLE = (0.9, 0.8, 0.7, 0.6, 0.5)

FULL: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 32, "cross_attention_dim": 1024, "attention_head_dim": 64},
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
    },
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
    "image_encoder": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
}
TINY: dict[str, dict[str, Any]] = {
    "unet": {
        "block_out_channels": (64, 96, 128, 128),
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "attention_head_dim": 32,
    },
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (32, 64, 128),
        "layers_per_block": 1,
    },
    "text_encoder": {
        "vocab_size": 600,
        "bos_token_id": 598,
        "eos_token_id": 599,
        "pad_token_id": 599,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
    },
    "image_encoder": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
        "projection_dim": 64,
    },
}


def write_model_folder(folder: Path, sizes: dict[str, dict[str, Any]]) -> None:
    """A complete model folder of random weights, made on the device, in half precision on CUDA."""
    from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    makers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "unet": lambda config: I2VGenXLUNet(**config),  # type: ignore[no-untyped-call]
        "vae": lambda config: AutoencoderKL(**config),  # type: ignore[no-untyped-call]
        "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
        "image_encoder": lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)),
    }
    variant = "fp16" if DEVICE == "cuda" else None
    for name, make in makers.items():
        torch.set_default_dtype(torch.float16 if DEVICE == "cuda" else torch.float32)
        with torch.device(DEVICE):
            module = make(sizes[name])
        torch.set_default_dtype(torch.float32)
        module.save_pretrained(folder / name, variant=variant)
        del module
    scheduler: Any = DDIMScheduler(  # type: ignore[no-untyped-call]
        beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(folder / "scheduler")
    ends = ["<|startoftext|>", "<|endoftext|>"]
    letters = [chr(c) for c in range(97, 123)]
    vocabulary = {token: i for i, token in enumerate([*letters, *(c + "</w>" for c in letters), *ends])}
    processor = {
        "crop_size": sizes["image_encoder"]["image_size"],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.3, 0.3, 0.3],
    }
    for name, text in {
        "tokenizer/vocab.json": json.dumps(vocabulary),
        "tokenizer/merges.txt": "#version: 0.2\n",
        "tokenizer/tokenizer_config.json": json.dumps({"model_max_length": 77}),
        "feature_extractor/preprocessor_config.json": json.dumps(processor),
        "model_index.json": json.dumps({"_class_name": "I2VGenXLPipeline"}),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def predicted_bytes(spec: EngineSpec, rung: Any, size: str, steps: int) -> int:
    """The need of a guided window of ``size`` (WIDTHxHEIGHTxFRAMES) at a rung."""
    width, height, frames = (int(n) for n in size.split("x"))
    shape = RenderShape(num_frames=frames, height=height, width=width, num_inference_steps=steps, guided=True)
    return need_bytes(spec, next(r for r in spec.rungs if r.name == rung), shape)


def measure(engine: I2VGenXL, rung: Any, size: str, steps: int, *, cap_bytes: int = 0) -> dict[str, Any]:
    """Render one window under ``cap_bytes`` (0: its predicted need); what was predicted, held and taken."""
    width, height, frames = (int(n) for n in size.split("x"))
    spec = engine.spec
    need = predicted_bytes(spec, rung, size, steps)
    row: dict[str, Any] = {"rung": rung, "size": size, "predicted_gib": need / GIB}
    row["device"] = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    row["capped"] = cap_process(cap_bytes or need, context_bytes=spec.context_bytes)
    task = RenderTask(
        model=spec.model,
        prompt="a cat turns",
        frame_indices=tuple(range(frames)),
        shot_start=0,
        shot_end=frames,
        height=height,
        width=width,
        fps=8,
        num_inference_steps=steps,
        guidance_scale=4.0,
        seed=frames * width,
    )
    # Another image for every size: encoders and VAE run each time, not the cache.
    image = np.random.default_rng(width * frames).integers(0, 256, (height, width, 3), dtype=np.uint8)
    marks: dict[str, list[float]] = {}

    def report(phase: str, done: int, total: int) -> None:
        marks.setdefault(phase, []).append(time.perf_counter())

    try:
        started = time.perf_counter()
        engine.load(rung)
        row["load_s"] = time.perf_counter() - started
        reset_peak()
        started = time.perf_counter()
        engine.render(task, RenderInputs(image=image), report)
        row["render_s"] = time.perf_counter() - started
        row["out_of_memory"] = None
        gaps = [b - a for a, b in zip(marks["denoise"], marks["denoise"][1:], strict=False)]
        row["step_s"] = statistics.median(gaps[2:])
        row["decode_s"] = marks["decode"][-1] - marks["decode"][0]
    except OutOfMemory as error:
        row["out_of_memory"] = str(error)
    row["reserved_gib"] = peak_bytes() / GIB
    if DEVICE == "cuda":
        row["allocated_gib"] = torch.cuda.max_memory_allocated() / GIB
        free, total = torch.cuda.mem_get_info()
        row["context_gib"] = (total - free - torch.cuda.memory_reserved()) / GIB
        row["held_gib"] = row["reserved_gib"] + row["context_gib"]
    else:  # resident size counts the interpreter and its libraries already
        row["held_gib"] = row["reserved_gib"]
    row["held_over_predicted"] = row["held_gib"] / row["predicted_gib"]
    return row


def rehearse(engine: I2VGenXL, rung: Any, sizes: list[str], steps: int) -> dict[str, Any]:
    """Run out of memory at the last size, then render the first one in what was too little.

    ``recovers`` is None when nothing failed: without a card there is no cap.
    """
    need = predicted_bytes(engine.spec, rung, sizes[-1], steps)
    row: dict[str, Any] = {"rung": rung, "size": sizes[-1], "then": sizes[0], "recovers": None}
    for share in TOO_LITTLE:
        cap = round(share * need)
        failed = measure(engine, rung, sizes[-1], steps, cap_bytes=cap)
        row |= {"cap_over_predicted": share, "capped": failed["capped"], "rehearsed": failed["out_of_memory"]}
        if failed["out_of_memory"] is not None or not failed["capped"]:
            after = measure(engine, rung, sizes[0], steps, cap_bytes=cap)
            if failed["out_of_memory"] is not None:
                row["recovers"] = after["out_of_memory"] is None
            break
    return row


def run_rung(arguments: argparse.Namespace) -> None:
    """The child: one rung, every size and the rehearsal, one JSON line each."""
    engine = I2VGenXL(_spec(arguments.folder), source=arguments.folder, device=DEVICE)
    sizes = arguments.sizes.split(",")
    for size in sizes:
        print(json.dumps(measure(engine, arguments.rung, size, arguments.steps)), flush=True)
    print(json.dumps(rehearse(engine, arguments.rung, sizes, arguments.steps)), flush=True)


def _spec(folder: Path) -> EngineSpec:
    return i2vgen_xl_spec(folder, model="i2vgen-xl").on(DEVICE)  # type: ignore[arg-type]


def run_all(arguments: argparse.Namespace) -> None:
    """The parent: write the model, run each rung in a child, print and save the table as it grows."""
    common = [sys.executable, __file__, "--folder", str(arguments.folder), "--steps", str(arguments.steps)]
    common += ["--sizes", arguments.sizes, *(["--tiny"] if arguments.tiny else [])]
    if not (arguments.folder / "model_index.json").exists():
        # In a process of its own: this one must hold no card memory while the others are measured.
        started = time.perf_counter()
        subprocess.run([*common, "--write"], check=True)
        print(f"model written in {time.perf_counter() - started:.0f} s")
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "steps": arguments.steps,
        "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        "rows": [],
        "rehearsals": [],
    }
    print(f"{'rung':18}{'size':14}{'predicted':>10}{'held':>8}{'ratio':>7}{'s/step':>9}{'x resident':>11}")
    resident_s: dict[str, float] = {}
    rungs = arguments.rungs.split(",") if arguments.rungs else [r.name for r in _spec(arguments.folder).rungs]
    for rung in rungs:
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.Popen(
                [*common, "--rung", rung], stdout=subprocess.PIPE, stderr=errors, text=True
            )
            assert child.stdout is not None
            for line in child.stdout:
                row = json.loads(line)
                if "recovers" in row:
                    _add(result, row, arguments.out, "rehearsals")
                    continue
                took = "  out of memory"
                if row["out_of_memory"] is None:
                    if rung == "resident":
                        resident_s[row["size"]] = row["step_s"]
                    row["x_resident"] = row["step_s"] / resident_s.get(row["size"], row["step_s"])
                    took = f"{row['step_s']:9.4f}{row['x_resident']:11.2f}"
                _add(result, row, arguments.out)
                print(
                    f"{rung:18}{row['size']:14}{row['predicted_gib']:10.2f}{row['held_gib']:8.2f}"
                    f"{row['held_over_predicted']:7.2f}{took}",
                    flush=True,
                )
            if child.wait() != 0:
                errors.seek(0)
                message = errors.read()[-2000:]
                _add(result, {"rung": rung, "failed": message}, arguments.out)
                print(f"{rung:18}failed: {message}", flush=True)
    print("out of memory, rehearsed:")
    for row in result["rehearsals"]:
        recovers = {True: "yes", False: "no", None: "nothing failed"}[row["recovers"]]
        cap = f"{row['cap_over_predicted']:.1f} of its need" if row["capped"] else "no cap here"
        print(f"{row['rung']:18}{row['size']} at {cap}, then {row['then']}: recovers: {recovers}")


def _add(result: dict[str, Any], row: dict[str, Any], out: Path, table: str = "rows") -> None:
    result[table].append(row)
    out.write_text(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file, rewritten after every row")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: a rehearsal on a CPU")
    parser.add_argument("--folder", type=Path, help="model folder to reuse, or to write")
    parser.add_argument("--rungs", help="comma-separated; all when left out")
    parser.add_argument("--sizes", help="comma-separated WIDTHxHEIGHTxFRAMES")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rung", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or (TINY_SIZES if arguments.tiny else FULL_SIZES)
    if arguments.write:
        write_model_folder(arguments.folder, TINY if arguments.tiny else FULL)
        return
    if arguments.rung:
        run_rung(arguments)
        return
    if arguments.out is None:
        parser.error("--out is missing: expected the JSON file to write")
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        run_all(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = Path(folder)
        run_all(arguments)


if __name__ == "__main__":
    main()
