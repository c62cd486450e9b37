"""A start picture painted from the words of a prompt, for models that need an image and got none.

Soft scenery and nothing else: a sky for the hour and the weather that the prompt names, a ground under it,
and a tint where a colour is named. Words that are not known choose nothing. It is arithmetic on fractal
noise, the same bytes for the same prompt, seed and size.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import cv2
import numpy as np

from nodes.media.backdrop_grounds import GROUNDS, paint_ground
from nodes.media.backdrop_noise import Canvas, Colour, Floats, blend, fractal, smoothstep

#: Painted at most this wide or high; larger pictures are enlarged, for nothing in them is sharp.
LONGEST_PAINTED = 1280


@dataclass(frozen=True)
class Sky:
    """Colours from the top down to the horizon, and the light in it. RGB in [0, 1]."""

    words: str
    top: Colour
    middle: Colour
    horizon: Colour
    light: Colour
    #: Height of the sun or moon over the horizon, as a share of the sky; None: behind clouds.
    elevation: float | None = 0.5
    #: Share of the sky that clouds take.
    clouds: float = 0.45
    stars: float = 0.0
    #: How far colours of far things fade into the horizon's.
    haze: float = 0.75


SKIES: dict[str, Sky] = {
    "night": Sky(
        "night midnight moon moonlight moonlit star starry starlight dark",
        (0.02, 0.03, 0.10),
        (0.06, 0.09, 0.22),
        (0.17, 0.21, 0.36),
        (0.93, 0.94, 1.0),
        elevation=0.62,
        clouds=0.22,
        stars=1.0,
        haze=0.6,
    ),
    "aurora": Sky(
        "aurora borealis polar arctic northern",
        (0.01, 0.03, 0.09),
        (0.03, 0.10, 0.18),
        (0.12, 0.24, 0.28),
        (0.8, 1.0, 0.9),
        elevation=None,
        clouds=0.0,
        stars=0.9,
        haze=0.6,
    ),
    "space": Sky(
        "space galaxy nebula cosmos cosmic planet universe orbit alien asteroid",
        (0.01, 0.01, 0.04),
        (0.05, 0.02, 0.10),
        (0.10, 0.06, 0.18),
        (1.0, 0.93, 0.85),
        elevation=None,
        clouds=0.0,
        stars=1.6,
        haze=0.5,
    ),
    "storm": Sky(
        "storm stormy rain rainy thunder lightning tempest hurricane",
        (0.20, 0.23, 0.28),
        (0.34, 0.37, 0.42),
        (0.55, 0.56, 0.56),
        (0.85, 0.88, 0.92),
        elevation=None,
        clouds=0.95,
        haze=0.85,
    ),
    "mist": Sky(
        "mist misty fog foggy haze hazy cloudy overcast grey gray autumn",
        (0.62, 0.67, 0.71),
        (0.74, 0.77, 0.79),
        (0.86, 0.86, 0.84),
        (1.0, 0.97, 0.90),
        elevation=0.40,
        clouds=0.55,
        haze=0.97,
    ),
    "dawn": Sky(
        "dawn sunrise morning early daybreak spring",
        (0.36, 0.50, 0.74),
        (0.80, 0.70, 0.78),
        (1.0, 0.83, 0.67),
        (1.0, 0.92, 0.76),
        elevation=0.16,
        clouds=0.40,
        haze=0.9,
    ),
    "sunset": Sky(
        "sunset sundown dusk evening twilight golden glow fire fiery",
        (0.20, 0.20, 0.44),
        (0.78, 0.40, 0.42),
        (1.0, 0.68, 0.34),
        (1.0, 0.86, 0.55),
        elevation=0.12,
        clouds=0.52,
        haze=0.8,
    ),
    "day": Sky(
        "day noon sunny sun sunlight blue sky clear summer afternoon",
        (0.20, 0.44, 0.80),
        (0.45, 0.67, 0.92),
        (0.80, 0.89, 0.95),
        (1.0, 0.98, 0.90),
        elevation=0.72,
        clouds=0.45,
        haze=0.75,
    ),
}

TINTS: dict[str, Colour] = {
    "red": (0.95, 0.25, 0.20),
    "crimson": (0.80, 0.10, 0.22),
    "orange": (1.0, 0.55, 0.15),
    "amber": (1.0, 0.66, 0.20),
    "yellow": (1.0, 0.88, 0.30),
    "emerald": (0.10, 0.62, 0.45),
    "turquoise": (0.15, 0.75, 0.75),
    "teal": (0.10, 0.55, 0.58),
    "purple": (0.55, 0.25, 0.75),
    "violet": (0.50, 0.30, 0.85),
    "pink": (1.0, 0.55, 0.75),
    "magenta": (0.90, 0.20, 0.70),
    "sepia": (0.80, 0.62, 0.42),
}
#: Without a word for the hour or the ground, one of these.
_COMMON_SKIES = ("day", "dawn", "sunset", "mist")
_COMMON_GROUNDS = ("hills", "sea", "mountains", "meadow")


@dataclass(frozen=True)
class Scene:
    """What a prompt's words chose."""

    sky: str
    ground: str
    tint: Colour | None = None
    snowing: bool = False
    raining: bool = False


def scene_of(prompt: str, seed: int = 0) -> Scene:
    """The scenery that a prompt's words name; what they leave open is drawn from prompt and seed."""
    words = [_singular(word) for word in re.findall(r"[a-z]+", prompt.lower())]
    rng = _rng("scene", prompt, seed)
    named_ground = _first(words, {name: ground.words for name, ground in GROUNDS.items()})
    named_sky = _first(words, {name: sky.words for name, sky in SKIES.items()})
    open_sky, open_ground = rng.choice(_COMMON_SKIES), rng.choice(_COMMON_GROUNDS)
    sky = named_sky or ("night" if named_ground == "city" and "neon" in words else str(open_sky))
    ground = named_ground or ("void" if sky == "space" else str(open_ground))
    return Scene(
        sky=sky,
        ground=ground,
        tint=next((TINTS[word] for word in words if word in TINTS), None),
        snowing="snowing" in words or "snowfall" in words or "blizzard" in words or "snowflake" in words,
        raining=sky == "storm" and ("rain" in words or "rainy" in words),
    )


def backdrop(prompt: str, seed: int, width: int, height: int) -> bytes:
    """A PNG of ``width`` x ``height`` painted from ``prompt``; the same arguments, the same bytes."""
    shrink = min(1.0, LONGEST_PAINTED / max(width, height))
    size = max(16, round(width * shrink)), max(16, round(height * shrink))
    picture = _painted(scene_of(prompt, seed), _rng("picture", prompt, seed), *size)
    if (picture.shape[1], picture.shape[0]) != (width, height):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    # Less than a level of noise: broad gradients would show their steps.
    dither = np.random.default_rng(seed & 0xFFFF).uniform(-0.5, 0.5, picture.shape[:2]).astype(np.float32)
    levels = np.clip(np.rint(picture * 255.0 + dither[..., None]), 0, 255).astype(np.uint8)
    done, png = cv2.imencode(".png", levels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return png.tobytes()


def _rng(what: str, prompt: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{what}\n{seed}\n{prompt}".encode(errors="replace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _first(words: list[str], known: dict[str, str]) -> str | None:
    """The name whose words hold the most of the prompt's; the first named wins a draw."""
    owners = {_singular(word): name for name, text in known.items() for word in text.split()}
    named = [owners[word] for word in words if word in owners]
    return max(named, key=named.count) if named else None


def _painted(scene: Scene, rng: np.random.Generator, width: int, height: int) -> Floats:
    """The picture (H, W, 3) in [0, 1]."""
    sky = SKIES[scene.sky]
    ground = GROUNDS[scene.ground]
    horizon = round(height * (ground.horizon + 0.04 * float(rng.uniform(-1, 1))))
    sun_x = float(rng.uniform(0.22, 0.78))
    upper = _sky(sky, scene, rng, width, height, horizon, sun_x)
    canvas = Canvas(
        picture=upper,
        horizon=horizon,
        haze_colour=np.asarray(blend(sky.middle, sky.horizon, 0.8), np.float32),
        haze=sky.haze,
        light=np.asarray(sky.light, np.float32),
        brightness=float(np.clip(np.mean(sky.horizon) * 0.9 + np.mean(sky.middle) * 0.35, 0.24, 1.0)),
        sun_x=sun_x,
        rng=rng,
        at_night=sky.stars > 0 or scene.sky in ("sunset", "storm"),
    )
    paint_ground(ground, canvas)
    picture = canvas.picture
    if scene.snowing or scene.raining:
        _fall(picture, rng, streaks=scene.raining)
    return _finished(picture, scene.tint)


def _sky(
    sky: Sky, scene: Scene, rng: np.random.Generator, width: int, height: int, horizon: int, sun_x: float
) -> Floats:
    rows = np.clip(np.arange(height, dtype=np.float32) / max(1, horizon), 0, 1)
    stops = np.array([sky.top, sky.middle, sky.horizon], np.float32)
    column = np.stack([np.interp(rows**0.9, [0.0, 0.6, 1.0], stops[:, c]) for c in range(3)], axis=-1)
    picture = np.repeat(column.astype(np.float32)[:, None], width, axis=1)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if sky.stars:
        _stars(picture, rng, sky.stars, horizon)
    if scene.sky == "space":
        _nebula(picture, rng)
    if scene.sky == "aurora":
        _aurora(picture, rng, horizon)
    if sky.elevation is not None:
        _light(picture, sky, x - sun_x * width, y - horizon * (1 - sky.elevation), min(width, height))
    if sky.clouds:
        _clouds(picture, sky, rng, x - sun_x * width, y, horizon)
    return picture


def _light(picture: Floats, sky: Sky, dx: Floats, dy: Floats, scale: int) -> None:
    """Sun or moon: a disc, its corona, and a glow along the horizon when it is low."""
    light = np.asarray(sky.light, np.float32)
    distance = np.sqrt(dx**2 + dy**2) / scale
    radius = 0.030 if sky.stars else 0.042
    night = 0.45 if sky.stars else 1.0
    wide = np.exp(-((distance / 0.42) ** 2)) * 0.38 * night
    near = np.exp(-distance / 0.09) * 0.55 * night
    low = max(0.0, 0.35 - (sky.elevation or 0.0)) * 1.8
    band = np.exp(-((dy / (0.16 * scale)) ** 2) - (dx / (1.3 * scale)) ** 2) * low
    glow = np.clip(wide + near + band, 0, 1)[..., None]
    picture += (light - picture) * glow
    disc = smoothstep(distance, radius + 0.004, radius)[..., None]
    picture += (np.clip(light * 1.08, 0, 1) - picture) * disc


def _clouds(picture: Floats, sky: Sky, rng: np.random.Generator, dx: Floats, y: Floats, horizon: int) -> None:
    """A layer of clouds seen in perspective, lighter towards the light."""
    tile = fractal(rng, 512, 1.75)
    height: Floats = np.clip((horizon - y) / max(1, horizon), 0.0, 1.0).astype(np.float32)
    depth: Floats = (1.0 / (height + 0.22)).astype(np.float32)
    u, v = dx / picture.shape[1] * depth * 190.0 + 256.0, depth * 150.0
    density = _wrapped(tile, u, v)
    lit = _wrapped(tile, u - np.tanh(dx / (0.2 * picture.shape[1])) * 7.0, v - 9.0)
    edge = 1.15 - 2.1 * sky.clouds
    cover = smoothstep(density, edge, edge + 1.25) * smoothstep(height, 0.0, 0.10) * 0.92
    shade = np.clip(0.5 + 0.42 * (density - lit), 0, 1)[..., None]
    light = np.asarray(sky.light, np.float32)
    dark = np.asarray(sky.middle, np.float32) * (0.62 if sky.clouds < 0.9 else 0.55)
    bright = np.asarray(sky.horizon, np.float32) * 0.45 + light * 0.55
    if sky.stars:
        bright = bright * 0.42
    picture += (dark + (bright - dark) * shade - picture) * cover[..., None]


def _wrapped(tile: Floats, u: Floats, v: Floats) -> Floats:
    size = np.float32(tile.shape[0])
    rim = np.pad(tile, ((0, 1), (0, 1)), mode="wrap")
    read = cv2.remap(
        rim, np.mod(u, size).astype(np.float32), np.mod(v, size).astype(np.float32), cv2.INTER_LINEAR
    )
    return read.astype(np.float32, copy=False)


def _stars(picture: Floats, rng: np.random.Generator, amount: float, horizon: int) -> None:
    height, width = picture.shape[:2]
    number = round(width * height / 2200 * amount)
    layer = np.zeros((height, width), np.float32)
    rows = (rng.random(number) ** 1.3 * min(height, horizon * 1.02)).astype(int)
    layer[rows, (rng.random(number) * width).astype(int)] = rng.random(number) ** 4 * 0.9 + 0.12
    halo = cv2.GaussianBlur(layer, (0, 0), 1.1)
    picture += np.clip(layer * 0.75 + halo * 2.2, 0, 1)[..., None] * np.array([0.92, 0.95, 1.0], np.float32)


def _nebula(picture: Floats, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    grid = np.mgrid[0:height, 0:width] * (420.0 / max(height, width))
    y, x = grid.astype(np.float32)
    for colour, beta in (((0.55, 0.20, 0.62), 2.2), ((0.15, 0.36, 0.72), 2.0), ((0.95, 0.55, 0.40), 2.4)):
        cloud = smoothstep(_wrapped(fractal(rng, 512, beta), x, y), 0.1, 2.4)
        picture += cloud[..., None] * np.asarray(colour, np.float32) * 0.75


def _aurora(picture: Floats, rng: np.random.Generator, horizon: int) -> None:
    height, width = picture.shape[:2]
    y = np.arange(height, dtype=np.float32)[:, None]
    for colour, base in (((0.15, 0.95, 0.55), 0.30), ((0.30, 0.60, 0.95), 0.18), ((0.65, 0.30, 0.85), 0.10)):
        line = fractal(rng, 512, 2.6)[0]
        rays = fractal(rng, 512, 1.2)[0]
        at = np.linspace(0, 300, width)
        foot = horizon * (1 - base) - np.interp(at, np.arange(512), line) * horizon * 0.10
        strength = np.clip(0.65 + 0.32 * np.interp(at * 1.6 % 511, np.arange(512), rays), 0.1, 1.3)
        rise = (foot[None].astype(np.float32) - y) / (horizon * 0.5)
        curtain = np.where(rise > 0, np.exp(-rise * 2.6), np.exp(rise * 16.0)) * strength[None]
        picture += (curtain.astype(np.float32) * 0.55)[..., None] * np.asarray(colour, np.float32)


def _fall(picture: Floats, rng: np.random.Generator, *, streaks: bool) -> None:
    """Falling snow, or rain."""
    height, width = picture.shape[:2]
    layer = np.zeros((height, width), np.float32)
    number = round(width * height / (500 if streaks else 900))
    layer[rng.integers(0, height, number), rng.integers(0, width, number)] = rng.random(number) * 0.8 + 0.2
    if streaks:
        length = max(5, height // 24) | 1
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (length // 2 + 1, 0), (length // 2 - 1, length - 1), 1.0)
        picture += np.clip(cv2.filter2D(layer, -1, kernel / 7.0), 0, 0.22)[..., None]
    else:
        near = cv2.GaussianBlur(layer * (rng.random(layer.shape) < 0.25), (0, 0), height / 260) * 24
        picture += np.clip(cv2.GaussianBlur(layer, (0, 0), 1.0) * 3.0 + near, 0, 0.9)[..., None]


def _finished(picture: Floats, tint: Colour | None) -> Floats:
    """Tinted by its light, bloomed and darkened a little towards the corners."""
    np.clip(picture, 0.0, 1.0, out=picture)
    if tint is not None:
        luma = (picture @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
        target = np.asarray(tint, np.float32)
        toned = np.where(luma < 0.5, 2 * luma * target, 1 - 2 * (1 - luma) * (1 - target))
        picture = picture + (toned - picture) * 0.28
    height, width = picture.shape[:2]
    # What is as soft as this needs few pixels.
    small = max(1, width // 4), max(1, height // 4)
    lights = np.clip(cv2.resize(picture, small, interpolation=cv2.INTER_AREA) - 0.72, 0, 1)
    bloom = cv2.resize(cv2.GaussianBlur(lights, (0, 0), max(small) / 60), (width, height))
    picture = 1 - (1 - picture) * (1 - np.clip(bloom * 0.9, 0, 1))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    finished: Floats = np.clip(picture * (1 - 0.13 * np.clip(x**2 + y**2 - 0.35, 0, 2))[..., None], 0, 1)
    return finished.astype(np.float32)
