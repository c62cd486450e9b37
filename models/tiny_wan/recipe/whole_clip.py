"""A Wan autoencoder over whole clips at once: the same function as its stock loop over latents, fit to train.

Stock ``encode`` and ``decode`` walk a clip four frames (one latent) at a time and hand what the causal
convolutions have seen from chunk to chunk. Over a whole clip those convolutions need no such cache; only the
two temporal resamplers do something else for the first frame than for the rest, and get that form here. A
single frame is a picture: its causal convolutions are two-dimensional, with the last tap in time alone.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanCausalConv3d,
    WanResample,
    WanRMS_norm,
    patchify,
    unpatchify,
)


def prepare(vae: Any) -> None:
    """Give the modules of an AutoencoderKLWan their whole-clip form; with a cache they do what they did."""
    for module in vae.modules():
        if isinstance(module, WanResample):
            module.forward = MethodType(_resample, module)
        elif isinstance(module, WanCausalConv3d):
            module.forward = MethodType(_convolve, module)


def channels_last(vae: Any) -> Any:
    """Lay the weights out as graphics cards convolve fastest."""
    for weight in vae.parameters():
        if weight.ndim >= 4:
            layout = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
            weight.data = weight.data.contiguous(memory_format=layout)
    return vae


def lighten(vae: Any) -> None:
    """Let norms read and write half the bytes where what they are given is in bfloat16; for training only."""
    for module in vae.modules():
        if isinstance(module, WanRMS_norm):
            module.forward = MethodType(_norm, module)


def encode(vae: Any, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and logarithm of the variance of the latents, (N, z, 1 + (F - 1) / 4, h, w) each.

    Args:
        vae: After ``prepare``.
        clips: (N, 3, F, H, W) in [-1, 1], F = 4 k + 1.
    """
    x = patchify(clips, vae.config.patch_size) if vae.config.patch_size else clips
    mean, log_variance = vae.quant_conv(vae.encoder(x)).float().chunk(2, 1)
    return mean, log_variance.clamp(-30, 20)


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """(N, z, L, h, w) to clips (N, 3, 4 L - 3, H, W), not clamped to [-1, 1]."""
    x = vae.decoder(vae.post_quant_conv(latents), first_chunk=True)
    return (unpatchify(x, vae.config.patch_size) if vae.config.patch_size else x).float()


def _convolve(self: Any, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
    """A causal convolution; of a single frame, or one without extent in time or in space, as a flat one."""
    depth, height, _ = self.kernel_size
    if cache_x is None and height == 1 and self.stride[0] == 1:  # (3, 1, 1) or (1, 1, 1)
        flat = F.conv2d(
            F.pad(x.flatten(3), (0, 0, depth - 1, 0)) if depth > 1 else x.flatten(3),
            self.weight.squeeze(-1),
            self.bias,
        )
        return flat.unflatten(3, x.shape[3:])
    if cache_x is None and x.shape[2] == 1 and depth == 3 and height == 3:
        return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=1)[:, :, None]
    return WanCausalConv3d.forward(self, x, cache_x)  # type: ignore[no-any-return]


def _norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.bfloat16:
        return WanRMS_norm.forward(self, x)  # type: ignore[no-any-return]
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-12)
    return x * (self.scale / length).bfloat16() * self.gamma.bfloat16()


def _resample(
    self: Any, x: torch.Tensor, feat_cache: list[Any] | None = None, feat_idx: list[int] | None = None
) -> torch.Tensor:
    """Twice the frames but for the first, or half of them, which the first one passes unchanged."""
    if feat_cache is not None:
        return WanResample.forward(self, x, feat_cache, feat_idx)  # type: ignore[no-any-return]
    if self.mode == "upsample3d" and x.shape[2] > 1:
        later = self.time_conv(x[:, :, 1:])
        count, channels, frames, height, width = x.shape
        pairs = later.view(count, 2, channels, frames - 1, height, width).permute(0, 2, 3, 1, 4, 5)
        x = torch.cat([x[:, :, :1], pairs.reshape(count, channels, 2 * (frames - 1), height, width)], 2)
    count, _, frames = x.shape[:3]
    x = self.resample(x.transpose(1, 2).flatten(0, 1))
    x = x.view(count, frames, *x.shape[1:]).transpose(1, 2)
    if self.mode == "downsample3d" and frames > 1:
        before, here, after = x[:, :, 0:-2:2], x[:, :, 1:-1:2], x[:, :, 2::2]
        weight = self.time_conv.weight.flatten(3).squeeze(-1)  # (out, in, 3)
        taps = torch.cat([before, here, after], 1)
        flat = F.conv2d(
            taps.flatten(3), weight.permute(0, 2, 1).flatten(1)[:, :, None, None], self.time_conv.bias
        )
        x = torch.cat([x[:, :, :1], flat.unflatten(3, x.shape[3:])], 2)
    return x


@torch.no_grad()
def start_simple(vae: Any) -> None:
    """First weights with which a clip is rebuilt frame by frame, four frames of a latent alike.

    Convolutions see their own frame only, the temporal resamplers take the middle frame and repeat it, the
    residual blocks and the attention add little. Training then goes from pictures to clips without a break.
    """
    for name, module in vae.named_modules():
        if isinstance(module, WanResample):
            if module.mode == "downsample3d":
                _as_identity(module.time_conv, tap=1)
            elif module.mode == "upsample3d":
                _as_identity(module.time_conv, tap=2)
        elif isinstance(module, WanCausalConv3d) and module.kernel_size == (3, 3, 3):
            # As wide a spread as a flat convolution would start with.
            fan_in = module.in_channels * 9
            module.weight.zero_()
            torch.nn.init.uniform_(module.weight[:, :, 2], -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
            if name.endswith("conv2"):
                module.weight.mul_(0.2)
            if module.bias is not None:
                module.bias.zero_()
    for block in (*vae.encoder.mid_block.attentions, *vae.decoder.mid_block.attentions):
        block.proj.weight.zero_()
        block.proj.bias.zero_()


def _as_identity(convolution: Any, tap: int) -> None:
    """A (3, 1, 1) convolution that passes one frame on, to each of its outputs where there are two."""
    channels = convolution.in_channels
    convolution.weight.zero_()
    convolution.bias.zero_()
    for first in range(0, convolution.out_channels, channels):
        eye = torch.eye(channels, device=convolution.weight.device)
        convolution.weight[first : first + channels, :, tap, 0, 0] = eye
