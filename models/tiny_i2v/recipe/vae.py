"""Stage two: the autoencoder, and the image encoder beside it.

The autoencoder learns to rebuild pictures from latents, also from latents moved by a fraction of a cell: a
latent that moves as its picture does is what the UNet needs to learn motion from (after EQ-VAE, Kouzelis et
al. 2025, arXiv 2502.09509). The image encoder learns to tell its picture's colours apart: a thumbnail has to
be readable from its embedding.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import AutoencoderKL
from transformers import CLIPVisionModelWithProjection

from models.tiny_i2v.recipe.architecture import (
    CONTEXT_DIM,
    VISION_MEAN,
    VISION_SIDE,
    VISION_STD,
    new_image_encoder,
    new_vae,
)
from models.tiny_i2v.recipe.camera import view_points
from models.tiny_i2v.recipe.pictures import Atlas, atlas

SIDE = 128
#: Learning rate at its highest, and the share of the stage in which it falls to nothing.
LEARNING_RATE = 2e-3
MOVED_SHARE = 0.25
KL_WEIGHT = 1e-5
#: Side of the thumbnail the image embedding has to hold.
THUMBNAIL_SIDE = 8


def crops(sources: Atlas, count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3, side, side) float in [-1, 1]: random squares of the pictures, some turned a little."""
    device = generator.device

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    still = torch.zeros(count, 4, device=device)
    still[:, 3] = (rand(count) - 0.5) * 0.6 * (rand(count) < 0.5)
    points = view_points(still, torch.ones(count, 1, device=device), side, side)
    scale = 0.6 + 0.8 * rand(count)
    return sources.film(points, rand(count, 2) * 0.7 + 0.15, scale, generator)[:, 0]


def vision_pixels(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [-1, 1] to what the image encoder reads, (N, 3, 64, 64)."""
    small = F.interpolate(images, (VISION_SIDE, VISION_SIDE), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (VISION_MEAN, VISION_STD))
    return (small / 2 + 0.5 - mean) / std


def moved(images: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) moved by (N, 2) of their own pixels, bicubic, the edge repeated."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    at_x = (x[None] + offset[:, 0, None, None] + 0.5) / width * 2 - 1
    at_y = (y[None] + offset[:, 1, None, None] + 0.5) / height * 2 - 1
    grid = torch.stack([at_x, at_y], -1).to(images.dtype)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


def train_vae(
    out: Path,
    *,
    minutes: float,
    seed: int,
    device: str,
    batch: int,
    pictures: int,
    fast: bool,
    rank: int,
    world: int,
) -> None:
    """Train both and save them under ``out`` as ``vae`` and ``image_encoder``; go on from what is there."""
    started = time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed + 101 * rank)
    sources = atlas(pictures, 384, seed + 1000 * rank, device)
    if rank == 0:
        print(f"{pictures} pictures in {time.monotonic() - started:.0f} s", flush=True)
    if (out / "vae").is_dir():
        vae = new_vae()  # one read with its folder's path would save that path
        vae.load_state_dict(
            AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).state_dict()
        )
        vision = CLIPVisionModelWithProjection.from_pretrained(
            out / "image_encoder", dtype=torch.float32
        ).train()
    else:
        vae, vision = new_vae(), new_image_encoder()
    vae, vision = vae.to(device), vision.to(device)
    thumbnail = torch.nn.Linear(CONTEXT_DIM, 3 * THUMBNAIL_SIDE**2).to(device)
    weights = [*vae.parameters(), *vision.parameters(), *thumbnail.parameters()]
    optimizer = torch.optim.AdamW(
        weights, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=device != "cpu"
    )
    average = [w.detach().clone() for w in weights]
    moved_count = int(batch * MOVED_SHARE)

    def loss_of(
        images: torch.Tensor, noise: torch.Tensor, offset: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moments = vae.quant_conv(vae.encoder(images)).float()
        mean, log_variance = moments.chunk(2, 1)
        log_variance = log_variance.clamp(-30, 10)
        latent = mean + torch.exp(log_variance / 2) * noise
        latent = torch.cat([moved(latent[:moved_count], offset), latent[moved_count:]])
        wanted = torch.cat([moved(images[:moved_count], 4 * offset), images[moved_count:]])
        made = vae.decoder(vae.post_quant_conv(latent)).float()
        squared = (made - wanted).square()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        embeds = vision(vision_pixels(images)).image_embeds
        small = F.adaptive_avg_pool2d(images, THUMBNAIL_SIDE).flatten(1)
        seen = (thumbnail(embeds).float() - small).square().mean()
        rebuilt = squared.mean()
        total = 2 * rebuilt + 0.5 * (made - wanted).abs().mean() + KL_WEIGHT * kl + 0.1 * seen
        return total, squared[moved_count:].mean().detach()

    compiled = torch.compile(loss_of) if fast else loss_of
    step, last_said = 0, 0.0
    training_started = time.monotonic()
    while (done := agreed((time.monotonic() - training_started) / (60 * minutes), world, device)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 100) * min(1, 2 * (1 - done)) ** 1.5
        images = crops(sources, batch, SIDE, generator)
        noise = torch.randn(batch, 4, SIDE // 4, SIDE // 4, generator=generator, device=device)
        offset = torch.rand(moved_count, 2, generator=generator, device=device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            loss, squared = compiled(images, noise, offset)
        loss.backward()
        average_gradients(weights, world)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step == 1:
            training_started = time.monotonic()  # what compiling took is not training
        keep = min(0.999, step / (step + 10))
        torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - keep)
        if rank == 0 and time.monotonic() - last_said > 15:
            last_said = time.monotonic()
            psnr = 10 * math.log10(4 / float(squared))
            print(f"vae step {step}, {done:.0%}, loss {float(loss.detach()):.4f}, {psnr:.2f} dB", flush=True)
    if rank > 0:
        return
    with torch.no_grad():
        for weight, mean in zip(weights, average, strict=True):
            weight.copy_(mean)
    vae.register_to_config(scaling_factor=_scaling_factor(vae, crops(sources, 256, SIDE, generator)))
    for name, model in (("vae", vae), ("image_encoder", vision)):
        model.half().save_pretrained(out / name)
    print(f"vae: {step} steps of {batch}, scaling factor {vae.config.scaling_factor:.4f}", flush=True)


def average_gradients(weights: list[torch.Tensor], world: int) -> None:
    """Give every process the mean of all their gradients."""
    if world == 1:
        return
    gradients = [w.grad for w in weights if w.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat, dist.ReduceOp.AVG)
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


def agreed(value: float, world: int, device: str) -> float:
    """The largest of all processes' values, the same in each: they stop together."""
    if world == 1:
        return value
    largest = torch.tensor(value, device=device, dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return float(largest)


@torch.no_grad()
def _scaling_factor(vae: Any, images: torch.Tensor) -> float:
    """What brings the latents to unit variance."""
    return 1 / float(vae.encode(images).latent_dist.mode().std())
