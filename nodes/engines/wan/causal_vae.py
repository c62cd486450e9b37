"""The causal video VAE, a latent at a time: all it needs of earlier frames is what they left in its caches.

The stock ``encode`` and ``decode`` run the same calls and keep the whole clip on the device, joined anew
after each of them; here a chunk's pixels or frames go as soon as its latents or pixels are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, patchify, unpatchify
from numpy.typing import NDArray

from nodes.engines.common import ClipOnHost, Holder, vae_pixels
from nodes.engines.engine import Frames
from nodes.engines.wan.layout import VAE
from nodes.engines.wan.model import Model
from nodes.engines.wan.vae import BandDecoder, Rows

OnLatent = Callable[[int, int], None]
"""``on_latent(done, total)``: called after every latent; may raise to stop."""


@dataclass(frozen=True)
class Clip:
    """A window's frames in the chunks that the VAE encodes at once."""

    num_frames: int
    height: int
    width: int
    frames_per_latent: int

    def chunks(
        self, frame_at: Callable[[int], NDArray[np.generic] | None], device: str
    ) -> Iterator[torch.Tensor]:
        """(3, n, H, W) on a device for each latent; what is no frame is 0, the middle of the range."""
        empty = torch.zeros(3, self.height, self.width, device=device)
        for start in (0, *range(1, self.num_frames, self.frames_per_latent)):
            frames = [frame_at(i) for i in range(start, start + (self.frames_per_latent if start else 1))]
            yield torch.stack([empty if f is None else _pixels(f, device) for f in frames], dim=1)


def _pixels(frame: NDArray[np.generic], device: str) -> torch.Tensor:
    """(H, W, 3) uint8, or float32 in [-1, 1] already, to (3, H, W)."""
    if frame.dtype == np.uint8:
        return vae_pixels(frame.astype(np.uint8), device)[0]
    return torch.from_numpy(frame.astype(np.float32)).to(device).permute(2, 0, 1)


@torch.no_grad()
def encode_chunks(held: Holder[Model], chunks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Latents (C, L, h, w) float32 on the device: their mode.

    ``chunks`` are the pixels of each latent, (3, n, H, W) float32 in [-1, 1]: one frame for the first and
    ``frames_per_latent`` for every other.
    """
    model, vae = held.placed.model, held.placed.model.vae
    caches = no_caches(vae.encoder)

    def encoded(chunk: torch.Tensor) -> torch.Tensor:
        return encode_chunk(vae, caches, chunk[None].to(held.device, held.dtype))[0].float()

    with held.placed.on_card(VAE):
        latents = torch.cat(held.calls.map(encoded, chunks), dim=1)
    return (latents - model.latent_mean.to(latents)) / model.latent_std.to(latents)


@torch.no_grad()
def encode_video(held: Holder[Model], frames: Frames) -> torch.Tensor:
    """(F, H, W, 3) uint8 to latents (C, L, h, w) float32 on the device: their mode."""
    num_frames, height, width, _ = frames.shape
    clip = Clip(num_frames, height, width, held.placed.model.folder.frames_per_latent)
    return encode_chunks(held, clip.chunks(lambda place: frames[place], held.device))


@torch.no_grad()
def decode(held: Holder[Model], latents: torch.Tensor, *, on_latent: OnLatent | None = None) -> Frames:
    """Latents (C, L, h, w) of a whole window to its frames (F, H, W, 3) uint8, in memory that does not grow
    with F.
    """
    model, vae = held.placed.model, held.placed.model.vae
    latents = latents.to(held.device)
    scaled = (latents * model.latent_std.to(latents) + model.latent_mean.to(latents)).to(held.dtype)
    num_latents = latents.shape[1]
    stride, side = model.folder.frames_per_latent, model.folder.pixels_per_latent
    shape = ((num_latents - 1) * stride + 1, latents.shape[2] * side, latents.shape[3] * side)

    with held.placed.on_card(VAE), ClipOnHost(shape) as clip:
        bands = bands_of(vae, latents.shape[2], held.placed.placement.pieces)
        patch = shape[1] // bands[-1][1]
        for number, rows in enumerate(bands):
            decoder, caches = BandDecoder(vae.decoder, rows), no_caches(vae.decoder)

            # The middle is computed anew for every band: of each latent it takes less than keeping it would.
            def decoded(place: int, decoder: BandDecoder = decoder, caches: Caches = caches) -> torch.Tensor:
                entered = middle(vae, caches, scaled[None, :, place : place + 1])
                return out_of_patches(vae, decoder(entered, first=place == 0))

            for place in range(num_latents):
                for pixels in held.calls.map(decoded, [place]):
                    first = (place - 1) * stride + 1 if place else 0
                    clip.put(pixels[0].transpose(0, 1), first=first, top=rows[0] * patch)
                if on_latent is not None:
                    on_latent((number * num_latents + place + 1) // len(bands), num_latents)
        return clip.frames()


Caches = list[torch.Tensor | None]
"""What each causal convolution keeps of the frames before; changed by every call."""


def no_caches(coder: torch.nn.Module) -> Caches:
    """Those before a clip's first frame, of the VAE's encoder or decoder."""
    return [None] * sum(isinstance(module, WanCausalConv3d) for module in coder.modules())


def encode_chunk(vae: Any, caches: Caches, pixels: torch.Tensor) -> torch.Tensor:
    """The pixels (1, 3, n, H, W) of one latent to its mode (1, C, 1, h, w)."""
    if vae.config.patch_size is not None:
        pixels = patchify(pixels, patch_size=vae.config.patch_size)  # type: ignore[no-untyped-call]
    moments: torch.Tensor = vae.quant_conv(vae.encoder(pixels, feat_cache=caches, feat_idx=[0]))
    return moments[:, : vae.config.z_dim]


def bands_of(vae: Any, latent_rows: int, count: int) -> list[Rows]:
    """Up to ``count`` bands of the rows of the decoder's last level, for latents of so many rows."""
    rows = latent_rows * 2 ** (len(vae.decoder.up_blocks) - 1)
    count = min(count, latent_rows)
    return [(rows * number // count, rows * (number + 1) // count) for number in range(count)]


def middle(vae: Any, caches: Caches, latent: torch.Tensor) -> torch.Tensor:
    """One latent (1, C, 1, h, w) as it enters the upper levels: the middle attends to all of a frame."""
    place = [0]
    x = _convolved(vae.decoder.conv_in, vae.post_quant_conv(latent), caches, place)
    made: torch.Tensor = vae.decoder.mid_block(x, feat_cache=caches, feat_idx=place)
    return made


def out_of_patches(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Rows of the decoder's last level (1, C, n, h, W) to pixels (1, 3, n, H, W)."""
    if vae.config.patch_size is None:
        return pixels
    return unpatchify(pixels, patch_size=vae.config.patch_size)  # type: ignore[no-any-return,no-untyped-call]


def _convolved(conv: Any, x: torch.Tensor, caches: Caches, place: list[int]) -> torch.Tensor:
    """A causal convolution behind the two frames that it keeps, as the decoder's first and last are run."""
    kept, own = caches[place[0]], x[:, :, -2:].clone()
    if own.shape[2] < 2 and kept is not None:
        own = torch.cat([kept[:, :, -1:], own], dim=2)
    made: torch.Tensor = conv(x, kept)
    caches[place[0]] = own
    place[0] += 1
    return made
