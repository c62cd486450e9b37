"""The grounds of a backdrop: ridges that fade into the distance, water that mirrors the sky, a lit city."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from nodes.media.backdrop_noise import Canvas, Colour, Floats, fractal, profile, smoothstep


@dataclass(frozen=True)
class Ground:
    words: str
    paint: Callable[[Canvas], None]
    #: Row of the horizon as a share of the height.
    horizon: float = 0.60


def paint_ground(ground: Ground, canvas: Canvas) -> None:
    """Paint what lies under the sky, into ``canvas.picture``."""
    ground.paint(canvas)


def _layer(
    canvas: Canvas,
    line: Floats,
    colour: Colour | Floats,
    *,
    distance: float,
    mist: float = 0.5,
    texture: float = 0.0,
    foot: float = 0.30,
) -> None:
    """Everything below ``line`` (W,) in rows, as one ridge.

    Args:
        distance: 0 at the viewer's feet, 1 at the horizon: how far it fades into the haze.
        mist: how far its own foot fades, ``foot`` of the picture's height below the line.
        texture: strength of the unevenness of its surface.
    """
    height, width = canvas.picture.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    inside = np.clip(rows - line[None] + 0.5, 0, 1)
    top = max(0, int(line.min()) - 1)
    below = np.clip((rows - line[None]) / (foot * height), 0, 1)[top:]
    fade = np.clip(distance * canvas.haze + mist * canvas.haze * below * (0.25 + 0.75 * distance), 0, 1)
    base = np.asarray(colour, np.float32) * np.float32(0.28 + 0.72 * canvas.brightness)
    surface = np.broadcast_to(base, (height - top, width, 3)).astype(np.float32)
    side = 1 - np.abs(np.linspace(0, 1, width, dtype=np.float32) - canvas.sun_x)
    surface = surface * (0.72 + 0.40 * side)[None, :, None]
    if texture:
        grain = cv2.resize(
            fractal(canvas.rng, 256, 1.4), (width, height - top), interpolation=cv2.INTER_CUBIC
        )
        surface = surface * (1 + texture * np.clip(grain, -2, 2))[..., None]
    surface = surface + (canvas.haze_colour - surface) * fade[..., None]
    canvas.picture[top:] += (surface - canvas.picture[top:]) * inside[top:, :, None]


def _ridges(
    canvas: Canvas,
    colours: tuple[Colour, Colour],
    *,
    count: int,
    rise: float,
    beta: float,
    waves: float,
    texture: float = 0.05,
    spread: float = 1.0,
    skyline: Callable[[Canvas, Floats, float], Floats] | None = None,
) -> None:
    """``count`` ridges from the horizon to the lower edge, coloured from the far to the near colour."""
    height, width = canvas.picture.shape[:2]
    for i in range(count):
        near = i / max(1, count - 1)
        base = canvas.horizon + (height - canvas.horizon) * spread * 0.80 * near**1.5
        swing = rise * height * (0.55 + 0.75 * near)
        line = base - swing * (0.35 + 0.5 * profile(canvas.rng, width, beta=beta, waves=waves / (0.7 + near)))
        if skyline is not None:
            line = skyline(canvas, line, near)
        colour = np.asarray(colours[0], np.float32) * (1 - near) + np.asarray(colours[1], np.float32) * near
        _layer(canvas, line, colour, distance=(1 - near) ** 1.2, texture=texture * (0.3 + near))


def _hills(canvas: Canvas) -> None:
    _ridges(canvas, ((0.36, 0.50, 0.42), (0.17, 0.34, 0.13)), count=5, rise=0.09, beta=2.4, waves=2.5)


def _meadow(canvas: Canvas) -> None:
    _ridges(canvas, ((0.45, 0.58, 0.42), (0.36, 0.50, 0.17)), count=4, rise=0.06, beta=2.6, waves=2.0)
    _sprinkle(canvas, ((0.95, 0.85, 0.35), (0.92, 0.45, 0.50), (0.95, 0.95, 0.92), (0.62, 0.45, 0.85)))


def _mountains(canvas: Canvas) -> None:
    height, width = canvas.picture.shape[:2]
    for i, near in enumerate((0.0, 0.35)):
        line = canvas.horizon - height * (0.20 - 0.07 * i) * (
            0.80 + 0.70 * profile(canvas.rng, width, beta=1.75, waves=2.0 + i)
        )
        _layer(canvas, line, (0.33, 0.36, 0.44), distance=0.62 - near, mist=0.6, texture=0.08, foot=0.30)
        _caps(canvas, line, 0.10 * height, 0.85 - near)
    _ridges(
        canvas,
        ((0.26, 0.36, 0.34), (0.10, 0.20, 0.13)),
        count=4,
        rise=0.06,
        beta=1.9,
        waves=3.0,
        skyline=_conifers,
    )


def _caps(canvas: Canvas, line: Floats, depth: float, strength: float) -> None:
    """Snow on the heights: the higher the ridge, the further down, in gullies."""
    height, width = canvas.picture.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    crags = cv2.resize(fractal(canvas.rng, 256, 1.7), (width, height), interpolation=cv2.INTER_CUBIC)
    reach = np.clip((canvas.horizon - line) / (0.22 * height), 0, 1.4)[None] * depth * (1 + 0.7 * crags)
    snow = smoothstep(reach - (rows - line[None]), -0.01 * height, 0.05 * height) * (rows >= line[None])
    bright = np.clip(canvas.light * (0.30 + 0.68 * canvas.brightness), 0, 1)
    lit = 0.86 + 0.14 * np.clip(crags - np.roll(crags, 3, axis=1), -1, 1)
    canvas.picture += (bright * lit[..., None] - canvas.picture) * (snow * strength * 0.8)[..., None]


def _conifers(canvas: Canvas, line: Floats, near: float) -> Floats:
    """The ridge line with the tops of firs on it."""
    height, width = canvas.picture.shape[:2]
    tall = height * (0.018 + 0.075 * near**1.4)
    raised = line.copy()
    at = np.arange(width, dtype=np.float32)
    for _ in range(round(width / (tall * 0.34))):
        x, size = float(canvas.rng.uniform(0, width)), tall * float(canvas.rng.uniform(0.45, 1.1))
        half = size * 0.21
        a, b = max(0, int(x - half)), min(width, int(x + half) + 2)
        slope = 1 - np.abs(at[a:b] - x) / half
        steps = np.clip(slope + 0.10 * np.sin(slope * 24.0), 0, 1)
        raised[a:b] = np.minimum(raised[a:b], line[a:b] - size * steps)
    return raised


def _forest(canvas: Canvas) -> None:
    _ridges(
        canvas,
        ((0.30, 0.42, 0.34), (0.05, 0.13, 0.07)),
        count=6,
        rise=0.08,
        beta=2.0,
        waves=2.5,
        spread=0.92,
        skyline=_conifers,
    )


def _desert(canvas: Canvas) -> None:
    _ridges(
        canvas, ((0.86, 0.66, 0.46), (0.80, 0.52, 0.28)), count=5, rise=0.07, beta=3.0, waves=2.0, texture=0.0
    )
    height, width = canvas.picture.shape[:2]
    ripple = cv2.resize(fractal(canvas.rng, 256, 1.1), (width, height), interpolation=cv2.INTER_CUBIC)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    bands = np.sin(rows**2 * 150 + ripple * 1.6) * smoothstep(rows, canvas.horizon / height + 0.1, 1.0)
    canvas.picture *= (1 + 0.05 * bands)[..., None]


def _snow(canvas: Canvas) -> None:
    _ridges(canvas, ((0.72, 0.79, 0.88), (0.90, 0.93, 0.98)), count=4, rise=0.07, beta=2.4, waves=2.2)
    line = np.full(canvas.picture.shape[1], canvas.picture.shape[0] * 0.93, np.float32)
    line = _conifers(canvas, line - 8 * profile(canvas.rng, line.size, beta=2.4, waves=2.0), 0.55)
    _layer(canvas, line, (0.52, 0.60, 0.70), distance=0.05, mist=0.0)


def _water(canvas: Canvas, top: int, colour: Colour, *, calm: float) -> None:
    """A surface from row ``top`` down: what is above it, mirrored and broken by waves."""
    height, width = canvas.picture.shape[:2]
    depth = height - top
    if depth < 4:
        return
    rows = np.arange(depth, dtype=np.float32)[:, None] / depth
    tile = np.pad(fractal(canvas.rng, 512, 1.15), ((0, 1), (0, 1)), mode="wrap")
    far = 1.0 / (rows + 0.06)
    u = (np.linspace(-0.5, 0.5, width, dtype=np.float32)[None] * far * 90.0 + 256.0) % 512
    v = np.broadcast_to((far * 420.0) % 512, u.shape)
    waves = cv2.remap(tile, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
    waves = cv2.GaussianBlur(waves, (0, 0), sigmaX=width / 160, sigmaY=0.7)
    waves = waves * (0.25 + 0.75 * rows)
    x = np.arange(width, dtype=np.float32)[None] + waves * width * 0.012 / calm
    # A picture lower than its water is mirrored stretched, so that the sky's top is never passed.
    up = top - 1 - rows * depth * min(1.0, 0.92 * top / depth) + waves * height * 0.035 / calm
    mirrored = cv2.remap(
        canvas.picture,
        x.astype(np.float32),
        np.clip(up, 0, max(0, top - 1)).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    own = np.asarray(colour, np.float32) * np.float32(0.15 + 0.85 * canvas.brightness)
    share = np.clip(0.16 + 0.44 * rows + 0.07 * waves, 0, 0.8)[..., None]
    surface = mirrored * (1 - share) + own * share
    surface += (canvas.light - surface) * np.clip(waves - 1.15, 0, 1)[..., None] * 0.22 * canvas.brightness
    canvas.picture[top:] = surface


def _sea(canvas: Canvas) -> None:
    height, width = canvas.picture.shape[:2]
    if canvas.rng.random() < 0.6:  # a far coast on one side
        reach = np.linspace(-0.6, 1, width) * (1 if canvas.rng.random() < 0.5 else -1)
        line = canvas.horizon - height * 0.07 * np.clip(
            reach + 0.3 * profile(canvas.rng, width, beta=1.8, waves=3), -0.01, 1
        )
        _layer(canvas, line.astype(np.float32), (0.24, 0.30, 0.36), distance=0.55)
    _water(canvas, canvas.horizon, (0.06, 0.26, 0.36), calm=1.0)


def _lake(canvas: Canvas) -> None:
    height, width = canvas.picture.shape[:2]
    top = canvas.horizon
    line = top - height * 0.17 * (0.7 + 0.6 * profile(canvas.rng, width, beta=1.6, waves=2.5))
    _layer(canvas, line, (0.32, 0.37, 0.44), distance=0.5, mist=0.9, foot=0.2)
    near = top - height * 0.05 * (0.7 + 0.5 * profile(canvas.rng, width, beta=2.0, waves=3.0))
    _layer(canvas, _conifers(canvas, near, 0.35), (0.16, 0.28, 0.20), distance=0.28, texture=0.05)
    _water(canvas, top, (0.08, 0.22, 0.28), calm=2.6)


def _beach(canvas: Canvas) -> None:
    height, width = canvas.picture.shape[:2]
    _water(canvas, canvas.horizon, (0.08, 0.40, 0.46), calm=1.2)
    line = height * 0.80 + height * 0.05 * profile(canvas.rng, width, beta=3.0, waves=1.5)
    for inset, colour in (
        (-0.020, (0.93, 0.95, 0.95)),
        (-0.006, (0.62, 0.53, 0.42)),
        (0.03, (0.88, 0.77, 0.60)),
    ):
        wobble = 0.012 * height * profile(canvas.rng, width, beta=1.8, waves=5.0)
        _layer(canvas, line + inset * height + wobble, colour, distance=0.0, texture=0.02)


def _city(canvas: Canvas) -> None:
    height, width = canvas.picture.shape[:2]
    for near in (0.0, 0.5, 1.0):
        line = np.full(width, canvas.horizon + height * 0.14 * near, np.float32)
        x = -int(canvas.rng.integers(0, 20))
        while x < width:
            wide = int(width * canvas.rng.uniform(0.018, 0.050) * (0.7 + near)) + 2
            tall = height * float(canvas.rng.uniform(0.05, 0.36)) ** 1.05 * (1.0 - 0.25 * near)
            line[max(0, x) : max(0, x + wide)] -= tall
            x += wide + int(canvas.rng.integers(0, 3) * near)
        _layer(canvas, line, (0.26, 0.29, 0.36), distance=0.72 * (1 - near), mist=0.35, texture=0.03)
        if canvas.at_night:
            _windows(canvas, line, near)
    _water(canvas, round(canvas.horizon + height * 0.16), (0.06, 0.09, 0.14), calm=1.6)


def _windows(canvas: Canvas, line: Floats, near: float) -> None:
    """Lit windows in the walls below the skyline."""
    height, width = canvas.picture.shape[:2]
    pitch = max(3, round(height * (0.007 + 0.008 * near)))
    lit = canvas.rng.random((height // pitch + 1, width // pitch + 1)) < 0.20
    glow = lit * canvas.rng.uniform(0.3, 1.0, lit.shape)
    panes = np.kron(glow, np.ones((pitch, pitch)))[:height, :width].astype(np.float32)
    rows, columns = np.arange(height)[:, None] % pitch, np.arange(width)[None] % pitch
    panes = panes * ((rows > 0) & (rows <= pitch * 0.6) & (columns > 0) & (columns <= pitch * 0.6))
    panes = panes * (np.arange(height)[:, None] > line[None] + pitch)
    halo = cv2.GaussianBlur(panes, (0, 0), pitch * 0.9)
    warm = np.array([1.0, 0.80, 0.48], np.float32)
    canvas.picture += (panes * 0.62 + halo * 0.35)[..., None] * warm * (0.45 + 0.55 * near)


def _seabed(canvas: Canvas) -> None:
    """Under water: light shafts from above over a sandy floor."""
    height, width = canvas.picture.shape[:2]
    y, x = np.mgrid[0 : 1 : height * 1j, -0.5 : 0.5 : width * 1j].astype(np.float32)
    light, deep = np.array([0.32, 0.80, 0.84], np.float32), np.array([0.01, 0.14, 0.30], np.float32)
    canvas.picture[:] = light + (deep - light) * smoothstep(y + 0.25 * np.abs(x), -0.05, 0.95)[..., None]
    angle = (x - (canvas.sun_x - 0.5)) / (y + 0.35) * 60 + 256
    rays = np.interp(angle % 511, np.arange(512), fractal(canvas.rng, 512, 1.5)[0]).astype(np.float32)
    shafts = smoothstep(rays, 0.0, 2.2) * (1 - y) ** 1.4 * 0.40
    canvas.picture += shafts[..., None] * np.array([0.75, 1.0, 0.95], np.float32)
    canvas.haze_colour, canvas.haze = np.array([0.05, 0.34, 0.48], np.float32), 0.9
    canvas.brightness = 0.55
    canvas.horizon = round(height * 0.72)
    _ridges(canvas, ((0.10, 0.36, 0.45), (0.30, 0.42, 0.40)), count=4, rise=0.10, beta=1.9, waves=3.0)


def _void(canvas: Canvas) -> None:
    """Nothing below, and the rim of a planet in it."""
    height, width = canvas.picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(min(height, width))
    cx = width / min(height, width) * float(canvas.rng.uniform(0.25, 0.75))
    cy, radius = height / min(height, width) * 0.98, float(canvas.rng.uniform(0.36, 0.5))
    distance = np.hypot(x - cx, y - cy)
    disc = smoothstep(distance, radius + 0.003, radius - 0.003)
    normal = (x - cx) * (canvas.sun_x - 0.5) * 2 - (y - cy) * 0.8
    lit = smoothstep(normal / radius, -0.1, 1.0)
    bands = cv2.resize(fractal(canvas.rng, 256, 1.7), (width, height), interpolation=cv2.INTER_CUBIC)
    hue = canvas.rng.uniform(0.25, 0.85, 3).astype(np.float32)
    surface = hue * (0.85 + 0.16 * bands)[..., None] * (0.05 + lit)[..., None]
    canvas.picture += (surface - canvas.picture) * disc[..., None]
    rim = np.exp(-np.abs(distance - radius) / 0.02) * lit
    canvas.picture += rim[..., None] * np.array([0.35, 0.55, 0.9], np.float32) * 0.7


def _sprinkle(canvas: Canvas, colours: tuple[Colour, ...]) -> None:
    """Flowers: dots that grow towards the lower edge."""
    height, width = canvas.picture.shape[:2]
    for _ in range(420):
        near = float(canvas.rng.random()) ** 0.6
        y = canvas.horizon + (height - canvas.horizon) * (0.35 + 0.65 * near)
        radius = max(1, round(height * 0.0045 * near**2))
        colour = np.asarray(colours[canvas.rng.integers(len(colours))]) * (0.30 + 0.70 * canvas.brightness)
        centre = (int(canvas.rng.uniform(0, width)), int(y))
        cv2.circle(canvas.picture, centre, radius, tuple(map(float, colour)), -1, cv2.LINE_AA)


GROUNDS: dict[str, Ground] = {
    "seabed": Ground("underwater reef coral fish diver submarine jellyfish", _seabed, 0.72),
    "beach": Ground("beach shore coast surf tropical palm island", _beach, 0.50),
    "lake": Ground("lake river pond fjord reflection", _lake, 0.56),
    "sea": Ground("sea ocean water wave boat ship sail sailing harbour harbor bay whale", _sea, 0.54),
    "city": Ground(
        "city street skyline skyscraper building town urban tokyo car road neon traffic", _city, 0.60
    ),
    "mountains": Ground("mountain peak alp summit cliff canyon valley volcano himalaya", _mountains, 0.62),
    "forest": Ground("forest wood tree jungle pine woodland bear deer wolf fox", _forest, 0.52),
    "desert": Ground("desert dune sand sahara camel mars canyon savanna", _desert, 0.56),
    "snow": Ground(
        "snow snowy winter ice icy glacier arctic polar frozen snowing snowfall blizzard ski", _snow, 0.56
    ),
    "meadow": Ground(
        "meadow field grass flower garden farm horse dog cat rabbit park prairie", _meadow, 0.55
    ),
    "hills": Ground("hill countryside landscape path village castle sheep vineyard", _hills, 0.54),
    "void": Ground("galaxy nebula cosmos planet universe orbit asteroid", _void, 1.0),
}
