"""RIFE 4.6 (Huang et al. 2022): flow to a moment between two pictures, from coarse to fine.

Four blocks, one after the other, each mend the two flows to the pictures and the mask by which what they
fetch is mixed. The network is written here; its weights are the user's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nodes.engines.folders import StoredTensor
from nodes.engines.weights import whole
from nodes.interpolation.layout import INPUTS, WIDTHS
from stitching.clip import Image

#: How much smaller each block sees its pictures; sides are a multiple of four times the first.
_SCALES = (8, 4, 2, 1)
_SIDE_MULTIPLE = 32
_SLOPE = 0.2


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(self.conv(x) * self.beta + x, _SLOPE)


def _halving(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE))


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv0 = nn.Sequential(_halving(inputs, width // 2), _halving(width // 2, width))
        self.convblock = nn.Sequential(*(_Residual(width) for _ in range(8)))
        self.lastconv = nn.Sequential(
            nn.ConvTranspose2d(width, 24, 4, stride=2, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, seen: torch.Tensor, flow: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) and the flows so far (B, 4, H, W); what is added to them and the mask (B, 1, H, W)."""
        small = _resized(seen, 1 / self.scale)
        if flow is not None:
            small = torch.cat([small, _resized(flow, 1 / self.scale) / self.scale], dim=1)
        made = _resized(self.lastconv(self.convblock(self.conv0(small))), self.scale)
        return made[:, :4] * self.scale, made[:, 4:5]


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = map(_Block, INPUTS, WIDTHS, _SCALES)
        self.block0, self.block1, self.block2, self.block3 = blocks

    def forward(self, a: torch.Tensor, b: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [0, 1], sides multiples of 32, and moments (B, 1, 1, 1); (B, 3, H, W)."""
        moment = moment.expand(-1, -1, *a.shape[2:])
        flow, mask = self.block0(torch.cat([a, b, moment], dim=1), None)
        for block in (self.block1, self.block2, self.block3):
            seen = torch.cat([_fetched(a, flow[:, :2]), _fetched(b, flow[:, 2:]), moment, mask], dim=1)
            more, mended = block(seen, flow)
            flow, mask = flow + more, mask + mended
        share = torch.sigmoid(mask)
        mixed: torch.Tensor = _fetched(a, flow[:, :2]) * share + _fetched(b, flow[:, 2:]) * (1 - share)
        return mixed


def _resized(x: torch.Tensor, scale: float) -> torch.Tensor:
    return x if scale == 1 else functional.interpolate(x, scale_factor=scale, mode="bilinear")


def _fetched(picture: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """What lies at each place's flow (B, 2, H, W), x and y in pixels; beyond the border the border's own."""
    height, width = picture.shape[2:]
    across = torch.linspace(-1, 1, width, device=picture.device)[None, None] + flow[:, 0] * (2 / (width - 1))
    down = torch.linspace(-1, 1, height, device=picture.device)[None, :, None] + flow[:, 1] * (
        2 / (height - 1)
    )
    at = torch.stack([across, down], dim=-1)
    return functional.grid_sample(picture, at, padding_mode="border", align_corners=True)


class Rife:
    """Makes pictures between two, as ``stitching.interpolation.Between`` asks.

    Args:
        tensors: As ``layout.tensors_of`` gives them.
        device: "cpu" or "cuda".
    """

    def __init__(self, tensors: Mapping[str, StoredTensor], *, device: str) -> None:
        with torch.device("meta"):
            network = _Network()
        weights = {name: whole(tensor).view(tensor.shape) for name, tensor in tensors.items()}
        network.load_state_dict(weights, assign=True)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device
        self._one_at_a_time = threading.Lock()  # each call takes all cores, or the card

    @torch.no_grad()
    def __call__(self, a: Image, b: Image, fractions: Sequence[float]) -> list[Image]:
        """Pictures (H, W, 3) uint8 at these parts of the way from a to b."""
        height, width = a.shape[:2]
        beyond = (0, -width % _SIDE_MULTIPLE, 0, -height % _SIDE_MULTIPLE)
        with self._one_at_a_time:
            ends = [
                functional.pad(torch.from_numpy(each).to(self._device).permute(2, 0, 1)[None] / 255, beyond)
                for each in (a, b)
            ]
            made = []
            for fraction in fractions:
                moment = torch.full((1, 1, 1, 1), fraction, device=self._device)
                mixed = self._network(*ends, moment)[0, :, :height, :width]
                levels = (mixed.clamp(0, 1) * 255).round().to(torch.uint8)
                made.append(np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy()))
        return made
