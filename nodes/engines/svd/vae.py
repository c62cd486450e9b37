"""AutoencoderKLTemporalDecoder, a frame at a time: its halves as components of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class LatentEncoder(nn.Module):
    """The encoder's half: pixels (N, 3, H, W) in [-1, 1] to their latents' mode (N, C, h, w), not scaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        moments: torch.Tensor = self.quant_conv(self.encoder(pixels))
        return moments.chunk(2, dim=1)[0]


class FrameDecoder(nn.Module):
    """The decoder's half, one frame alone: the latent (1, C, h, w), not scaled, to pixels (1, 3, H, W).

    Of a convolution over time, which has zeros before and after a lone frame, its middle is left.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        for layer in list(vae.decoder.modules()):
            for name, child in list(layer.named_children()):
                if isinstance(child, nn.Conv3d):
                    setattr(layer, name, _MiddleOfConv(child))
        self.decoder = vae.decoder

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        only_images = torch.zeros(1, 1, dtype=latent.dtype, device=latent.device)
        decoded: torch.Tensor = self.decoder(latent, image_only_indicator=only_images, num_frames=1)
        return decoded


class _MiddleOfConv(nn.Conv2d):
    """A Conv3d of kernel (3, 1, 1) over one frame: (B, C, 1, h, w) to (B, C', 1, h, w)."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 1, device="meta")
        middle = conv.weight.detach()[:, :, conv.kernel_size[0] // 2].clone()
        self.weight = nn.Parameter(middle, requires_grad=False)
        self.bias = conv.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states[:, :, 0])[:, :, None]
