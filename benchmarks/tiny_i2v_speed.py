"""How long does one segment of tiny_i2v take on a CPU, and how much memory does its process hold?

    python benchmarks/tiny_i2v_speed.py [--model FOLDER] [--repeats 3]

One segment: 8 frames of 128x128, 20 steps, guided; from the image to the frames through the engine, the model
already loaded, nothing cached from the segment before. Each way runs in a process of its own, whose peak
memory is read; the ways take turns, and the fastest of all repeats counts, since other programs only slow
one down. The named alternatives:

* the engine with one thread;
* the stock pipeline of diffusers by PyTorch's own two threads: sums are then split by thread, and the frames
  are no longer the same on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from farm.capabilities.engine_spec import RenderShape, need_bytes
from farm.planning.render_task import RenderTask
from nodes.engines.engine import RenderInputs
from nodes.engines.folders.layout import variant
from nodes.engines.i2vgen_xl.engine import I2VGenXL
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec
from nodes.engines.memory.process_memory import peak_rss_bytes, reset_peak_rss

ROOT = Path(__file__).resolve().parents[1]
SIDE, FRAMES, STEPS = 128, 8, 20
PROMPT, NEGATIVE_PROMPT = "the camera slowly pans right", "blurry"
WAYS = ("engine, 2 threads", "engine, 1 thread", "stock pipeline, 2 threads")
SEGMENTS = 2  # of one process; the first warms up
Render = Callable[[int], NDArray[np.uint8]]


def picture(seed: int) -> NDArray[np.uint8]:
    """The middle of the example photograph, moved a little: another image, as every segment has."""
    photo = Image.open(ROOT / "examples" / "coffee.jpg").convert("RGB")
    side = min(photo.size) - 16
    box = (seed, seed, side + seed, side + seed)
    return np.asarray(photo.crop(box).resize((SIDE, SIDE), Image.Resampling.BOX))


def engine_way(folder: Path, threads: int) -> Render:
    spec = i2vgen_xl_spec(folder, model="tiny_i2v").on("cpu")
    engine = I2VGenXL(spec, source=folder, device="cpu", cpu_threads=threads)
    engine.load("resident")

    def render(seed: int) -> NDArray[np.uint8]:
        task = RenderTask(
            model="tiny_i2v",
            prompt=f"{PROMPT} {seed}",
            negative_prompt=f"{NEGATIVE_PROMPT} {seed}",
            frame_indices=tuple(range(FRAMES)),
            shot_start=0,
            shot_end=FRAMES,
            height=SIDE,
            width=SIDE,
            fps=8,
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            seed=seed,
        )
        return engine.render(task, RenderInputs(image=picture(seed)), lambda *_: None).frames

    return render


def stock_way(folder: Path, threads: int) -> Render:
    from diffusers import I2VGenXLPipeline

    torch.set_num_threads(threads)
    which = variant(folder / "unet", "diffusion_pytorch_model", half=False)
    pipeline = I2VGenXLPipeline.from_pretrained(folder, torch_dtype=torch.float32, variant=which)
    pipeline.set_progress_bar_config(disable=True)
    # The stock text path reads ``text_model``, which transformers 5.6 dropped.
    if not hasattr(pipeline.text_encoder, "text_model"):
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)

    def render(seed: int) -> NDArray[np.uint8]:
        made = pipeline(
            prompt=f"{PROMPT} {seed}",
            negative_prompt=f"{NEGATIVE_PROMPT} {seed}",
            image=Image.fromarray(picture(seed)),
            height=SIDE,
            width=SIDE,
            target_fps=8,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        )
        return np.asarray((made.frames[0] * 255).round(), dtype=np.uint8)

    return render


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Seconds of each segment, and the peak memory of this process, loading left out."""
    kind, threads = way.split(", ")
    render = {"engine": engine_way, "stock pipeline": stock_way}[kind](folder, int(threads.split()[0]))
    reset_peak_rss()
    seconds, cpu_s, digest = [], [], hashlib.sha256()
    for seed in range(SEGMENTS):
        begin, cpu = time.perf_counter(), time.process_time()
        frames = render(seed)
        seconds.append(time.perf_counter() - begin)
        cpu_s.append(time.process_time() - cpu)
        assert frames.shape == (FRAMES, SIDE, SIDE, 3)
        digest.update(frames.tobytes())
    return {
        "seconds": min(seconds[1:]),
        "cpu_seconds": min(cpu_s[1:]),
        "peak_bytes": peak_rss_bytes(),
        "frames_sha256": digest.hexdigest(),
    }


def in_a_process(way: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", str(folder), "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny_i2v")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure one way in this process")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tiny_i2v_speed.json")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.model)))
        return
    load = round(os.getloadavg()[0], 2)  # a busy machine makes every figure worse
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            runs[way].append(in_a_process(way, arguments.model))
    found = {
        way: {
            "seconds": round(min(run["seconds"] for run in of), 2),
            "cpu_seconds": round(min(run["cpu_seconds"] for run in of), 2),
            "peak_mb": round(max(run["peak_bytes"] for run in of) / 1e6),
        }
        for way, of in runs.items()
    }
    ours = found[WAYS[0]]["seconds"]
    for way, row in found.items():
        times = row["seconds"] / ours
        print(
            f"{way:28}{row['seconds']:7.2f} s a segment{times:7.2f} x"
            f"{row['cpu_seconds']:8.2f} processor s{row['peak_mb']:7} MB"
        )
    same = len({run["frames_sha256"] for way in WAYS[:2] for run in runs[way]}) == 1
    print("the engine's frames are", "the same" if same else "NOT the same", "with 1 and 2 threads")
    spec = i2vgen_xl_spec(arguments.model, model="tiny_i2v").on("cpu")
    shape = RenderShape(num_frames=FRAMES, height=SIDE, width=SIDE, num_inference_steps=STEPS, guided=True)
    made = {"command": "python benchmarks/tiny_i2v_speed.py", "cores": os.cpu_count()}
    made |= {"torch": torch.__version__, "load_average_before": load}
    result = {
        "made": made,
        "segment": {"frames": FRAMES, "side": SIDE, "steps": STEPS, "guided": True},
        "ways": found,
        "ratio_to_one_thread": round(ours / found[WAYS[1]]["seconds"], 3),
        "ratio_to_stock_pipeline_2_threads": round(ours / found[WAYS[2]]["seconds"], 3),
        "same_frames_with_1_and_2_threads": same,
        "need_mb": round(need_bytes(spec, spec.rungs[0], shape) / 1e6),
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
