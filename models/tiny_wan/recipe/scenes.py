"""Clips made on the device, with what was asked for and what of them the first frame already tells.

A clip has a ground, a picture filmed by a camera, and sometimes a second layer over it with a camera of its
own: near things (parallax), a sky or water seen through a region of the frame, an object in the middle, or
snow. In the first frame both cameras look at the same place: a point of a layer is named by its pixel there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from models.tiny_wan.recipe.asked import FAR, KINDS, NEAR, RATES, SNOW_PX_PER_S, Asked, thing_motion
from models.tiny_wan.recipe.data.camera import film, parameters, stays_in_view, view_points
from models.tiny_wan.recipe.data.pictures import Atlas, noise_pictures

#: All that can be asked, in order; a clip's question is told by its place here.
ALL_ASKED: tuple[Asked, ...] = tuple(asked for chosen, _ in KINDS.values() for asked in chosen)
#: Share of clips with at least ``DENSE`` frames a second; the others are as sparse as drafts of long videos.
DENSE_SHARE, DENSE = 0.75, 4.0
#: Zooms and rolls, whose flow differs from place to place, are the hardest: so much more often than others.
TURNING, TURNING_SHARE = {"in", "out", "clockwise", "counterclockwise"}, 2
#: Things that would come back mirrored at the edge of their picture need at least so many.
LEAST_RATE_OF_SNOW = 6.0


@dataclass(frozen=True)
class Shape:
    """Frames, height and width in pixels, and clips of one batch on one GPU."""

    frames: int
    height: int
    width: int
    batch: int


@dataclass(frozen=True)
class Scene:
    """N clips of F frames.

    frames: (N, 3, F, H, W) in [-1, 1]. seen: (N, F, H, W), 1 where the first frame shows it.
    asked: (N,) places in ``ALL_ASKED``. rate: (N,) places in ``RATES``.
    """

    frames: torch.Tensor
    seen: torch.Tensor
    asked: torch.Tensor
    rate: torch.Tensor


class Scenes:
    """Makes clips of all kinds from an atlas."""

    def __init__(self, pictures: Atlas, generator: torch.Generator, *, textures: int = 48) -> None:
        self.pictures, self.generator, self.device = pictures, generator, generator.device
        self.motions = parameters([asked.motion for asked in ALL_ASKED], self.device)
        self.things = parameters([thing_motion(asked.thing) for asked in ALL_ASKED], self.device)
        drifting = [asked.thing.startswith("drift") for asked in ALL_ASKED]
        self._drifts = torch.tensor(drifting, device=self.device)
        self.rates = torch.tensor(RATES, device=self.device)
        # Of the host: asking the device for a number would wait for it.
        self._chance = random.Random(generator.initial_seed())
        self._places: dict[str, torch.Tensor] = {}
        for kind, (chosen, _) in KINDS.items():
            often = [a for a in chosen for _ in range(TURNING_SHARE if TURNING & set(a.camera) else 1)]
            self._places[kind] = torch.tensor([ALL_ASKED.index(a) for a in often], device=self.device)
        self._clouds = noise_pictures(textures, 384, generator)
        self._flakes = _flakes(textures, 384, generator)

    def make(
        self, shape: Shape, shares: dict[str, float] | None = None, *, dense: float = DENSE_SHARE
    ) -> Scene:
        """A batch of this shape; ``shares`` of the kinds instead of those of ``KINDS``."""
        shares = shares or {kind: share for kind, (_, share) in KINDS.items()}
        counts = _counts(shape.batch, shares, self._chance.random())
        parts = [self._of_kind(kind, count, shape, dense) for kind, count in counts.items() if count]
        joined = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        return Scene(joined[0], joined[1], joined[2], joined[3])

    def _of_kind(self, kind: str, count: int, shape: Shape, dense: float) -> tuple[torch.Tensor, ...]:
        places = self._places[kind]
        asked = places[torch.randint(len(places), (count,), generator=self.generator, device=self.device)]
        rate = self._rate(count, kind, dense)
        times = torch.arange(shape.frames, device=self.device)[None] / self.rates[rate][:, None]
        motion = self.motions[asked]
        ground = self._points(motion * (FAR if kind == "parallax" else 1.0), times, shape)
        frames = self._film(ground, shape)
        seen = stays_in_view(ground).float()
        if kind == "parallax":
            near = self._points(motion * NEAR, times, shape)
            frames, seen = self._over(
                frames, ground, seen, self._film(near, shape), near, self._spots(count, shape)
            )
        elif kind == "thing":
            frames, seen = self._thing(frames, ground, seen, asked, times, shape)
        elif kind == "snow":
            frames, seen = self._snow(frames, seen, motion, times, shape)
        return frames.transpose(1, 2), seen, asked, rate

    def _thing(
        self,
        frames: torch.Tensor,
        ground: torch.Tensor,
        seen: torch.Tensor,
        asked: torch.Tensor,
        times: torch.Tensor,
        shape: Shape,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The object in the middle, or a sky or water behind a line that stays where it is."""
        layer = self._points(self.things[asked], times, shape)
        drifts = self._drifts[asked]
        content = self._film(layer, shape)
        which = torch.randint(len(self._clouds), (len(asked),), generator=self.generator, device=self.device)
        scale = 0.5 + self._rand(len(asked))
        clouds = film(self._clouds[which], layer, self._rand(len(asked), 2) * 384, scale) * 2 - 1
        content = torch.where(drifts[:, None, None, None, None], clouds, content)
        region, spot = self._region(len(asked), shape), self._middle(len(asked), shape)
        pick = drifts[:, None, None, None]
        covers = torch.where(pick, region(ground), spot(layer))
        at_first_ground = torch.where(pick, region(ground), spot(ground))
        at_first_layer = torch.where(pick, region(layer), spot(layer))
        seen = seen * (at_first_ground < 0.5)
        layer_seen = stays_in_view(layer).float() * (at_first_layer > 0.5)
        cover = covers[:, :, None]
        return frames + cover * (content - frames), seen + covers * (layer_seen - seen)

    def _over(
        self,
        frames: torch.Tensor,
        ground: torch.Tensor,
        seen: torch.Tensor,
        content: torch.Tensor,
        layer: torch.Tensor,
        spots: _Spots,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer of spots that move with it."""
        covers = spots(layer)
        seen = seen * (spots(ground) < 0.5)
        seen = seen + covers * (stays_in_view(layer).float() - seen)
        return frames + covers[:, :, None] * (content - frames), seen

    def _snow(
        self,
        frames: torch.Tensor,
        seen: torch.Tensor,
        motion: torch.Tensor,
        times: torch.Tensor,
        shape: Shape,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two depths of flakes, the near ones larger and faster; they follow half of the camera's motion."""
        for speed, scale in ((0.6, 1.6), (1.0, 0.9)):
            falling = motion * 0.5
            falling[:, 1] = falling[:, 1] - SNOW_PX_PER_S * speed
            layer = self._points(falling, times, shape)
            which = torch.randint(
                len(self._flakes), (len(frames),), generator=self.generator, device=self.device
            )
            scales = torch.full((len(frames),), scale, device=self.device)
            covers = film(self._flakes[which], layer, self._rand(len(frames), 2) * 384, scales)
            frames = frames + 0.9 * covers * (1 - frames)
            seen = seen + covers[:, :, 0] * (stays_in_view(layer).float() - seen)
        return frames, seen

    def _film(self, points: torch.Tensor, shape: Shape) -> torch.Tensor:
        count, side = len(points), max(shape.height, shape.width)
        scale = (0.6 + 0.7 * self._rand(count)) * min(1.0, 1.6 * 128 / side)
        return self.pictures.film(points, 0.2 + 0.6 * self._rand(count, 2), scale, self.generator)

    @staticmethod
    def _points(motion: torch.Tensor, times: torch.Tensor, shape: Shape) -> torch.Tensor:
        return view_points(motion, times, shape.height, shape.width)

    def _rate(self, count: int, kind: str, dense: float) -> torch.Tensor:
        least = LEAST_RATE_OF_SNOW if kind == "snow" else DENSE
        first = next(i for i, rate in enumerate(RATES) if rate >= least)
        many = torch.randint(first, len(RATES), (count,), generator=self.generator, device=self.device)
        few = torch.randint(0, max(1, first), (count,), generator=self.generator, device=self.device)
        share = 1.0 if kind == "snow" else dense
        return torch.where(self._rand(count) < share, many, few)

    def _rand(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def _spots(self, count: int, shape: Shape) -> _Spots:
        """Four shapes about the frame and beyond it."""
        size = torch.tensor([shape.width, shape.height], device=self.device)
        middle = (self._rand(count, 4, 2) - 0.5) * size * 1.6
        radius = min(shape.height, shape.width) * (0.08 + 0.16 * self._rand(count, 4, 2))
        return _Spots(middle, radius, self._rand(count, 4) < 0.5)

    def _middle(self, count: int, shape: Shape) -> _Spots:
        """One shape that covers the middle of the first frame."""
        short = min(shape.height, shape.width)
        middle = (self._rand(count, 1, 2) - 0.5) * short * 0.15
        return _Spots(middle, short * (0.14 + 0.12 * self._rand(count, 1, 2)), self._rand(count, 1) < 0.5)

    def _region(self, count: int, shape: Shape) -> _Region:
        """All above a wavy line (a sky) or below one (water)."""
        return _Region(
            (self._rand(count) - 0.5) * shape.height * 0.4,
            self._rand(count) * shape.height * 0.08,
            (2 + 8 * self._rand(count)) / shape.width,
            torch.where(self._rand(count) < 0.6, 1.0, -1.0),
        )


def within_reach(
    motion: torch.Tensor, times: torch.Tensor, known: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """(N, F, height, width) bool: the cells whose middle a known frame shows, of a camera that moves so.

    Args:
        motion: (N, 4), in cells.
        times: (N, F) seconds since the first frame.
        known: (N, F), 1 for known frames.
        height, width: Of a frame, in cells.
    """
    points = view_points(motion, times, height, width)[:, :, None]  # (N, F, 1, h, w, 2)
    # Back from the place into each frame's own view.
    right, down, zoom, roll = ((motion[:, i, None] * times)[:, None, :, None, None] for i in range(4))
    x, y = points[..., 0] - right, points[..., 1] - down
    cos, sin = torch.exp(zoom) * torch.cos(roll), torch.exp(zoom) * torch.sin(roll)
    inside = ((cos * x + sin * y).abs() <= width / 2) & ((cos * y - sin * x).abs() <= height / 2)
    return (inside & (known > 0)[:, None, :, None, None]).any(2)


@dataclass(frozen=True)
class _Spots:
    """Ellipses and rectangles: middle, radius (N, K, 2); square (N, K)."""

    middle: torch.Tensor
    radius: torch.Tensor
    square: torch.Tensor

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """(N, F, h, w) in [0, 1]: how much of each point (N, F, h, w, 2) is covered."""
        covered = torch.zeros(points.shape[:-1], device=points.device)
        for k in range(self.middle.shape[1]):
            radius = self.radius[:, None, None, None, k]
            away = (points - self.middle[:, None, None, None, k]) / radius
            round_, square = away.square().sum(-1).sqrt(), away.abs().amax(-1)
            distance = torch.where(self.square[:, None, None, None, k], square, round_)
            covered = torch.maximum(covered, torch.sigmoid((1 - distance) * radius.amin(-1) * 2))
        return covered


@dataclass(frozen=True)
class _Region:
    """Above (side 1) or below (side -1) the line y = height + swing * sin(frequency * x); all (N,)."""

    height: torch.Tensor
    swing: torch.Tensor
    frequency: torch.Tensor
    side: torch.Tensor

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """(N, F, h, w) in [0, 1] of points (N, F, h, w, 2)."""
        height, swing, frequency, side = (
            values[:, None, None, None] for values in (self.height, self.swing, self.frequency, self.side)
        )
        line = height + swing * torch.sin(frequency * points[..., 0])
        return torch.sigmoid((line - points[..., 1]) * side * 1.5)


def _counts(batch: int, shares: dict[str, float], chance: float) -> dict[str, int]:
    """Whole numbers of clips that add up to ``batch``; ``chance`` in [0, 1) decides what is rounded up."""
    counts, before, total = {}, 0, 0.0
    for kind, share in shares.items():
        total += share / sum(shares.values())
        upto = batch if kind == list(shares)[-1] else int(batch * total + chance)
        counts[kind] = min(upto, batch) - before
        before = min(upto, batch)
    return counts


def _flakes(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 1, size, size) in [0, 1]: soft discs strewn about."""
    device = generator.device
    y, x = torch.meshgrid(torch.arange(size, device=device), torch.arange(size, device=device), indexing="ij")
    pictures = torch.zeros(count, size, size, device=device)
    for _ in range(90):
        at = torch.rand(count, 2, 1, 1, generator=generator, device=device) * size
        radius = 1.2 + 2.0 * torch.rand(count, 1, 1, generator=generator, device=device)
        distance = ((x - at[:, 0]) ** 2 + (y - at[:, 1]) ** 2).sqrt()
        pictures = torch.maximum(pictures, torch.sigmoid((radius - distance) * 2))
    return pictures[:, None]
