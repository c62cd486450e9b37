"""Decoding by the stock VAE, untiled and tiled, and by the engine's own, and their distance."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.engines._full_size import Model, Window
from benchmarks.engines._watch import Watch
from nodes.engines.table import spec_of


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
    from nodes.engines.wan.loading import _facts, lay_channels_last
    from nodes.engines.wan.model import Model as WanModel
    from nodes.engines.wan.spec import PLACEMENTS

    if device == "cuda":  # as it is read for a card
        lay_channels_last(vae)
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

    def measured(call: Any, warm: Any, times: int = 2) -> dict[str, float]:
        warm()
        gc.collect()
        watch = Watch(device)
        for _ in range(times):  # the first makes plans of convolutions for every shape
            if cuda:
                torch.cuda.empty_cache()
            watch.begin("decode")
            call()
            watch.step()
        found = watch.close()["decode"]
        return {**found, "first_s": found["steps_s"][0], "seconds": found["steps_s"][-1]}  # type: ignore[index]

    vae = vae_of(folder, model, device, dtype)
    many, few = latents_of(num_frames, torch.float32), latents_of(9, torch.float32)
    found["stock"] = measured(lambda: stock(vae, many), lambda: stock(vae, few))
    vae.enable_tiling()
    found["stock_tiled"] = measured(lambda: stock(vae, many), lambda: stock(vae, few), 1)
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
