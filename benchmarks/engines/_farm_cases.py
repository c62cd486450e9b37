"""What the farm's own engines take: a whole job within a cap, decoding, predicted needs over held ones."""

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
from benchmarks.engines._watch import Watch, anon_bytes
from farm.capabilities import EngineSpec, need_bytes
from farm.capabilities.engine_spec import TEXT_STAGE, RenderShape, host_need_bytes
from farm.planning.render_task import RenderTask
from nodes.engines.engine import OutOfMemory, RenderInputs, unheard
from nodes.engines.folders import WeightSource
from nodes.engines.memory import cap_process
from nodes.engines.table import spec_of

GB = 10**9
GIB = 2**30


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
        prompt="a ship sails slowly to the right under a low sun, birds fly past",
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
    **more: Any,
) -> dict[str, Any]:
    """One job of ``windows`` windows: its prompt, its steps and its decoding, in a process that is capped."""
    before = used_of_the_card() if device == "cuda" else 0
    watch = Watch(device)
    watch.begin("open")
    spec = spec_of(str(folder))
    chosen, need = rung_for(spec, window, int(cap_gb * GB), text=False)
    chosen = rung or chosen
    text_rung, text_need = rung_for(spec, window, int(cap_gb * GB), text=True)
    capped = cap_process(int(cap_gb * GB), context_bytes=spec.context_bytes) if device == "cuda" else False
    engine = engine_of(folder, device, weights or {}, **more)
    task, inputs = task_of(spec, window), {}
    watch.around(engine._text, "load", "text_load", after="text")
    if text:
        inputs = {"text": engine.encode_prompts(task, text_rung, unheard)}
    else:
        inputs = {"text": drawn_text(folder)}
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
        "text_s": phases.get("text", {}).get("seconds"),
        "job_s": min(whole) + phases.get("text", {}).get("seconds", 0.0),
        "host_bytes": max(phase["anon_bytes"] for phase in phases.values()),
        "host_loaded_bytes": host,
        "predicted_bytes": need_bytes(
            spec, next(r for r in spec.rungs if r.name == chosen), shape_of(window)
        ),
        "predicted_text_bytes": text_need,
        "predicted_host_bytes": host_need_bytes(spec, next(r for r in spec.rungs if r.name == chosen)),
        "stage_bytes": stage_bytes(spec, chosen, window),
    }
    del need
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


def vae_of(folder: Path, model: Model, device: str, dtype: torch.dtype) -> Any:
    """A stock VAE from its folder, on the device."""
    import diffusers

    kind = getattr(diffusers, model.vae_class)
    return kind.from_pretrained(folder / "vae", dtype=dtype).to(device).eval().requires_grad_(False)


def vae_holder(folder: Path, vae: Any, device: str, dtype: torch.dtype, rung: str) -> tuple[Any, Any]:
    """``(holder, decode)`` of the engine's own decoding over a VAE that is loaded."""
    from nodes.engines.common import Holder
    from nodes.engines.placement import Parts

    spec = spec_of(str(folder))
    held: dict[str, Any] = {"device": device, "dtype": dtype, "cpu_threads": 1}
    channels = (-1, 1, 1, 1)
    if spec.engine == "ltx":
        from nodes.engines.ltx.decode import decode
        from nodes.engines.ltx.facts import facts_of
        from nodes.engines.ltx.layout import VAE_DECODER, read_folder
        from nodes.engines.ltx.model import Model as LtxModel
        from nodes.engines.ltx.placements import CUDA

        ltx = LtxModel(
            read_folder(folder),
            facts_of(read_folder(folder)),
            {VAE_DECODER: vae.decoder},
            vae.latents_mean.float().view(channels).clone(),
            vae.latents_std.float().view(channels).clone(),
        )
        holder: Any = Holder(
            spec, parts=Parts((), VAE_DECODER, ()), placements=CUDA, read=lambda: ltx, **held
        )
        holder.load(rung)
        return holder, decode
    from nodes.engines.wan.causal_vae import decode as wan_decode
    from nodes.engines.wan.layout import VAE
    from nodes.engines.wan.layout import read_folder as read_wan
    from nodes.engines.wan.loading import _facts
    from nodes.engines.wan.model import Model as WanModel
    from nodes.engines.wan.spec import PLACEMENTS

    wan = WanModel(
        read_wan(folder),
        _facts(read_wan(folder)),
        {VAE: vae},
        torch.tensor(vae.config.latents_mean).view(channels),
        torch.tensor(vae.config.latents_std).view(channels),
    )
    holder = Holder(spec, parts=Parts((), VAE, ()), placements=PLACEMENTS, read=lambda: wan, **held)
    holder.load(rung)
    return holder, wan_decode


def decoding(folder: Path, device: str, model: Model, window: Window, *, exact_frames: int) -> dict[str, Any]:
    """Decoding by the stock VAE, untiled and tiled, and by the engine at its rungs; and their distance in
    float32, of ``exact_frames`` frames."""
    cuda = device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    width, height, num_frames, _ = window
    spec = spec_of(str(folder))
    found: dict[str, Any] = {"window": list(window)}

    def latents_of(frames: int, kind: torch.dtype) -> torch.Tensor:
        channels = int(model.vae.get("z_dim") or model.vae.get("latent_channels") or 16)
        if spec.engine == "ltx":
            channels = int(model.vae.get("latent_channels", 128))
        side = int(model.vae.get("spatial_compression_ratio") or model.vae.get("scale_factor_spatial") or 8)
        generator = torch.Generator(device).manual_seed(3)
        count = spec.frames.num_latents(frames)
        return torch.randn(
            channels, count, height // side, width // side, generator=generator, device=device, dtype=kind
        )

    def stock(vae: Any, latents: torch.Tensor) -> torch.Tensor:
        clip = latents[None].to(next(vae.parameters()).dtype)
        more = ()
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if spec.engine == "ltx":
            more = (torch.tensor([0.05], device=device, dtype=clip.dtype),)
            mean, std = vae.latents_mean, vae.latents_std
        mean, std = (torch.as_tensor(v, device=device).view(1, -1, 1, 1, 1) for v in (mean, std))
        clip = (clip * std + mean).to(clip)
        with torch.no_grad():
            return vae.decode(clip, *more, return_dict=False)[0][0]  # type: ignore[no-any-return]

    def measured(call: Any, warm: Any) -> dict[str, float]:
        warm()
        gc.collect()
        watch = Watch(device)
        for _ in range(2):  # the first makes plans of convolutions for every shape
            if cuda:
                torch.cuda.empty_cache()
            watch.begin("decode")
            call()
            watch.step()
        found = watch.close()["decode"]
        return {**found, "first_s": found["steps_s"][0], "seconds": found["steps_s"][1]}  # type: ignore[index]

    vae = vae_of(folder, model, device, dtype)
    many, few = latents_of(num_frames, torch.float32), latents_of(9, torch.float32)
    found["stock"] = measured(lambda: stock(vae, many), lambda: stock(vae, few))
    vae.enable_tiling()
    found["stock_tiled"] = measured(lambda: stock(vae, many), lambda: stock(vae, few))
    vae.disable_tiling()
    for rung in ("resident", "chunk" if spec.engine == "wan" else "evict"):
        holder, decode = vae_holder(folder, vae, device, dtype, rung)
        found[rung] = measured(lambda h=holder, d=decode: d(h, many), lambda h=holder, d=decode: d(h, few))
        for key in ("seconds", "reserved_bytes"):
            if key in found[rung]:
                found[rung][f"{key}_of_stock"] = found[rung][key] / found["stock"][key]
    del holder, vae
    gc.collect()
    torch.backends.cudnn.allow_tf32 = False
    vae = vae_of(folder, model, device, torch.float32)
    exact = latents_of(exact_frames, torch.float32)
    wanted = ((stock(vae, exact).permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1) * 255).cpu().numpy()
    for rung in ("resident", "chunk" if spec.engine == "wan" else "evict"):
        holder, decode = vae_holder(folder, vae, device, torch.float32, rung)
        made = decode(holder, exact).astype(np.float64)
        # Ours are whole numbers: what rounding took is not the decoder's.
        error = np.mean((made - np.round(wanted)) ** 2)
        spread = float(np.ptp(wanted))
        found[rung]["psnr_float32_db"] = float(10 * np.log10(spread**2 / max(error, 1e-12)))
        found[rung]["largest_error_of_255"] = float(np.abs(made - wanted).max())
    return found
