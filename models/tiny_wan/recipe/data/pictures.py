"""The pictures clips are filmed from: procedural ones, and photographs inside scikit-image and scikit-learn.

Procedural pictures are "dead leaves": opaque shapes of many sizes, the small ones most, each with a colour,
a gradient and a texture. Their edges, occlusions and spectrum are those of photographs (Lee, Mumford & Huang
2001), which is what a model has to learn from when there are no photographs to download.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from models.tiny_wan.recipe.data.camera import film

#: Photographs in the wheel of scikit-image (``skimage.data``) that may be trained on...
TRAINING_PHOTOGRAPHS = (
    "brick",
    "camera",
    "cell",
    "coins",
    "colorwheel",
    "grass",
    "gravel",
    "horse",
    "hubble_deep_field",
    "immunohistochemistry",
    "logo",
    "moon",
    "page",
    "retina",
    "text",
)
#: ... and the ones kept for tests, with china.jpg of scikit-learn.
HELD_OUT_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
#: Seeds of procedural pictures from here on are never trained on.
HELD_OUT_SEED = 1_000_000


def training_photographs() -> list[np.ndarray]:
    """The photographs that may be trained on, (H, W, 3) uint8, at least 200 pixels a side."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    pictures = []
    for name in TRAINING_PHOTOGRAPHS:
        try:
            pictures.append(_rgb(getattr(data, name)()))
        except Exception as error:  # one that is not in this wheel would be downloaded: do without
            print(f"photograph {name} is not here ({type(error).__name__})")
    left, right, _ = _stereo(data)
    pictures += [_rgb(left), _rgb(right), _rgb(load_sample_image("flower.jpg"))]
    return [p for p in pictures if min(p.shape[:2]) >= 200]


def _stereo(data: object) -> tuple[np.ndarray, np.ndarray, object]:
    return data.stereo_motorcycle()  # type: ignore[attr-defined,no-any-return]


def _rgb(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == bool:
        picture = picture.astype(np.uint8) * 255
    if picture.dtype != np.uint8:
        picture = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if picture.ndim == 2:
        picture = np.stack([picture] * 3, axis=-1)
    return np.ascontiguousarray(picture[..., :3])


def photograph_crops(
    photographs: list[np.ndarray], count: int, size: int, generator: torch.Generator
) -> torch.Tensor:
    """(count, 3, size, size) float in [0, 1]: random parts of photographs, mirrored, turned, recoloured."""
    device = generator.device
    sources = [torch.from_numpy(p.copy()).permute(2, 0, 1).to(device).float() / 255 for p in photographs]
    # A large picture has more to show than a small one.
    weights = torch.tensor([s.shape[1] * s.shape[2] for s in sources], dtype=torch.float64).sqrt()
    crops = []
    for _ in range(count):
        which = int(torch.multinomial(weights.to(device), 1, generator=generator))
        source = sources[which]
        short = min(source.shape[1:])
        side = int(max(200, short * (0.55 + 0.45 * _uniform(generator))))
        top = int((source.shape[1] - side) * _uniform(generator))
        left = int((source.shape[2] - side) * _uniform(generator))
        crop = source[None, :, top : top + side, left : left + side]
        crop = F.interpolate(crop, (size, size), mode="bicubic", antialias=True, align_corners=False)
        if _uniform(generator) < 0.5:
            crop = crop.flip(3)
        if _uniform(generator) < 0.25:
            crop = crop.rot90(int(_uniform(generator) * 4), (2, 3))
        crops.append(crop.clamp(0, 1))
    return _recoloured(torch.cat(crops), generator)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, device=generator.device))


def _recoloured(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another exposure, contrast and white balance for each picture; every third keeps its own."""
    count, device = len(pictures), pictures.device

    def draw(low: float, high: float, channels: int = 1) -> torch.Tensor:
        uniform = torch.rand(count, channels, 1, 1, generator=generator, device=device)
        return low + (high - low) * uniform

    changed = pictures.clamp(1e-4, 1) ** draw(0.7, 1.4)
    grey = changed.mean(1, keepdim=True)
    changed = grey + (changed - grey) * draw(0.5, 1.4)
    changed = (changed - 0.5) * draw(0.75, 1.15) + 0.5 + draw(-0.1, 0.1)
    changed = changed * draw(0.85, 1.15, channels=3)
    keep = torch.rand(count, 1, 1, 1, generator=generator, device=device) < 0.33
    return torch.where(keep, pictures, changed).clamp(0, 1)


def procedural_pictures(
    count: int, size: int, seed: int, device: torch.device | str, *, batch: int = 64
) -> torch.Tensor:
    """(count, 3, size, size) uint8 procedural pictures; the same for the same seed on one kind of device."""
    generator = torch.Generator(device).manual_seed(seed)
    made = [
        (_dead_leaves(min(batch, count - first), size, generator) * 255).round().to(torch.uint8)
        for first in range(0, count, batch)
    ]
    return torch.cat(made)


def _dead_leaves(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    device = generator.device

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    bank = _noise(24, size, generator)
    y, x = torch.meshgrid(torch.arange(size, device=device), torch.arange(size, device=device), indexing="ij")
    x, y = x[None].float(), y[None].float()
    palette = rand(count, 6, 3) * 0.9 + 0.05  # a picture has a few colours, not all
    grey = palette.mean(2, keepdim=True)
    palette = grey + (palette - grey) * (0.1 + 0.9 * rand(count, 1, 1))
    ground = torch.randint(24, (count,), generator=generator, device=device)
    canvas = palette[:, 0, :, None, None] + (bank[ground] - 0.5) * rand(count, 1, 1, 1) * 1.2
    largest = size * (0.1 + 0.4 * rand(count, 1, 1))
    smallest = 2.0 + 6.0 * rand(count, 1, 1)
    # Busy pictures and quiet ones.
    layers = torch.randint(6, 110, (count,), generator=generator, device=device)
    for layer in range(int(layers.max())):
        # Radii with density r^-3 between the smallest and the largest: the law of dead leaves.
        u = rand(count, 1, 1)
        radius = (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5
        if layer < 8:
            radius = largest * (0.5 + 0.5 * u)
        aspect = 1 + 2.5 * rand(count, 1, 1) ** 2
        angle = rand(count, 1, 1) * torch.pi
        dx, dy = x - rand(count, 1, 1) * size, y - rand(count, 1, 1) * size
        along = (dx * torch.cos(angle) + dy * torch.sin(angle)) / aspect.sqrt()
        across = (dy * torch.cos(angle) - dx * torch.sin(angle)) * aspect.sqrt()
        kind = rand(count, 1, 1)
        ellipse = (along**2 + across**2).sqrt()
        rectangle = torch.maximum(along.abs(), across.abs())
        triangle = torch.maximum(along.abs() * 0.87 + across * 0.5, -across)
        distance = torch.where(kind < 0.45, ellipse, torch.where(kind < 0.8, rectangle, triangle)) - radius
        softness = 0.7 + 2.0 * rand(count, 1, 1) ** 4 * 4
        cover = torch.sigmoid(-distance / softness * 2)[:, None]
        which = torch.randint(6, (count,), generator=generator, device=device)
        colour = palette[torch.arange(count, device=device), which] + (rand(count, 3) - 0.5) * 0.25
        shade = (along * (rand(count, 1, 1) - 0.5) + across * (rand(count, 1, 1) - 0.5)) / radius * 0.35
        wave = torch.sin(along * (0.15 + 1.3 * rand(count, 1, 1) ** 2) + across * (rand(count, 1, 1) - 0.5))
        wave = torch.where(rand(count, 1, 1) < 0.3, wave.sign(), wave)
        wave = wave * (rand(count, 1, 1) < 0.25) * rand(count, 1, 1) * 0.3
        grain = bank[torch.randint(24, (count,), generator=generator, device=device)] - 0.5
        grain = grain * (rand(count, 1, 1, 1) ** 2 * 0.7)
        fill = colour[:, :, None, None] + (shade + wave)[:, None] + grain
        cover = cover * (layer < layers)[:, None, None, None]
        canvas = canvas + cover * (fill - canvas)
    blur = rand(count, 1, 1, 1) < 0.3
    soft = F.avg_pool2d(F.pad(canvas, (1, 1, 1, 1), mode="reflect"), 3, 1)
    return torch.where(blur, soft, canvas).clamp(0, 1)


def _noise(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3, size, size) around 0.5 with spectra of 1 / f^a, a from 0.8 to 1.8: clouds to grain."""
    device = generator.device
    frequency = torch.fft.fftfreq(size, device=device)[:, None] ** 2 + (
        torch.fft.rfftfreq(size, device=device)[None] ** 2
    )
    frequency = frequency.clamp(min=(1 / size) ** 2).sqrt()
    slope = 0.8 + 1.0 * torch.rand(count, 1, 1, 1, generator=generator, device=device)
    white = torch.randn(count, 3, size, size, generator=generator, device=device)
    common = torch.rand(count, 1, 1, 1, generator=generator, device=device)
    white = white * (1 - common) + white[:, :1] * common  # colours that go together
    made = torch.fft.irfft2(torch.fft.rfft2(white) * frequency**-slope, s=(size, size))
    made = made / made.std((1, 2, 3), keepdim=True)
    return (0.5 + 0.18 * made).clamp(0, 1)


#: Clouds to grain, for what else is made of them.
noise_pictures = _noise


class Atlas:
    """Pictures to film: as they are, and at half size, as sharp as a photograph cut down to a small frame."""

    #: Share of a batch filmed from the half-size pictures.
    SMALL_SHARE = 0.35

    def __init__(self, pictures: torch.Tensor) -> None:
        self.large = pictures
        small = [F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in pictures.split(256)]
        self.small = torch.cat(small)

    def film(
        self, points: torch.Tensor, centre: torch.Tensor, scale: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Film a random picture for each path, in [-1, 1]; ``centre`` is in picture sizes."""
        small = int(len(points) * self.SMALL_SHARE)
        parts = []
        for pictures, rows in ((self.small, slice(0, small)), (self.large, slice(small, None))):
            count = len(points[rows])
            if count == 0:
                continue
            which = torch.randint(len(pictures), (count,), generator=generator, device=points.device)
            size = pictures.shape[-1]
            parts.append(film(pictures[which].float(), points[rows], centre[rows] * size, scale[rows]))
        return torch.cat(parts) / 127.5 - 1


def atlas(
    count: int, size: int, seed: int, device: torch.device | str, *, photograph_share: float = 0.45
) -> Atlas:
    """``count`` pictures of size x size on the device, so many of them crops of photographs."""
    photographs = int(count * photograph_share)
    generator = torch.Generator(device).manual_seed(seed)
    crops = photograph_crops(training_photographs(), photographs, size, generator)
    crops = (crops * 255).round().to(torch.uint8)
    return Atlas(torch.cat([crops, procedural_pictures(count - photographs, size, seed, device)]))
