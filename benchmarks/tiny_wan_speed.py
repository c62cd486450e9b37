"""How long does one window of tiny_wan take on a CPU, and how much memory does its process hold?

    python benchmarks/tiny_wan_speed.py [--model FOLDER] [--repeats 3]

One window: 17 frames of 256x256 in the model's own four steps; from the image to the frames through the
engine, the model already loaded, nothing cached from the window before. The farm shares a CPU between two
workers of one core each: that is ``two engines``, whose seconds are those of a window. Each way runs in
processes of its own, whose peak memory is read; the ways take turns, and the fastest of all repeats counts,
since other programs only slow one down. The named alternatives:

* one engine on one core, the other core idle;
* the stock pipeline of diffusers by PyTorch's own two threads.
"""

from __future__ import annotations

import argparse
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
from nodes.engines.folders import model_facts
from nodes.engines.memory.process_memory import peak_rss_bytes, reset_peak_rss
from nodes.engines.wan.engine import Wan
from nodes.engines.wan.facts import ModelFacts, told_prompt
from nodes.engines.wan.spec import wan_spec

ROOT = Path(__file__).resolve().parents[1]
SIDE, FRAMES, STEPS, FPS = 256, 17, 4, 8
PROMPT = "the camera slowly pans right"
#: By way: what a process runs, and how many such processes at once.
WAYS = {
    "two engines, 1 thread each": ("engine", 2),
    "engine, 1 thread": ("engine", 1),
    "stock pipeline, 2 threads": ("stock", 1),
}
WINDOWS = 3  # of one process; the first warms up
Render = Callable[[int], NDArray[np.uint8]]


def picture(seed: int) -> NDArray[np.uint8]:
    """The middle of the example photograph, moved a little: another image, as every window has."""
    photo = Image.open(ROOT / "examples" / "coffee.jpg").convert("RGB")
    side = min(photo.size) - 16
    box = (seed, seed, side + seed, side + seed)
    return np.asarray(photo.crop(box).resize((SIDE, SIDE), Image.Resampling.BOX))


def engine_way(folder: Path) -> Render:
    torch.set_num_threads(1)
    engine = Wan(wan_spec(folder, model="tiny_wan").on("cpu"), source=folder, device="cpu")
    engine.load("resident")

    def render(seed: int) -> NDArray[np.uint8]:
        task = RenderTask(
            model="tiny_wan",
            prompt=f"{PROMPT} {seed}",
            frame_indices=tuple(range(FRAMES)),
            shot_start=0,
            shot_end=FRAMES,
            height=SIDE,
            width=SIDE,
            fps=FPS,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            seed=seed,
        )
        return engine.render(task, RenderInputs(image=picture(seed)), lambda *_: None).frames

    return render


def stock_way(folder: Path) -> Render:
    from diffusers import WanImageToVideoPipeline

    torch.set_num_threads(2)
    facts = model_facts(folder, ModelFacts)
    pipeline = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def render(seed: int) -> NDArray[np.uint8]:
        made = pipeline(
            prompt=told_prompt(facts, f"{PROMPT} {seed}", FPS),
            image=Image.fromarray(picture(seed)),
            height=SIDE,
            width=SIDE,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            max_sequence_length=facts.max_sequence_length,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        )
        return np.asarray((made.frames[0] * 255).round(), dtype=np.uint8)

    return render


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Seconds of a window, and the peak memory of this process, loading left out."""
    render = {"engine": engine_way, "stock": stock_way}[kind](folder)
    reset_peak_rss()
    seconds, cpu_s = [], []
    for seed in range(WINDOWS):
        begin, cpu = time.perf_counter(), time.process_time()
        frames = render(seed)
        seconds.append(time.perf_counter() - begin)
        cpu_s.append(time.process_time() - cpu)
        assert frames.shape == (FRAMES, SIDE, SIDE, 3)
    return {"seconds": min(seconds[1:]), "cpu_seconds": min(cpu_s[1:]), "peak_bytes": peak_rss_bytes()}


def in_processes(way: str, folder: Path) -> dict[str, float]:
    """The slowest process's seconds, shared by the windows that were made meanwhile."""
    kind, count = WAYS[way]
    command = [sys.executable, __file__, "--model", str(folder), "--process", kind]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    found = []
    for process in running:
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{way} failed; see above")
        found.append(json.loads(said.splitlines()[-1]))
    worst = {name: max(each[name] for each in found) for name in found[0]}
    return worst | {"seconds": worst["seconds"] / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny_wan")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--process", choices=("engine", "stock"), help="measure in this process")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tiny_wan_speed.json")
    arguments = parser.parse_args()
    if arguments.process:
        print(json.dumps(measure(arguments.process, arguments.model)))
        return
    load = round(os.getloadavg()[0], 2)  # a busy machine makes every figure worse
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            runs[way].append(in_processes(way, arguments.model))
    found = {
        way: {
            "seconds_a_window": round(min(run["seconds"] for run in of), 2),
            "cpu_seconds_a_window": round(min(run["cpu_seconds"] for run in of), 2),
            "peak_mb_a_process": round(max(run["peak_bytes"] for run in of) / 1e6),
        }
        for way, of in runs.items()
    }
    ours = found["two engines, 1 thread each"]["seconds_a_window"]
    for way, row in found.items():
        print(
            f"{way:28}{row['seconds_a_window']:7.2f} s a window{row['seconds_a_window'] / ours:7.2f} x"
            f"{row['cpu_seconds_a_window']:8.2f} processor s{row['peak_mb_a_process']:7} MB a process"
        )
    spec = wan_spec(arguments.model, model="tiny_wan").on("cpu")
    shape = RenderShape(num_frames=FRAMES, height=SIDE, width=SIDE, num_inference_steps=STEPS, guided=False)
    made: dict[str, Any] = {"command": "python benchmarks/tiny_wan_speed.py", "cores": os.cpu_count()}
    made |= {"torch": torch.__version__, "load_average_before": load}
    result = {
        "made": made,
        "window": {"frames": FRAMES, "side": SIDE, "steps": STEPS, "guided": False},
        "ways": found,
        "need_mb": round(need_bytes(spec, spec.rungs[0], shape) / 1e6),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
