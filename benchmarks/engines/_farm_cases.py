"""What the farm's own engines take: a whole job within a cap, predicted needs over held ones."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.engines._full_size import Model, Window, write_in_format
from benchmarks.engines._watch import Watch, anon_bytes, largest_mappings
from farm.capabilities import EngineSpec, need_bytes
from farm.capabilities.engine_spec import TEXT_STAGE, RenderShape, host_need_bytes
from farm.planning.render_task import RenderTask
from nodes.engines.engine import OutOfMemory, RenderInputs, unheard
from nodes.engines.folders import WeightSource
from nodes.engines.memory import cap_process
from nodes.engines.table import spec_of

GB = 10**9
GIB = 2**30
PROMPT = "a ship sails slowly to the right under a low sun, birds fly past"


def engine_of(folder: Path, device: str, weights: dict[str, WeightSource], **more: Any) -> Any:
    """The engine of a folder, not loaded yet, with the rungs of a card on any device."""
    spec = spec_of(str(folder))
    if spec.engine == "ltx":
        from nodes.engines.ltx.engine import LTXVideo

        return LTXVideo(spec, folder, device=device, weights=weights, **more)
    from nodes.engines.wan.engine import Wan

    return Wan(spec, source=folder, device=device, weights=weights, **more)


def task_of(spec: EngineSpec, window: Window, seed: int = 1) -> RenderTask:
    width, height, frames, steps = window
    return RenderTask(
        model=spec.model,
        prompt=PROMPT,
        frame_indices=tuple(range(frames)),
        shot_start=0,
        shot_end=frames,
        height=height,
        width=width,
        fps=spec.native_fps,
        num_inference_steps=steps,
        guidance_scale=1.0,
        seed=seed,
    )


def picture(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    across = np.linspace(0, 3, width)[None, :, None]
    down = np.linspace(0, 2, height)[:, None, None]
    return (np.sin(across + down * np.array([1.0, 1.7, 2.3])) * 110 + 120).astype(np.uint8)


def drawn_text(folder: Path) -> dict[str, Any]:
    """In place of an encoded prompt."""
    width = json.loads((folder / "text_encoder" / "config.json").read_text())["d_model"]
    return {"prompt_embeds": np.random.default_rng(1).standard_normal((40, width), np.float32)}


def shape_of(window: Window) -> RenderShape:
    """Of a window from one photo."""
    width, height, frames, steps = window
    return RenderShape(
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guided=False,
        encodes_clips=False,
    )


def rung_for(spec: EngineSpec, window: Window, cap_bytes: int, *, text: bool) -> tuple[str, int]:
    """The fastest rung that is predicted to fit, else the smallest; and its predicted need."""
    needs = {rung.name: need_bytes(spec, rung, shape_of(window), text=text) for rung in spec.rungs}
    for name, need in needs.items():
        if need <= cap_bytes and name != "disk":
            return name, need
    return min(needs.items(), key=lambda item: item[1])


def stage_bytes(spec: EngineSpec, rung: str, window: Window) -> dict[str, float]:
    """Of each stage what ``need_bytes`` adds up, before the reserve ratio and without the context."""
    found = {}
    for each in spec.rungs:
        for stage in each.stages if each.name == rung else ():
            only = each.model_copy(update={"stages": (stage,)})
            need = need_bytes(spec, only, shape_of(window), text=stage.name == TEXT_STAGE)
            found[stage.name] = (need - spec.context_bytes) / spec.reserve_ratio
    return found


def used_of_the_card() -> int:
    """Bytes that are used of the card, whoever holds them, without opening it."""
    import pynvml

    pynvml.nvmlInit()
    mine = int(os.environ.get("CUDA_VISIBLE_DEVICES") or 0)
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(mine)).used)


def context_bytes(before: int) -> int:
    """What the card holds of this process beside what the allocator reserved."""
    return used_of_the_card() - before - torch.cuda.memory_reserved()


def job(
    folder: Path,
    device: str,
    window: Window,
    *,
    cap_gb: float,
    rung: str | None = None,
    windows: int = 1,
    weights: dict[str, WeightSource] | None = None,
    text: bool = True,
    caps_gb: tuple[float, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """One job of ``windows`` windows: its prompt, its steps and its decoding, in a process that is capped.

    ``caps_gb``: behind it, a window of two steps each with another cap, the weights where they are.
    """
    before = used_of_the_card() if device == "cuda" else 0
    watch = Watch(device)
    watch.begin("open")
    spec = spec_of(str(folder))
    chosen, need = rung_for(spec, window, int(cap_gb * GB), text=False)
    chosen = rung or chosen
    text_rung, text_need = rung_for(spec, window, int(cap_gb * GB), text=True)
    capped = cap_process(int(cap_gb * GB), context_bytes=spec.context_bytes) if device == "cuda" else False
    engine = engine_of(folder, device, weights or {}, **more)
    inputs, texts_s = {"text": drawn_text(folder)}, []
    watch.around(engine._text, "load", "text_load", after="text")
    # The first opens the card's libraries, as the first of two jobs of the stock pipeline does.
    for number in range(2 if text else 0):
        task = task_of(spec, window).model_copy(update={"prompt": f"{PROMPT} {number}"})
        start = time.perf_counter()
        inputs = {"text": engine.encode_prompts(task, text_rung, unheard)}
        watch.end()
        texts_s.append(time.perf_counter() - start)
    watch.begin("load")
    engine.load(chosen)
    watch.end()
    host = anon_bytes()

    def report(phase: str, done: int, total: int) -> None:
        if phase in ("encode", "denoise", "decode") and done == 0:
            watch.begin(phase)
        elif phase == "denoise":
            watch.step()

    whole, each, said = [], [], watch.seconds()
    for number in range(windows):
        start = time.perf_counter()
        frames = engine.render(
            task_of(spec, window, number), RenderInputs(image=picture(*window[:2]), **inputs), report
        ).frames
        watch.end()
        whole.append(time.perf_counter() - start)
        each.append({name: seconds - said.get(name, 0.0) for name, seconds in watch.seconds().items()})
        said = watch.seconds()
    phases = watch.close()
    assert frames.shape == (window[2], window[1], window[0], 3)
    found: dict[str, Any] = {
        "rung": chosen,
        "text_rung": text_rung,
        "window": list(window),
        "cap_bytes": int(cap_gb * GB),
        "capped": capped,
        "phases": phases,
        "window_s": whole,
        "phases_s": each,
        "step_s": phases["denoise"]["step_s"],
        "decode_s": min(of_window["decode"] for of_window in each),
        # With what the encoder is read and let go of.
        "texts_s": texts_s,
        "job_s": min(whole) + min(texts_s, default=0.0),
        "first_job_s": whole[0] + sum(texts_s[:1]),
        "host_bytes": max(phase["anon_bytes"] for phase in phases.values()),
        "host_largest": largest_mappings(),
        "host_loaded_bytes": host,
        "predicted_bytes": need_bytes(
            spec, next(r for r in spec.rungs if r.name == chosen), shape_of(window)
        ),
        "predicted_text_bytes": text_need,
        "predicted_host_bytes": host_need_bytes(spec, next(r for r in spec.rungs if r.name == chosen)),
        "stage_bytes": stage_bytes(spec, chosen, window),
    }
    del need
    found["capped_to"] = [
        at_cap(engine, spec, device, window, cap, RenderInputs(image=picture(*window[:2]), **inputs))
        for cap in caps_gb
    ]
    if device == "cuda":
        context = context_bytes(before)
        rendering = [phases[name]["reserved_bytes"] for name in ("encode", "denoise", "decode")]
        found |= {"context_bytes": context, "reserved_bytes": max(rendering)}
        found["num_alloc_retries"] = torch.cuda.memory_stats()["num_alloc_retries"]
        found["held_bytes"] = context + max(rendering)
        found["predicted_over_held"] = found["predicted_bytes"] / found["held_bytes"]
        if text:
            held = context + phases["text"]["reserved_bytes"]
            found |= {"held_text_bytes": held, "predicted_over_held_text": text_need / held}
    return found


def at_cap(
    engine: Any, spec: EngineSpec, device: str, window: Window, cap_gb: float, inputs: RenderInputs
) -> dict[str, Any]:
    """A window of two steps under a cap, at the fastest rung that is predicted to fit."""
    window = (*window[:3], 2)
    rung, need = rung_for(spec, window, int(cap_gb * GB), text=False)
    if device == "cuda":
        cap_process(int(cap_gb * GB), context_bytes=spec.context_bytes)
    engine.load(rung)
    watch = Watch(device)

    def report(phase: str, done: int, total: int) -> None:
        if phase in ("encode", "denoise", "decode") and done == 0:
            watch.begin(phase)
        elif phase == "denoise":
            watch.step()

    engine.render(task_of(spec, window, 7), inputs, report)
    phases = watch.close()
    return {
        "cap_gb": cap_gb,
        "rung": rung,
        "predicted_bytes": need,
        "reserved_bytes": max(p.get("reserved_bytes", 0) for p in phases.values()),
        "steps_s": phases["denoise"]["steps_s"],
        "seconds": {name: phase["seconds"] for name, phase in phases.items()},
    }


def job_in_format(folder: Path, device: str, window: Window, model: Model, kind: str, **more: Any) -> Any:
    """``job`` with the transformers' weights in fewer bits, each expert from the same file."""
    path = folder.parent / f"{folder.name}-{kind}.{'gguf' if kind.startswith('Q') else 'safetensors'}"
    write_in_format(path, model, kind, torch.bfloat16 if device == "cuda" else torch.float32)
    source = WeightSource(file=path)
    experts = ("transformer", "transformer_2") if "transformer_2" in model.index else ("transformer",)
    try:
        found = job(folder, device, window, weights=dict.fromkeys(experts, source), **more)
        return found | {"format": kind, "file_bytes": path.stat().st_size}
    finally:
        path.unlink()


def sweep(folder: Path, device: str, settings: list[tuple[str, Window]], **more: Any) -> dict[str, Any]:
    """Predicted need over held of settings (rung, window), each capped at what is predicted."""
    before = used_of_the_card() if device == "cuda" else 0
    spec = spec_of(str(folder))
    engine = engine_of(folder, device, {}, **more)
    text = drawn_text(folder)
    rows = []
    for rung, window in settings:
        if rung not in {each.name for each in spec.rungs}:
            continue
        need = need_bytes(spec, next(r for r in spec.rungs if r.name == rung), shape_of(window))
        row: dict[str, Any] = {"rung": rung, "window": list(window), "predicted_bytes": need}
        try:
            gc.collect()
            if device == "cuda":
                torch.cuda.set_per_process_memory_fraction(1.0)
            engine.load(rung)
            if device == "cuda":
                torch.cuda.empty_cache()
                cap_process(need, context_bytes=spec.context_bytes)
            watch = Watch(device)

            def report(phase: str, done: int, total: int, watch: Watch = watch) -> None:
                if phase in ("encode", "denoise", "decode") and done == 0:
                    watch.begin(phase)

            engine.render(task_of(spec, window), RenderInputs(image=picture(*window[:2]), text=text), report)
            phases = watch.close()
            row["seconds"] = {name: phase["seconds"] for name, phase in phases.items()}
            row["stage_bytes"] = stage_bytes(spec, rung, window)
            if device == "cuda":
                row["reserved"] = {name: phase["reserved_bytes"] for name, phase in phases.items()}
                row["allocated"] = {name: phase["allocated_bytes"] for name, phase in phases.items()}
                row["context_bytes"] = context_bytes(before)
                row["held_bytes"] = row["context_bytes"] + max(row["reserved"].values())
                row["predicted_over_held"] = need / row["held_bytes"]
        except OutOfMemory as error:
            row["out_of_memory"] = str(error)[:200]
        rows.append(row)
    ratios = [row["predicted_over_held"] for row in rows if "predicted_over_held" in row]
    return {
        "settings": rows,
        "worst": min(ratios, default=None),
        "best": max(ratios, default=None),
        "out_of_memory": sum("out_of_memory" in row for row in rows),
    }
