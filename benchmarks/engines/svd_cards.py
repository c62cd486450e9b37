"""Stable Video Diffusion at full size on capped cards, beside stock diffusers in the same run.

Folders of SVD (14 frames) and SVD-XT (25) with random weights, 8 GB in all, are written to ``--folder``.
Every case runs in a process of its own, capped to the bytes it names; a case that fails is written as such.
Results are added to ``--out`` as they come; what is there is not measured again unless ``--again``. At the
end ratios to stock's guided step and whole window are printed.

    python benchmarks/engines/svd_cards.py                                     # three minutes on an H100
    python benchmarks/engines/svd_cards.py --only 'xt/*' --folder /dev/shm/svd  # patterns of names
    python benchmarks/engines/svd_cards.py --tiny --out /tmp/rehearsal.json    # every path on a CPU
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

# The parent of all cases must not open the card: its children are forked.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nodes.engines.memory import cap_process, use_expandable_segments  # noqa: E402

use_expandable_segments()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import StableVideoDiffusionPipeline  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.engines._farm_cases import GB, context_bytes, picture, used_of_the_card  # noqa: E402
from benchmarks.engines._full_size import Window  # noqa: E402
from benchmarks.engines._svd_folder import write_folder  # noqa: E402
from benchmarks.engines._watch import Watch, seconds_of  # noqa: E402
from farm.capabilities import EngineSpec, need_bytes  # noqa: E402
from farm.capabilities.engine_spec import RenderShape  # noqa: E402
from farm.planning.render_task import RenderTask  # noqa: E402
from nodes.engines.engine import OutOfMemory, RenderInputs  # noqa: E402
from nodes.engines.svd.engine import StableVideoDiffusion  # noqa: E402
from nodes.engines.svd.spec import svd_spec  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "svd_cards.json"
#: Width, height, frames, steps: as trained, of the article's pieces, small.
XT, SVD, EIGHT, SMALL = (1024, 576, 25, 6), (1024, 576, 14, 6), (1024, 576, 8, 6), (512, 320, 14, 4)


def card(folder: Path, device: str) -> dict[str, Any]:
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


def stock(folder: Path, device: str, *, window: Window, placed: str) -> dict[str, Any]:
    """Two windows of the stock pipeline, ``resident`` or with its ``model`` or ``leaf`` offload; frames are
    decoded one by one."""
    cuda = device == "cuda"
    width, height, num_frames, steps = window
    before = used_of_the_card() if cuda else 0
    dtype = torch.float16 if cuda else torch.float32
    pipe = StableVideoDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
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
    watch.around(pipe, "_encode_image", "encode", after="encode")
    watch.around(pipe, "prepare_latents", "prepare", after="denoise")
    watch.around(pipe, "decode_latents", "decode", after="finish")

    def stepped(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        watch.step()
        return tensors

    whole = []
    for _ in range(2):
        watch.end()
        start = time.perf_counter()
        pipe(
            Image.fromarray(picture(width, height)),
            width=width,
            height=height,
            num_frames=num_frames,
            num_inference_steps=steps,
            decode_chunk_size=1,
            output_type="np",
            callback_on_step_end=stepped,
        )
        watch.end()
        whole.append(time.perf_counter() - start)
    return found_of(watch, before, whole, window) | {"placed": placed}


def ours(
    folder: Path, device: str, *, window: Window, cap_gb: float, rung: str | None = None
) -> dict[str, Any]:
    """Two windows of the engine in a capped process, at the fastest rung that is predicted to fit, or one."""
    before = used_of_the_card() if device == "cuda" else 0
    spec = svd_spec(folder, model=folder.name)
    needs = {each.name: need_of(spec, each.name, window) for each in spec.rungs}
    fitting = [name for name, need in needs.items() if need <= cap_gb * GB]
    chosen: Any = rung or (fitting or [min(needs, key=lambda name: needs[name])])[0]
    if device == "cuda":
        cap_process(int(cap_gb * GB), context_bytes=spec.context_bytes)
    engine = StableVideoDiffusion(spec, folder, device=device)
    engine.load(chosen)
    watch = Watch(device)
    whole = [rendered(engine, spec, window, watch)[1] for _ in range(2)]
    found = found_of(watch, before, whole, window)
    found |= {"rung": chosen, "cap_bytes": int(cap_gb * GB), "predicted_bytes": needs[chosen]}
    if "held_bytes" in found:
        found["predicted_over_held"] = needs[chosen] / found["held_bytes"]
    return found


def rendered(
    engine: StableVideoDiffusion, spec: EngineSpec, window: Window, watch: Watch | None = None
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
        guidance_scale=3.0,
        seed=1,
    )

    def report(phase: str, done: int, total: int) -> None:
        if watch is not None and done == 0:
            watch.begin(phase)
        elif watch is not None and phase == "denoise":
            watch.step()

    start = time.perf_counter()
    frames = engine.render(task, RenderInputs(image=picture(width, height)), report).frames
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


def rungs(folder: Path, device: str, *, window: Window) -> dict[str, Any]:
    """How near every rung is to the first, in dB over the range of its frames, in the card's precision."""
    spec = svd_spec(folder, model=folder.name)
    engine = StableVideoDiffusion(spec, folder, device=device)
    found: dict[str, Any] = {"window": list(window)}
    expected = None
    for each in spec.rungs:
        engine.load(each.name)
        frames = rendered(engine, spec, window)[0].astype(np.float64)
        expected = frames if expected is None else expected
        error = np.mean((frames - expected) ** 2)
        found[each.name] = float(10 * np.log10(np.ptp(expected) ** 2 / max(error, 1e-9)))
    return found


def needs(folder: Path, device: str, *, settings: list[tuple[str, Window]]) -> dict[str, Any]:
    """Predicted need over held of settings, each capped at what is predicted."""
    before = used_of_the_card() if device == "cuda" else 0
    spec = svd_spec(folder, model=folder.name)
    engine = StableVideoDiffusion(spec, folder, device=device)
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
            whole = rendered(engine, spec, window, watch)[1]
            row |= found_of(watch, before, [whole], window)
            row.pop("phases")
            row["predicted_over_held"] = need / row["held_bytes"] if device == "cuda" else None
        except OutOfMemory as error:
            row["out_of_memory"] = str(error)[:200]
        rows.append(row)
    ratios = [row["predicted_over_held"] for row in rows if row.get("predicted_over_held")]
    return {"settings": rows, "worst": min(ratios, default=None), "best": max(ratios, default=None)}


Run = Callable[[Path, str], dict[str, Any]]
#: By name: the folder, and what is measured.
CASES: dict[str, tuple[str | None, Run]] = {
    "card": (None, card),
    "xt/stock": ("xt", partial(stock, window=XT, placed="resident")),
    "xt/8gb": ("xt", partial(ours, window=XT, cap_gb=8)),
    "xt/6gb": ("xt", partial(ours, window=XT, cap_gb=6)),
    "xt/6gb-two-passes": ("xt", partial(ours, window=XT, cap_gb=6, rung="cfg_split")),
    "xt/4gb": ("xt", partial(ours, window=XT, cap_gb=4)),
    "xt/3gb": ("xt", partial(ours, window=XT, cap_gb=3)),
    "xt/stock-model": ("xt", partial(stock, window=XT, placed="model")),
    "xt/stock-leaf": ("xt", partial(stock, window=XT, placed="leaf")),
    "svd/stock": ("svd", partial(stock, window=SVD, placed="resident")),
    "svd/6gb": ("svd", partial(ours, window=SVD, cap_gb=6)),
    "svd/4gb": ("svd", partial(ours, window=SVD, cap_gb=4)),
    "svd/eight-6gb": ("svd", partial(ours, window=EIGHT, cap_gb=6)),
    "svd/rungs": ("svd", partial(rungs, window=SMALL)),
    "xt/needs": (
        "xt",
        partial(
            needs,
            settings=[
                ("evict", XT),
                ("cfg_split", XT),
                ("stream", XT),
                ("resident", SVD),
                ("evict", EIGHT),
                ("stream_cfg_split", (768, 448, 25, 2)),
                ("stream", (576, 1024, 14, 2)),
                ("evict", (512, 320, 25, 2)),
            ],
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where models are written; a temporary one unless given")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", default="*", help="patterns of cases' names, with commas")
    parser.add_argument("--budget-s", type=float, default=600.0, help="for everything")
    parser.add_argument("--again", action="store_true", help="measure what is in --out already")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    args = parser.parse_args()
    deadline = time.monotonic() + args.budget_s
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    chosen = [name for name in CASES if any(fnmatch(name, pattern) for pattern in args.only.split(","))]
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            if not args.again and "failed" not in results.get(name, {"failed": ""}):
                continue
            left_s = deadline - time.monotonic()
            if left_s < 20:
                print(f"{name}: left out, {left_s:.0f} s are left", flush=True)
                continue
            start = time.monotonic()
            found = in_child(name, args.tiny, args.folder or Path(scratch), min(left_s, 150.0))
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


def in_child(name: str, tiny: bool, home: Path, limit_s: float) -> dict[str, Any]:
    """Run a case in a forked process; what ends it ends no other."""
    home.mkdir(parents=True, exist_ok=True)
    out = home / "found.json"
    out.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_run, args=(name, tiny, home, out))
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


def _run(name: str, tiny: bool, home: Path, out: Path) -> None:
    model, run = CASES[name]
    try:
        folder = home if model is None else write_folder(home, model, tiny=tiny)
        if tiny:
            run = _small(run)
        found = run(folder, "cpu" if tiny else "cuda")
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
    window = (64, 32, 3, 2)
    changed: dict[str, Any] = {}
    if "window" in run.keywords:
        changed["window"] = window
    if "settings" in run.keywords:
        changed["settings"] = [(rung, window) for rung, _ in run.keywords["settings"]]
    return partial(run.func, **(run.keywords | changed))


if __name__ == "__main__":
    main()
