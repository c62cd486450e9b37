"""What diffusers' own pipelines and transformers take with the same folders, as they are placed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from benchmarks.engines._farm_cases import GB, PROMPT, context_bytes, picture, used_of_the_card
from benchmarks.engines._full_size import Model, Window
from benchmarks.engines._watch import Watch
from nodes.engines.memory import cap_process

Placed = Literal["resident", "model", "leaf"]


def pipeline_of(folder: Path, model: Model, device: str, placed: Placed) -> Any:
    import diffusers

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipe = getattr(diffusers, model.pipeline).from_pretrained(folder, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    if placed == "resident":
        if "transformer_2" in model.index:
            # One copy on the card for both: the files are the same.
            pipe.transformer_2 = pipe.transformer
        return pipe.to(device)
    if placed == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        if "transformer_2" in model.index:
            pipe.transformer_2 = pipe.transformer
        pipe.enable_group_offload(
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device == "cuda",
        )
    return pipe


def stock_job(
    folder: Path, model: Model, device: str, window: Window, placed: Placed, *, cap_gb: float | None = None
) -> dict[str, Any]:
    """One job of the stock pipeline, twice where it is resident: text, condition, steps and decoding."""
    width, height, num_frames, steps = window
    before = used_of_the_card() if device == "cuda" else 0
    if cap_gb is not None and device == "cuda":
        cap_process(int(cap_gb * GB), context_bytes=500 * 2**20)
    watch = Watch(device)
    watch.begin("open")
    pipe = pipeline_of(folder, model, device, placed)
    watch.end()
    ahead: dict[str, Any] = {} if model.family == "ltx" else {"max_sequence_length": 512}
    watch.around(pipe, "encode_prompt", "text", after="between")
    watch.around(pipe, "prepare_latents", "encode", after="denoise")
    watch.around(pipe.vae, "decode", "decode", after="finish")

    def stepped(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        watch.step()
        return tensors

    whole = []
    for _ in range(2 if placed == "resident" else 1):
        watch.phases.clear()
        start = time.perf_counter()
        pipe(
            image=Image.fromarray(picture(width, height)),
            prompt=PROMPT,
            width=width,
            height=height,
            num_frames=num_frames,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="np",
            callback_on_step_end=stepped,
            **ahead,
        )
        watch.end()
        whole.append(time.perf_counter() - start)
    phases = watch.close()
    found: dict[str, Any] = {
        "placed": placed,
        "window": list(window),
        "phases": phases,
        "job_s": min(whole),
        "step_s": phases["denoise"]["step_s"],
        "decode_s": phases["decode"]["seconds"],
        "host_bytes": max(phase["anon_bytes"] for phase in phases.values()),
        "host_used_bytes": max(phase["host_used_bytes"] for phase in phases.values()),
    }
    if device == "cuda":
        found["context_bytes"] = context_bytes(before)
        found["reserved_bytes"] = max(phase["reserved_bytes"] for phase in phases.values())
    return found


def stock_steps(
    folder: Path, model: Model, device: str, window: Window, *, ways: tuple[str, ...], times: int = 3
) -> dict[str, Any]:
    """Seconds of the stock transformer's pass, in the order of ``ways``: ``plain``, ``per_token`` (a timestep
    for every token), ``compiled``, ``model`` (model offload: it visits the card; steps are as ``plain``,
    ``visit_s`` is there and back) and, last, ``leaf`` (group offload of leaves on a stream)."""
    import diffusers

    cuda = device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    kind = getattr(diffusers, model.transformer_class)
    transformer = kind.from_pretrained(folder / "transformer", torch_dtype=dtype).eval()
    transformer.requires_grad_(False)
    found: dict[str, Any] = {"window": list(window)}
    on_card = False
    for way in ways:
        watch = Watch(device)
        watch.begin("place")
        if way == "model":
            if on_card:
                transformer.to("cpu")
            transformer.to(device)
            on_card = True
        elif way == "leaf":
            if on_card:
                transformer.to("cpu")
            transformer.enable_group_offload(
                onload_device=torch.device(device),
                offload_device=torch.device("cpu"),
                offload_type="leaf_level",
                use_stream=cuda,
            )
        elif not on_card:
            transformer.to(device)
            on_card = True
        watch.begin("first")
        call = pass_of(transformer, model, window, device, dtype, per_token=way == "per_token")
        if way == "compiled":
            transformer.compile_repeated_blocks()
        call()
        watch.begin("steps")
        for _ in range(times):
            call()
            watch.step()
        if way == "model":
            watch.begin("back")
            transformer.to("cpu")
            torch.cuda.empty_cache()
            on_card = False
        phases = watch.close()
        found[way] = {"step_s": phases["steps"]["step_s"], "phases": phases}
        if way == "model":
            found[way]["visit_s"] = phases["place"]["seconds"] + phases["back"]["seconds"]
        # Pinned copies are in it, which the driver holds.
        found[way]["host_used_bytes"] = max(phase["host_used_bytes"] for phase in phases.values())
        if cuda:
            found[way]["reserved_bytes"] = max(p["reserved_bytes"] for p in phases.values())
    return found


def pass_of(
    transformer: Any, model: Model, window: Window, device: str, dtype: torch.dtype, *, per_token: bool
) -> Any:
    """A call of one pass without guidance over a window's tokens."""
    width, height, num_frames, _ = window
    config = transformer.config
    generator = torch.Generator(device).manual_seed(2)

    def drawn(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=kind)

    more: dict[str, Any] = {}
    if model.family == "ltx":
        stride, side = model.vae["temporal_compression_ratio"], model.vae["spatial_compression_ratio"]
        tokens = ((num_frames - 1) // stride + 1) * (height // side) * (width // side)
        hidden = drawn(1, tokens, config.in_channels)
        text = drawn(1, 128, config.caption_channels)
        more["encoder_attention_mask"] = torch.ones(1, 128, device=device)
        more["video_coords"] = torch.rand(1, 3, tokens, device=device, generator=generator) * 6
        timestep = torch.full((1, tokens) if per_token else (1,), 700.0, device=device)
    else:
        side = model.vae.get("scale_factor_spatial") or 8
        grid = ((num_frames - 1) // 4 + 1, height // side, width // side)
        tokens = grid[0] * grid[1] * grid[2] // 4
        hidden = drawn(1, config.in_channels, *grid)
        text = drawn(1, 512, config.text_dim)
        timestep = torch.full((1, tokens) if per_token else (1,), 700.0, device=device)
        if model.transformer_class == "WanVACETransformer3DModel":
            more["control_hidden_states"] = drawn(1, config.vace_in_channels, *grid)

    def call() -> None:
        with torch.no_grad():
            transformer(
                hidden_states=hidden,
                timestep=timestep,
                encoder_hidden_states=text,
                return_dict=False,
                **more,
            )

    return call
