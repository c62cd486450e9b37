"""What a window is given: latents in place of its own or as tokens beside them, and how noisy each one is.

As diffusers' LTXConditionPipeline has it: what starts at frame 0 replaces the window's first latents; what
comes later stands beside the window as tokens of its own, at the time of its frames. Of a clip within the
window two latents stand beside it and the rest replaces the window's. A latent given with strength s has a
noise level of at most 1 - s, at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

#: Latents of a clip within the window that stand beside it.
_BESIDE = 2
_EPSILON = 1e-6


@dataclass(frozen=True)
class Given:
    """Latents (C, k, h, w) float32 that a window is given from ``frame`` on, and as much noise for them."""

    latents: torch.Tensor
    noise: torch.Tensor
    frame: int
    strength: float = 1.0


@dataclass(frozen=True)
class Places:
    """Where a model believes its latents: in steps of frames and pixels, each where its first frame is."""

    frames_per_latent: int
    #: Of a side.
    pixels_per_latent: int
    #: The first latent is one frame (0.9.5 and later), not as many as the others.
    causal: bool

    def of(self, latents: torch.Tensor, frame: int, fps: float) -> torch.Tensor:
        """(3, L h w) of latents (C, L, h, w) from ``frame`` on: seconds, and pixels down and across."""
        grid = torch.meshgrid(*(torch.arange(side) for side in latents.shape[1:]), indexing="ij")
        time, down, across = (axis.flatten().float() for axis in grid)
        time = time * self.frames_per_latent
        if self.causal:
            time = (time + 1 - self.frames_per_latent).clamp(min=0)
        places = [
            (time + frame) * (1.0 / fps),
            down * self.pixels_per_latent,
            across * self.pixels_per_latent,
        ]
        return torch.stack(places).to(latents.device)


@dataclass(frozen=True)
class Window:
    """A window's tokens: those beside it first, then its own, latent by latent. Tensors are float32.

    ``tokens`` (N, C): noise, a noised video, or what is given; ``noise`` (N, C): that is added to what is
    given while the model looks at it; ``coordinates`` (3, N): seconds, and pixels down and across;
    ``strengths``: of every latent, 0 where nothing is given; ``beside``: how many latents stand beside the
    window; ``shape`` (C, L, h, w): of its own.
    """

    tokens: torch.Tensor
    noise: torch.Tensor
    coordinates: torch.Tensor
    strengths: tuple[float, ...]
    beside: int
    shape: tuple[int, int, int, int]

    @property
    def tokens_per_latent(self) -> int:
        return self.shape[2] * self.shape[3]

    def levels(self, sigma: float) -> list[float]:
        """The noise level of every latent when the window's is ``sigma``."""
        return [min(sigma, 1 - strength) for strength in self.strengths]

    def own_latents(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, C) to the window's own latents (C, L, h, w)."""
        channels, latents, height, width = self.shape
        own = tokens[self.beside * self.tokens_per_latent :]
        return own.reshape(latents, height, width, channels).permute(3, 0, 1, 2)


def window_of(
    latents: torch.Tensor,
    noise: torch.Tensor,
    given: Sequence[Given],
    *,
    fps: float,
    places: Places,
) -> Window:
    """A window that starts from ``latents`` (C, L, h, w) float32 and is given some of it.

    Args:
        latents: Noise, or a video noised to the first step's level.
        noise: Of the same shape: its own noise.
        given: What is given; of two at one place the later counts.
        fps: Frame rate the motion is meant for.
        places: Where the model believes its latents.
    """
    latents = latents.clone()
    strengths = [0.0] * latents.shape[1]
    beside: list[Given] = []
    for each in given:
        place, replacing, strength = 0, each.latents, each.strength
        if each.frame:
            place = each.frame // places.frames_per_latent + _BESIDE
            replacing = each.latents[:, _BESIDE:]
            beside.append(
                Given(each.latents[:, :_BESIDE], each.noise[:, :_BESIDE], each.frame, each.strength)
            )
        end = place + replacing.shape[1]
        latents[:, place:end] = torch.lerp(latents[:, place:end], replacing, strength)
        strengths[place:end] = [strength] * replacing.shape[1]
    parts = [torch.lerp(each.noise, each.latents, each.strength) for each in beside]
    frames = [each.frame for each in beside]
    return Window(
        tokens=torch.cat([_tokens(part) for part in (*parts, latents)]),
        noise=torch.cat([_tokens(part) for part in (*(each.noise for each in beside), noise)]),
        coordinates=torch.cat(
            [
                places.of(part, frame, fps)
                for part, frame in zip((*parts, latents), (*frames, 0), strict=True)
            ],
            dim=1,
        ),
        strengths=(*(s.strength for s in beside for _ in range(s.latents.shape[1])), *strengths),
        beside=sum(part.shape[1] for part in parts),
        shape=(latents.shape[0], latents.shape[1], latents.shape[2], latents.shape[3]),
    )


def next_level(level: float, sigma: float, sigmas: Sequence[float]) -> float:
    """Where a latent of ``level`` goes in the step from ``sigma``: to the next of ``sigmas`` below it.

    What is given waits at its own level until the window's is no higher.
    """
    if sigma - _EPSILON >= level:
        return level
    return max((each for each in sigmas if each < level - _EPSILON), default=0.0)


def _tokens(latents: torch.Tensor) -> torch.Tensor:
    """(C, L, h, w) to (L h w, C)."""
    return latents.flatten(1).T
