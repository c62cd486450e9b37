"""A U-Net over videos at full size on capped cards, beside stock diffusers: what a case measures, and the run
of all, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.engines._farm_cases import GB, context_bytes, picture, used_of_the_card
from benchmarks.engines._full_size import Window
from benchmarks.engines._watch import Watch, seconds_of
from farm.capabilities import EngineSpec, Weights, need_bytes
from farm.capabilities.engine_spec import RenderShape
from farm.planning.render_task import RenderTask
from nodes.engines.engine import OutOfMemory, RenderInputs
from nodes.engines.memory import cap_process


@dataclass(frozen=True)
class Family:
    """What the cases of one family differ by."""

    #: ``(home, name of a folder, whether it is to be tiny)`` to the folder.
    write_folder: Callable[..., Path]
    spec: Callable[..., EngineSpec]
    engine: Callable[..., Any]
    #: ``(folder, dtype)`` to the stock pipeline on the host.
    pipeline: Callable[[Path, torch.dtype], Any]
    #: Methods of it that begin a phase: the phase they are, and the one that goes on behind them.
    phases: Mapping[str, tuple[str, str]]
    #: Of a window: what it is called with.
    arguments: Callable[[Window], dict[str, Any]]
    guidance_scale: float
    prompt: str = ""
    #: What makes an engine of some weights.
    weights: Callable[[Weights], dict[str, Any]] = lambda weights: {}


Given = Literal["image", "nothing", "reference"]
"""What a window is given beside its prompt."""


def card(folder: Path, device: str, family: Family) -> dict[str, Any]:
    """What the card does: a matrix product in half precision, a copy from pinned memory."""
    cuda = device == "cuda"
    side, dtype = (8192, torch.float16) if cuda else (256, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = min(seconds_of(lambda: a @ b, 10, device))
    host = torch.empty(2**30 if cuda else 2**20, dtype=torch.uint8, pin_memory=cuda)
    there = torch.empty_like(host, device=device)
    copied = min(seconds_of(lambda: there.copy_(host, non_blocking=True), 3, device))
    name = torch.cuda.get_device_name() if cuda else "cpu"
    return {
        "name": name,
        "matmul_tflops": 2 * side**3 / seconds / 1e12,
        "copy_gb_s": host.nbytes / copied / 1e9,
    }


def stock(folder: Path, device: str, family: Family, *, window: Window, placed: str) -> dict[str, Any]:
    """Two windows of the stock pipeline, ``resident`` or with its ``model`` or ``leaf`` offload."""
    cuda = device == "cuda"
    before = used_of_the_card() if cuda else 0
    dtype = torch.float16 if cuda else torch.float32
    pipe = family.pipeline(folder, dtype)
    pipe.set_progress_bar_config(disable=True)
    if placed == "resident":
        pipe.to(device)
    elif placed == "model" and cuda:
        pipe.enable_model_cpu_offload(device=device)
    elif placed == "leaf":
        pipe.enable_group_offload(
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=cuda,
        )
    watch = Watch(device)
    for method, (phase, after) in family.phases.items():
        watch.around(pipe, method, phase, after=after)

    def stepped(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        watch.step()
        return tensors

    whole = []
    for _ in range(2):
        watch.end()
        start = time.perf_counter()
        pipe(**family.arguments(window), output_type="np", callback_on_step_end=stepped)
        watch.end()
        whole.append(time.perf_counter() - start)
    return found_of(watch, before, whole, window) | {"placed": placed}


def ours(
    folder: Path,
    device: str,
    family: Family,
    *,
    window: Window,
    cap_gb: float,
    rung: str | None = None,
    format: str | None = None,
    given: Given = "image",
) -> dict[str, Any]:
    """Two windows of the engine in a capped process, at the fastest rung that is predicted to fit, or one."""
    before = used_of_the_card() if device == "cuda" else 0
    weights = Weights.model_validate({"format": format})
    of_spec, of_engine = ({}, {}) if format is None else ({"weights": weights}, family.weights(weights))
    spec = family.spec(folder, model=folder.name, **of_spec)
    needs = {each.name: need_of(spec, each.name, window) for each in spec.rungs}
    fitting = [name for name, need in needs.items() if need <= cap_gb * GB]
    chosen: Any = rung or (fitting or [min(needs, key=lambda name: needs[name])])[0]
    if device == "cuda":
        cap_process(int(cap_gb * GB), context_bytes=spec.context_bytes)
    engine = family.engine(spec, folder, device=device, **of_engine)
    engine.load(chosen)
    watch = Watch(device)
    whole = [rendered(engine, family, spec, window, watch, given)[1] for _ in range(2)]
    found = found_of(watch, before, whole, window)
    found |= {"rung": chosen, "cap_bytes": int(cap_gb * GB), "predicted_bytes": needs[chosen]}
    if "held_bytes" in found:
        found["predicted_over_held"] = needs[chosen] / found["held_bytes"]
    return found


def rendered(
    engine: Any,
    family: Family,
    spec: EngineSpec,
    window: Window,
    watch: Watch | None = None,
    given: Given = "image",
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], float]:
    """A window's frames, and the seconds it took."""
    width, height, num_frames, steps = window
    task = RenderTask(
        model=spec.model,
        frame_indices=tuple(range(num_frames)),
        shot_start=0,
        shot_end=num_frames,
        height=height,
        width=width,
        fps=spec.native_fps,
        num_inference_steps=steps,
        guidance_scale=family.guidance_scale,
        prompt=family.prompt,
        seed=1,
    )

    def report(phase: str, done: int, total: int) -> None:
        if watch is not None and done == 0:
            watch.begin(phase)
        elif watch is not None and phase == "denoise":
            watch.step()

    start = time.perf_counter()
    shown = picture(width, height)
    inputs = {
        "image": RenderInputs(image=shown),
        "nothing": RenderInputs(),
        "reference": RenderInputs(references=[shown]),
    }
    frames = engine.render(task, inputs[given], report).frames
    if watch is not None:
        watch.end()
    return frames, time.perf_counter() - start


def need_of(spec: EngineSpec, rung: str, window: Window) -> int:
    width, height, frames, steps = window
    shape = RenderShape(num_frames=frames, height=height, width=width, num_inference_steps=steps, guided=True)
    return need_bytes(spec, next(each for each in spec.rungs if each.name == rung), shape)


def found_of(watch: Watch, before: int, whole: list[float], window: Window) -> dict[str, Any]:
    phases = watch.close()
    found: dict[str, Any] = {
        "window": list(window),
        "phases": phases,
        "window_s": min(whole),
        # The first step of a shape makes plans of convolutions.
        "step_s": sorted(phases["denoise"]["steps_s"])[len(phases["denoise"]["steps_s"]) // 3],  # type: ignore[index, call-overload, arg-type]
        "decode_s": phases["decode"]["seconds"] / len(whole),
        "host_bytes": max(phase["anon_bytes"] for phase in phases.values()),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["context_bytes"] = context_bytes(before)
        found["reserved_bytes"] = max(phase["reserved_bytes"] for phase in phases.values())
        found["allocated_bytes"] = {name: phase["allocated_bytes"] for name, phase in phases.items()}
        found["num_alloc_retries"] = torch.cuda.memory_stats()["num_alloc_retries"]
        found["held_bytes"] = found["context_bytes"] + found["reserved_bytes"]
    return found


def rungs(folder: Path, device: str, family: Family, *, window: Window) -> dict[str, Any]:
    """How near every rung is to the first, in dB over the range of its frames, in the card's precision."""
    spec = family.spec(folder, model=folder.name)
    engine = family.engine(spec, folder, device=device)
    found: dict[str, Any] = {"window": list(window)}
    expected = None
    for each in spec.rungs:
        engine.load(each.name)
        frames = rendered(engine, family, spec, window)[0].astype(np.float64)
        expected = frames if expected is None else expected
        error = np.mean((frames - expected) ** 2)
        found[each.name] = float(10 * np.log10(np.ptp(expected) ** 2 / max(error, 1e-9)))
    return found


def needs(folder: Path, device: str, family: Family, *, settings: list[tuple[str, Window]]) -> dict[str, Any]:
    """Predicted need over held of settings, each capped at what is predicted."""
    before = used_of_the_card() if device == "cuda" else 0
    spec = family.spec(folder, model=folder.name)
    engine = family.engine(spec, folder, device=device)
    rows = []
    for rung, window in settings:
        need = need_of(spec, rung, window)
        row: dict[str, Any] = {"rung": rung, "window": list(window), "predicted_bytes": need}
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
        engine.load(rung)  # type: ignore[arg-type]
        if device == "cuda":
            torch.cuda.empty_cache()
            cap_process(need, context_bytes=spec.context_bytes)
        watch = Watch(device)
        try:
            whole = rendered(engine, family, spec, window, watch)[1]
            row |= found_of(watch, before, [whole], window)
            row.pop("phases")
            row["predicted_over_held"] = need / row["held_bytes"] if device == "cuda" else None
        except OutOfMemory as error:
            row["out_of_memory"] = str(error)[:200]
        rows.append(row)
    ratios = [row["predicted_over_held"] for row in rows if row.get("predicted_over_held")]
    return {"settings": rows, "worst": min(ratios, default=None), "best": max(ratios, default=None)}


Run = Callable[[Path, str, Family], dict[str, Any]]
Case = tuple[str | None, Run]
"""The folder, and what is measured."""
Cases = Mapping[str, Case]
"""By name."""


def measure(doc: str, result: Path, family: Family, cases: Cases) -> None:
    """What the command of a benchmark does."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where models are written; a temporary one unless given")
    parser.add_argument("--out", type=Path, default=result)
    parser.add_argument("--only", default="*", help="patterns of cases' names, with commas")
    parser.add_argument("--budget-s", type=float, default=600.0, help="for everything")
    parser.add_argument("--again", action="store_true", help="measure what is in --out already")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    args = parser.parse_args()
    deadline = time.monotonic() + args.budget_s
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    chosen = [name for name in cases if any(fnmatch(name, pattern) for pattern in args.only.split(","))]
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            if not args.again and "failed" not in results.get(name, {"failed": ""}):
                continue
            left_s = deadline - time.monotonic()
            if left_s < 20:
                print(f"{name}: left out, {left_s:.0f} s are left", flush=True)
                continue
            start = time.monotonic()
            found = in_child(family, cases[name], args.tiny, args.folder or Path(scratch), min(left_s, 150.0))
            results[name] = found | {"took_s": round(time.monotonic() - start, 1)}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name}: {told(results[name])}", flush=True)
    print(compared(results))


def told(found: dict[str, Any]) -> str:
    """A line of what was found."""
    plain = {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
    return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()})


def compared(results: dict[str, Any]) -> str:
    """Steps and whole windows as shares of stock's, resident and batched, of the same model and window."""
    lines = []
    for name, found in results.items():
        base = results.get(f"{name.split('/')[0]}/stock", {})
        if "step_s" in found and "step_s" in base and found["window"] == base["window"]:
            held = found.get("held_bytes", 0) / GB
            step, whole = (found[key] / base[key] for key in ("step_s", "window_s"))
            lines.append(f"{name}: step {step:.3f} x, window {whole:.3f} x of stock's, {held:.2f} GB held")
    return "\n".join(lines)


def in_child(family: Family, case: Case, tiny: bool, home: Path, limit_s: float) -> dict[str, Any]:
    """Run a case in a forked process; what ends it ends no other."""
    home.mkdir(parents=True, exist_ok=True)
    out = home / "found.json"
    out.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_run, args=(family, case, tiny, home, out))
    child.start()
    child.join(limit_s)
    if child.is_alive():
        child.kill()
        child.join()
        return {"failed": f"took more than {limit_s:.0f} s"}
    if not out.exists():
        return {"failed": f"the process ended with {child.exitcode}"}
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _run(family: Family, case: Case, tiny: bool, home: Path, out: Path) -> None:
    model, run = case
    try:
        folder = home if model is None else family.write_folder(home, model, tiny=tiny)
        if tiny:
            run = _small(run)
        found = run(folder, "cpu" if tiny else "cuda", family)
    except BaseException as error:
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {str(error)[:400]}"}
    out.with_suffix(".part").write_text(json.dumps(found))
    out.with_suffix(".part").rename(out)
    os._exit(0)


def _small(run: Any) -> Run:
    """The same over windows a CPU renders in a moment."""
    if not isinstance(run, partial):
        return run  # type: ignore[no-any-return]
    window = (64, 32, 4, 2)
    changed: dict[str, Any] = {}
    if "window" in run.keywords:
        changed["window"] = window
    if "settings" in run.keywords:
        changed["settings"] = [(rung, window) for rung, _ in run.keywords["settings"]]
    return partial(run.func, **(run.keywords | changed))
