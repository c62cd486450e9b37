"""How near a window is to that in 16 bits when weights are kept in fewer: in dB of its frames, peak white.

The same window, noise and prompt of one model in each format, on this machine's first card or its CPU (where
16 bits are 32). What it prints belongs into the model's ``farm.json`` as ``format_db``: a plan says it when
it proposes a format.

    python benchmarks/engines/format_distance.py --model tiny_wan --picture examples/coffee.jpg --size 256x192
    python benchmarks/engines/format_distance.py --model wan2.2-ti2v-5b --picture photo.jpg --prompt "..."
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from farm.capabilities import Weights, Worker, fitting_rungs
from farm.planning import RenderTask
from farm.planning.planner import footprint
from farm.request import parse_size
from nodes.engines import RenderInputs, create_engine, spec_of
from nodes.machine import probe
from nodes.work.inputs import fitted

FORMATS = ("int8", "float8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--prompt", default="the camera slowly pans right")
    parser.add_argument("--size", default=None)
    parser.add_argument("--window", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    (worker,) = probe(node="here", address="127.0.0.1")[:1]
    spec = spec_of(asked.model)
    width, height = parse_size(asked.size) if asked.size else (spec.native_width, spec.native_height)
    picture = cv2.cvtColor(cv2.imread(str(asked.picture)), cv2.COLOR_BGR2RGB)
    image = fitted(picture, width, height, "crop")
    tasks = [
        RenderTask(
            model=spec.model,
            prompt=asked.prompt,
            frame_indices=tuple(range(asked.window or spec.window_frames)),
            shot_start=0,
            shot_end=asked.window or spec.window_frames,
            height=height,
            width=width,
            fps=spec.native_fps,
            num_inference_steps=asked.steps or spec.default_steps,
            guidance_scale=spec.default_guidance_scale,
            seed=seed,
        )
        for seed in range(asked.seeds)
    ]
    true = rendered(worker, Weights(), tasks, image)
    found = {}
    for format in FORMATS:
        error = rendered(worker, Weights(format=format), tasks, image).astype(np.float64) - true
        found[format] = round(float(10 * np.log10(255**2 / np.square(error).mean())), 1)
    print(
        json.dumps({"model": spec.model, "size": f"{width}x{height}", "device": worker.device_name, **found})
    )


def rendered(worker: Worker, weights: Weights, tasks: list[RenderTask], image: Any) -> Any:
    """The frames of every task, (T, F, H, W, 3), at the fastest rung that fits."""
    spec = spec_of(tasks[0].model, weights)
    engine = create_engine(tasks[0].model, worker, spec.weights, cpu_threads=1)
    rung = fitting_rungs(footprint(spec.on(worker.kind), tasks[0].shape, worker.kind).needs, worker)[0]
    engine.load(rung)
    frames = [engine.render(task, RenderInputs(image=image), lambda *_: None).frames for task in tasks]
    engine.unload()
    return np.stack(frames)


if __name__ == "__main__":
    main()
