"""Fifty jobs in a row on one card, every fifth of them out of memory on purpose: does a byte stay behind?

Orders go through the worker as they do on a farm, hand-over included, with I2VGen-XL of full size and random
weights. For every fifth the allocator's cap is set under the window's need, so that it runs out somewhere in
loading, encoding, denoising or decoding (how far under is drawn anew each time); the worker must say ``oom``,
and the next job must render. After each job the bytes are read that the allocator has given out and holds,
and what the card says is used. ``left_behind_bytes``: the most that a job has left over what the first of its
kind has.

    python -m benchmarks.engines.oom_jobs --home /dev/shm/models --out $OUT/oom_jobs.json     # two minutes
    python -m benchmarks.engines.oom_jobs --tiny --jobs 10      # on a CPU: memory fails where it is told to
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.on_cards.models import photo, written
from farm.capabilities import GIB, RenderShape, Rung, Worker, need_bytes
from farm.planning import RenderTask
from farm.running import Blob, Failed, Finished, Order, Progress
from nodes.engines import Engine, Rendered, RenderInputs, Report, create_engine, spec_of
from nodes.engines.memory import cap_process, peak_rss_bytes, reset_peak_rss
from nodes.machine import workers_here
from nodes.work.worker import WorkerBody

EVERY = 5
#: Shares of its need that a window is given which is to run out of memory.
TOO_LITTLE = (0.35, 0.8)


class Failing:
    """An engine that, where there is no cap, runs out of memory when it is told to."""

    def __init__(self, real: Engine) -> None:
        self._real = real
        self.fails = False
        self.spec = real.spec

    def load(self, rung: Rung) -> None:
        self._real.load(rung)

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        def failing(phase: Any, done: int, total: int) -> None:
            report(phase, done, total)
            if self.fails and phase == "denoise" and done == 1:
                raise MemoryError("out of memory, as it was told to")

        return self._real.render(task, inputs, failing)

    def unload(self) -> None:
        self._real.unload()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, help="where the model is written, and kept")
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--size", default="512x512x8")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rung", default="resident")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = run(args, Path(scratch))
    print(json.dumps({name: value for name, value in found.items() if name != "jobs"}))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not found["as_it_should"])


def run(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The figures, and a row for each job."""
    folder = written(args.home or scratch, "i2vgen-xl", tiny=args.tiny)
    worker = workers_here("4GiB" if args.tiny else None, None, name="bench")[0]
    width, height, frames = (64, 64, 8) if args.tiny else map(int, args.size.split("x"))
    picture = photo(scratch / "photo.png", width, height)
    spec = spec_of(str(folder)).on(worker.kind)
    shape = RenderShape(
        num_frames=frames, height=height, width=width, num_inference_steps=args.steps, guided=True
    )
    need = need_bytes(spec, next(rung for rung in spec.rungs if rung.name == args.rung), shape)
    engines: list[Failing] = []

    def create(model: str, worker: Worker, weights: Any) -> Any:
        engines.append(Failing(create_engine(model, worker, weights, cpu_threads=2)))
        return engines[-1]

    body, draw, rows = WorkerBody(worker, create), random.Random(1), []
    for number in range(args.jobs):
        fails = number % EVERY == EVERY - 1
        cap = round(need * draw.uniform(*TOO_LITTLE)) if fails else worker.vram_bytes
        if worker.kind == "cuda" and engines:
            cap_process(max(cap, spec.context_bytes + GIB // 4), context_bytes=spec.context_bytes)
        elif engines:
            engines[-1].fails = fails
        task = RenderTask(
            model=str(folder),
            prompt=f"a cat turns, {number}",
            frame_indices=tuple(range(frames)),
            shot_start=0,
            shot_end=frames,
            height=height,
            width=width,
            fps=8,
            num_inference_steps=args.steps,
            guidance_scale=4.0,
            seed=number,
        )
        content = Blob(sha256=hashlib.sha256(picture.read_bytes()).hexdigest(), path=picture)
        order = Order(
            attempt_id=f"job-{number}/s0-0/1",
            worker_id=worker.id,
            task=task,
            rung=args.rung,
            need_bytes=0,
            inputs={"image": content},
        )
        rows.append({"job": number, "was_to_fail": fails, "cap_bytes": cap} | done(body, order, worker))
    return judged(rows) | {"device": worker.device_name, "need_bytes": need, "jobs": rows}


def done(body: WorkerBody, order: Order, worker: Worker) -> dict[str, Any]:
    """Carry an order out to its end; what is held then."""
    ended, said = threading.Event(), []

    def emit(message: Progress | Finished | Failed) -> None:
        if not isinstance(message, Progress):
            said.append(message.kind if isinstance(message, Failed) else "finished")
            ended.set()

    started = time.perf_counter()
    body.run(order, emit)
    ended.wait()
    body.settle()
    return {"end": said[0], "seconds": time.perf_counter() - started, **held(worker)}


def held(worker: Worker) -> dict[str, int]:
    """Bytes of the card that are given out, held by the allocator, and used by anybody; or resident ones."""
    if worker.kind != "cuda":
        gc.collect()
        reset_peak_rss()
        return {"resident_bytes": peak_rss_bytes() or 0}
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "allocated_bytes": torch.cuda.memory_allocated(),
        "reserved_bytes": torch.cuda.memory_reserved(),
        "used_bytes": total - free,
    }


def judged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether each job ended as it should, and what it left behind."""
    wrong = [row["job"] for row in rows if row["end"] != ("oom" if row["was_to_fail"] else "finished")]
    left: dict[str, int] = {}
    for failed in (False, True):
        own = [row for row in rows if row["was_to_fail"] == failed and row["job"] not in wrong]
        for name in ("allocated_bytes", "reserved_bytes", "used_bytes", "resident_bytes"):
            values = [row[name] for row in own if name in row]
            if values:
                key = f"{'after oom' if failed else 'after render'}, {name}"
                left[key] = max(values) - values[0]
    allocated = [value for name, value in left.items() if "allocated" in name]
    return {
        "wrong_ends": wrong,
        "left_behind_bytes": left,
        "as_it_should": not wrong and not any(value > 0 for value in allocated),
    }


if __name__ == "__main__":
    main()
