"""Who tells made clips from true ones: networks that look at patches of two frames of a clip at once.

The second frame is brought to where the camera stood for the first, so that texture which does not move with
the camera, or boils, differs between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from models.tiny_wan.recipe.architecture import SPATIAL, TEMPORAL
from models.tiny_wan.recipe.data.camera import view_points

#: Two frames of colours; where the second one shows the first; where known frames show it.
CHANNELS = 8
COLOURS = 6
WIDTHS = (48, 96, 160)
#: The noise, in frames of [-1, 1], by which it is asked how it feels small changes (in place of the gradient:
#: Lin et al. 2025, "Diffusion Adversarial Post-Training"), and what that feeling costs.
NOISE, PENALTY = 0.05, 0.02
#: Frames between the two of a pair; every fourth pair has the first frame of its clip.
APART = (-4, -2, -1, 1, 2, 4)


@dataclass(frozen=True)
class Pairs:
    """K pairs of each of N clips: the frames ``here`` and ``there`` (N, K), and what (N * K, 2, H, W) goes
    with the colours.
    """

    here: torch.Tensor
    there: torch.Tensor
    grid: torch.Tensor
    where: torch.Tensor

    def of(self, clips: torch.Tensor) -> torch.Tensor:
        """(N * K, CHANNELS, H, W) of clips (N, 3, F, H, W)."""
        rows = torch.arange(len(clips), device=clips.device)[:, None]
        by_frame = clips.transpose(1, 2)
        first = by_frame[rows, self.here].flatten(0, 1)
        second = by_frame[rows, self.there].flatten(0, 1)
        second = F.grid_sample(second, self.grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        pair = torch.cat([first, second * self.where[:, :1], self.where], 1)
        return pair.contiguous(memory_format=torch.channels_last)


def drawn_pairs(
    motion: torch.Tensor, times: torch.Tensor, seen: torch.Tensor, count: int, generator: torch.Generator
) -> Pairs:
    """``count`` pairs of each clip.

    Args:
        motion: (N, 4) of the camera, see ``camera.parameters``.
        times: (N, F) seconds of each frame.
        seen: (N, 1, L, h, w), 1 where known frames show what is there.
    """
    device, (clips, frames) = motion.device, times.shape
    height, width = (side * SPATIAL for side in seen.shape[-2:])

    def random(limit: int) -> torch.Tensor:
        return torch.randint(limit, (clips, count), generator=generator, device=device)

    here = 1 + random(frames - 1)
    apart = torch.tensor(APART, device=device)[random(len(APART))]
    there = here + apart
    there = torch.where((there < 0) | (there >= frames), here - apart, there).clamp(0, frames - 1)
    there = torch.where(random(4) == 0, 0, there)
    grid = seen_from(motion, times.gather(1, here), times.gather(1, there), height, width)
    # Up to the middles of the outermost pixels.
    inside = 1 - 1 / torch.tensor([width, height], device=device)
    shows = (grid.abs() <= inside).all(-1)[:, None].float()
    latent = (here + TEMPORAL - 1) // TEMPORAL
    known = seen[torch.arange(clips, device=device)[:, None], 0, latent].flatten(0, 1)[:, None]
    known = F.interpolate(known, scale_factor=float(SPATIAL), mode="nearest")
    return Pairs(here, there, grid, torch.cat([shows, known], 1))


def seen_from(
    motion: torch.Tensor, here_s: torch.Tensor, there_s: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """For ``grid_sample``: where each pixel of the frames at ``here_s`` lies in those at ``there_s``.

    Args:
        motion: (N, 4) of the camera.
        here_s, there_s: (N, K) seconds.

    Returns:
        (N * K, height, width, 2), x then y, -1 to 1 within the frame.
    """
    points = view_points(motion, here_s, height, width)
    right, down, zoom, roll = ((motion[:, i, None] * there_s)[..., None, None] for i in range(4))
    x, y = points[..., 0] - right, points[..., 1] - down
    cos, sin = torch.exp(zoom) * torch.cos(roll), torch.exp(zoom) * torch.sin(roll)
    back = torch.stack([(cos * x + sin * y) * 2 / width, (cos * y - sin * x) * 2 / height], -1)
    return back.flatten(0, 1)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))


class _Patches(nn.Module):
    """A logit for every 8 x 8 pixels, of about 80 x 80 around them."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * CHANNELS, widths[0], 3, padding=1)]
        for before, width in zip((widths[0], *widths), widths, strict=False):
            if len(layers) > 2:
                layers += [nn.LeakyReLU(0.2), nn.Conv2d(before, width, 4, 2, 1)]
            layers.append(_Block(width))
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.logit = nn.Conv2d(widths[-1], 1, 3, padding=1)
        nn.init.normal_(self.logit.weight, std=0.01)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        features = self.layers(pairs)
        with torch.autocast(pairs.device.type, enabled=False):
            return self.logit(features.float())


class Discriminator(nn.Module):
    """Patches of the frames, and of the frames at half size."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.fine, self.coarse = _Patches(widths), _Patches(widths)

    def forward(self, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of pairs (M, CHANNELS, H, W) for true against made, at both sizes."""
        return self.fine(pairs), self.coarse(F.avg_pool2d(pairs, 2))


def told_apart(true: tuple[torch.Tensor, ...], made: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """How badly made patches are told from the true ones there (a relativistic pairing loss, Huang et al.
    2024: "The GAN is dead; long live the GAN!"); the other way about it is what the maker is after.
    """
    losses = [F.softplus(m - t).mean() for t, m in zip(true, made, strict=True)]
    return torch.stack(losses).mean()


def judging_loss(
    discriminator: Discriminator,
    true: torch.Tensor,
    made: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the discriminator learns from on pairs, and the share of patches that it tells apart."""
    both = torch.cat([true, made])
    logits = discriminator(both)
    noise = torch.zeros_like(both)
    noise[:, :COLOURS] = NOISE * torch.randn(both[:, :COLOURS].shape, generator=generator, device=both.device)
    felt = discriminator(both + noise)
    sides = [logit.chunk(2) for logit in logits]
    loss = told_apart(tuple(side[0] for side in sides), tuple(side[1] for side in sides))
    for calm, shaken in zip(logits, felt, strict=True):
        # Of both true and made pairs, each counts whole.
        loss = loss + PENALTY * ((shaken - calm) / NOISE).square().mean() / len(logits)
    right = torch.stack([(side[0] > side[1]).float().mean() for side in sides]).mean()
    return loss, right.detach()
