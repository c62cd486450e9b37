"""Does a clip move as it was asked to? The judge of camera motions, and how far it can be trusted.

    python benchmarks/motion_judge.py

Real clips are filmed over pictures no model here was trained on, and judged for the motion they have (how
often is it right?) and for those they do not have (how often is it fooled?); so are clips that fade from one
picture to another, and noise. The shares are printed and go to benchmarks/results/motion_judge.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

# The sums here are small: threads of BLAS would only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import held_out  # noqa: E402
from benchmarks.held_out import JUDGED, Frames  # noqa: E402
from models.tiny_wan.recipe.data.camera import MOTIONS, PACES, Pace  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "motion_judge.json"
Array = NDArray[np.float64]

#: Slow clips are measured over as many frames as it takes to move this far: flow is good to 0.1 px or so.
STRIDE_PX = 3.0
#: A clip that moves less than this altogether is looked at frame by frame.
LOOK_AGAIN_PX = 6.0
#: Grey levels squared per pixel squared: a frame with a smaller mean structure tensor shows nothing.
TEXTURE_FLOOR = 0.5
#: Flow is read at about this many places along the shorter side of a frame.
GRID = 64
#: Rounds of re-weighting, and Tukey's constant in robust standard deviations.
ROUNDS, TUKEY = 8, 4.685
#: Flow is never trusted to be better than this.
LEAST_SPREAD_PX = 0.02
#: Flow agrees with the fitted motion within this many pixels, or this share of the motion.
AGREES_PX, AGREES_SHARE = 0.75, 0.25

#: A clip follows a motion when its size is in these bounds, relative to the asked one...
SLOWEST, FASTEST = 0.4, 2.0
#: ... when whatever else it does is at most this share of it...
OTHER_SHARE = 0.5
#: ... and when this share of what can be seen moves as one.
AGREEMENT = 0.35
#: A still clip moves less than this, half of the slowest motion asked for, or less than this altogether.
STILL_PX_PER_S, STILL_PX = 2.0, 1.2
#: The first and the last frame of a still clip show the same: least correlation.
SAME_PICTURE = 0.6


class Flow(NamedTuple):
    """How a picture moves in a frame step: pixels right and down, divergence, and curl (y points down).

    Divergence is twice the logarithm of the magnification; curl twice the angle, clockwise, in radians.
    """

    dx: float
    dy: float
    divergence: float
    curl: float

    def displacements_px(self, height: int, width: int) -> Array:
        """(4,): the mean displacement over the frame that each component causes alone, with its sign."""
        y, x = np.mgrid[:height, :width]
        radius = float(np.hypot(y - (height - 1) / 2, x - (width - 1) / 2).mean())
        return np.array([self.dx, self.dy, self.divergence / 2 * radius, self.curl / 2 * radius])


@dataclass(frozen=True)
class Measured:
    """Mean flow per frame step, and the share of the texture, 0 to 1, that moves with it."""

    flow: Flow
    agreement: float


UNKNOWN = Measured(Flow(0.0, 0.0, 0.0, 0.0), 0.0)


@dataclass(frozen=True)
class Seen:
    """What the judge sees in a clip.

    ``farthest_px``: mean displacement of the frame farthest from the first. ``same``: correlation of the
    details of the first and the last frame, -1 to 1.
    """

    measured: Measured
    farthest_px: float
    same: float
    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Verdict:
    """``speed``: the share of the asked speed, in the asked direction; for still, pixels a second."""

    followed: bool
    measured: Flow
    asked: Flow
    speed: float
    reason: str


def asked_flow(motion: str, pace: Pace, fps: float) -> Flow:
    """The flow per frame step that a camera motion causes: the picture moves against the camera."""
    camera = MOTIONS[motion].at(pace)
    return Flow(-camera.right / fps, -camera.down / fps, 2 * camera.zoom / fps, -2 * camera.roll / fps)


def judge(frames: Frames, fps: float, motion: str, pace: Pace) -> Verdict:
    """Whether frames (F, H, W, 3) uint8, F at least 2, show the camera motion at the pace."""
    return decide(see(frames), fps, motion, pace)


def decide(seen: Seen, fps: float, motion: str, pace: Pace) -> Verdict:
    """Whether what was seen is the camera motion at the pace."""
    measured, asked = seen.measured, asked_flow(motion, pace, fps)
    has = measured.flow.displacements_px(seen.height, seen.width) * fps
    wanted = asked.displacements_px(seen.height, seen.width) * fps
    size = float(np.linalg.norm(wanted))

    def verdict(followed: bool, speed: float, reason: str) -> Verdict:
        return Verdict(followed, measured.flow, asked, speed, reason)

    if measured.agreement == 0:
        return verdict(False, 0.0, "nothing in it can be followed")
    if size == 0:
        drift = seen.farthest_px * fps / (seen.num_frames - 1)
        if drift > STILL_PX_PER_S and seen.farthest_px > STILL_PX:
            return verdict(False, drift, f"moves {drift:.1f} px a second, not still")
        if seen.same < SAME_PICTURE:
            return verdict(False, drift, f"its last frame is another picture (correlation {seen.same:.2f})")
        return verdict(True, drift, f"still within {drift:.1f} px a second")
    along = float(has @ wanted) / size
    other = float(np.linalg.norm(has - along * wanted / size))
    speed = along / size
    said = f"{along:.1f} px a second of the {size:.1f} asked, {other:.1f} otherwise"
    if not SLOWEST <= speed <= FASTEST:
        return verdict(False, speed, f"not the asked speed: {said}")
    if other > OTHER_SHARE * along:
        return verdict(False, speed, f"not that motion alone: {said}")
    if measured.agreement < AGREEMENT:
        return verdict(False, speed, f"only {measured.agreement:.0%} of it moves so: {said}")
    return verdict(True, speed, said)


def measured_motion(frames: Frames) -> Flow:
    """Mean flow per frame step of frames (F, H, W, 3) uint8, F at least 2."""
    return measure(_grey(frames)).flow


def see(frames: Frames) -> Seen:
    """Look at frames (F, H, W, 3) uint8, F at least 2."""
    grey = _grey(frames)
    height, width = grey.shape[1:]
    measured = measure(grey)
    farthest_px = (len(grey) - 1) * _size_px(measured.flow, height, width)
    if farthest_px < LOOK_AGAIN_PX:  # it may have moved and come back
        farthest_px = max(_size_px(fit(grey[0], later).flow, height, width) for later in grey[1:])
    return Seen(measured, farthest_px, correlation(grey[0], grey[-1]), len(grey), height, width)


def measure(grey: NDArray[np.uint8]) -> Measured:
    """The motion of frames (F, H, W): of neighbours, or of frames further apart where they move little."""
    found = _mean([fit(a, b) for a, b in itertools.pairwise(grey)])
    step_px = _size_px(found.flow, *grey.shape[1:])
    stride = min(max(round(STRIDE_PX / max(step_px, 1e-6)), 1), len(grey) - 1)
    if stride == 1:
        return found
    found = _mean([fit(a, b) for a, b in zip(grey, grey[stride:], strict=False)])
    return Measured(Flow(*(value / stride for value in found.flow)), found.agreement)


def correlation(first: NDArray[np.uint8], last: NDArray[np.uint8]) -> float:
    """Of the details of two frames (H, W), -1 to 1, whatever their exposure."""

    def details(grey: NDArray[np.uint8]) -> Array:
        smooth = cv2.GaussianBlur(grey.astype(np.float64), (0, 0), 1.5)
        return np.asarray(smooth - cv2.GaussianBlur(smooth, (0, 0), 16))

    a, b = details(first), details(last)
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))


def fit(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Measured:
    """The similarity that frame ``first`` (H, W) moves by to become ``second``.

    Least squares over the DIS flow (Kroeger et al. 2016), each error weighted by the structure tensor: an
    edge counts across, not along. What does not move with the rest loses its weight (Tukey's biweight).
    Pixels that leave the frame do not count.
    """
    height, width = first.shape
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    flow = search.calc(first, second, None)  # type: ignore[call-overload]
    every = max(min(height, width) // GRID, 1)
    places = (slice(every // 2, None, every), slice(every // 2, None, every))
    y, x = (axis[places].ravel() for axis in np.mgrid[:height, :width].astype(np.float64))
    u, v = flow[places].reshape(-1, 2).astype(np.float64).T
    stays = (x + u > 0) & (x + u < width - 1) & (y + v > 0) & (y + v < height - 1)
    xx, xy, yy = (tensor[places].ravel()[stays] for tensor in _structure(first))
    texture = xx + yy
    if texture.size < 0.05 * x.size or texture.mean() < TEXTURE_FLOOR:
        return UNKNOWN
    scale = 1 / (
        texture + texture.mean()
    )  # a strong edge counts more than a weak one, not a hundred times more
    xx, xy, yy = xx * scale, xy * scale, yy * scale
    x, y, u, v = x[stays] - (width - 1) / 2, y[stays] - (height - 1) / 2, u[stays], v[stays]
    # The similarity moves (x, y) by u = dx + a x - b y and v = dy + b x + a y.
    one, zero = np.ones_like(x), np.zeros_like(x)
    along_x, along_y = np.stack([one, zero, x, -y]), np.stack([zero, one, y, x])
    tensor_x, tensor_y = along_x * xx + along_y * xy, along_x * xy + along_y * yy
    weight = one
    for _ in range(ROUNDS):
        matrix = (tensor_x * weight) @ along_x.T + (tensor_y * weight) @ along_y.T
        right = (tensor_x * weight) @ u + (tensor_y * weight) @ v
        solved = np.linalg.lstsq(matrix, right, rcond=1e-9)[0]
        moved_x, moved_y = solved @ along_x, solved @ along_y
        eu, ev = u - moved_x, v - moved_y
        error = np.sqrt(np.maximum(xx * eu * eu + 2 * xy * eu * ev + yy * ev * ev, 0) / (xx + yy + 1e-12))
        spread = max(1.4826 * float(np.median(error)), LEAST_SPREAD_PX)
        weight = np.maximum(1 - (error / (TUKEY * spread)) ** 2, 0) ** 2
    dx, dy, a, b = (float(value) for value in solved)
    agrees = error < np.maximum(AGREES_PX, AGREES_SHARE * np.hypot(moved_x, moved_y))
    divergence, curl = 2 * math.log(max(math.hypot(1 + a, b), 1e-3)), 2 * math.atan2(b, 1 + a)
    return Measured(Flow(dx, dy, divergence, curl), float(((xx + yy) * agrees).sum() / (xx + yy).sum()))


def _mean(found: list[Measured]) -> Measured:
    """Every measurement counts as much as it agrees with what is seen."""
    weights = np.array([m.agreement for m in found])
    if weights.sum() == 0:
        return UNKNOWN
    mean = np.average([m.flow for m in found], axis=0, weights=weights)
    return Measured(Flow(*(float(value) for value in mean)), float(weights.mean()))


def _size_px(flow: Flow, height: int, width: int) -> float:
    return float(np.linalg.norm(flow.displacements_px(height, width)))


def _grey(frames: Frames) -> NDArray[np.uint8]:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def _structure(grey: NDArray[np.uint8]) -> tuple[Array, Array, Array]:
    smooth = cv2.GaussianBlur(grey.astype(np.float64), (0, 0), 1.0)
    gx = cv2.Sobel(smooth, cv2.CV_64F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(smooth, cv2.CV_64F, 0, 1, scale=1 / 8)
    xx, xy, yy = (cv2.GaussianBlur(p, (0, 0), 2.0).astype(np.float64) for p in (gx * gx, gx * gy, gy * gy))
    return xx, xy, yy


class Shape(NamedTuple):
    """Of a clip that is shown: pixels a side, frames, frames a second."""

    side: int
    num_frames: int
    fps: float


#: Each picture is shown in two of them.
SHAPES = (Shape(128, 8, 4.0), Shape(128, 16, 8.0), Shape(128, 8, 16.0), Shape(256, 8, 8.0))


@dataclass(frozen=True)
class Shown:
    """A clip, and whether it is taken for each of the motions at its pace."""

    picture: str
    kind: Literal["true", "worn", "false"]
    shows: str
    pace: Pace
    shape: Shape
    taken_for: dict[str, bool]
    speed: float


def clip(picture: torch.Tensor, motion: str, pace: Pace, shape: Shape) -> Frames:
    """A real clip of the middle of a picture."""
    scale = 0.7 * min(1.0, 1.2 * held_out.FRAME_PX / shape.side)
    centre = (picture.shape[2] / 2, picture.shape[1] / 2)
    return held_out.filmed(picture, motion, pace, **shape._asdict(), centre=centre, scale=scale)[0]


def shown_of(number: int) -> list[Shown]:
    """The judge's word on all clips of one picture, by its number."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pictures = list(held_out.held_out_pictures().items())
    pictures = pictures[number:] + pictures[:number]
    name, picture = pictures[0]
    rng = np.random.default_rng(number)
    shown: list[Shown] = []
    # Every fourth picture is a photograph: they too are to meet all shapes.
    for shape in SHAPES[(number + number // 4) % 2 :: 2]:
        made: list[tuple[Literal["true", "worn", "false"], str, Frames, list[Pace]]] = []
        for motion, pace in itertools.product(JUDGED, PACES):
            made.append(("true", motion, clip(picture, motion, pace, shape), [pace]))
            if shape.num_frames == 8:
                made.append(("worn", motion, held_out.worn(made[-1][2], rng), [pace]))
        stills = [clip(other, "still", "normal", shape) for _, other in pictures[: shape.num_frames]]
        made += [
            ("false", shows, held_out.false_clip(shows, stills, rng), list(PACES)) for shows in held_out.FALSE
        ]
        for kind, shows, frames, paces in made:
            seen = see(frames)
            for pace in paces:
                taken_for = {asked: decide(seen, shape.fps, asked, pace).followed for asked in JUDGED}
                speed = decide(seen, shape.fps, shows, pace).speed if shows in MOTIONS else 0.0
                shown.append(Shown(name, kind, shows, pace, shape, taken_for, speed))
    return shown


def shares(shown: list[Shown]) -> dict[str, Any]:
    """Right: clips taken for what they show. Fooled: judgements that take one for what it does not show."""

    def right(rows: list[Shown]) -> float:
        return sum(row.taken_for[row.shows] for row in rows) / len(rows)

    def fooled(rows: list[Shown]) -> float:
        wrong = [taken for row in rows for motion, taken in row.taken_for.items() if motion != row.shows]
        return sum(wrong) / len(wrong)

    true, worn_out = ([row for row in shown if row.kind == kind] for kind in ("true", "worn"))
    return {
        "right": right(true),
        "right_by_motion_and_pace": {
            motion: {pace: right([r for r in true if r.shows == motion and r.pace == pace]) for pace in PACES}
            for motion in JUDGED
        },
        "right_by_shape": {
            f"{s.side}x{s.side}, {s.num_frames} frames, {s.fps:g} fps": right(
                [r for r in true if r.shape == s]
            )
            for s in SHAPES
            if any(r.shape == s for r in true)
        },
        "right_worn": right(worn_out),
        "right_worn_by_motion": {m: right([r for r in worn_out if r.shows == m]) for m in JUDGED},
        "fooled": fooled(shown),
        "fooled_by": {
            shows: fooled([r for r in shown if r.shows == shows]) for shows in (*JUDGED, *held_out.FALSE)
        },
        "speed_error": float(np.mean([abs(r.speed - 1) for r in true if r.shows != "still"])),
        "clips": len(shown),
        "missed": [
            f"{r.kind} clip of {r.picture}, {r.shows} {r.pace}, {r.shape}"
            for r in [*true, *worn_out]
            if not r.taken_for[r.shows]
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20, help="of 20, fewer for a look")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 20))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    shown: list[Shown] = []
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(shown_of, range(arguments.pictures)):
            shown += rows
            print(f"  {rows[0].picture}: {len(shown)} clips judged", file=sys.stderr, flush=True)
    found = shares(shown)
    print(f"{'':12}" + "".join(f"{pace:>9}" for pace in PACES))
    for motion, by_pace in found["right_by_motion_and_pace"].items():
        print(f"{motion:12}" + "".join(f"{share:9.1%}" for share in by_pace.values()))
    print(f"right {found['right']:.2%} (worn {found['right_worn']:.2%}), fooled {found['fooled']:.3%}")
    command, shapes = "python benchmarks/motion_judge.py", [shape._asdict() for shape in SHAPES]
    made = dict(command=command, pictures=arguments.pictures, shapes=shapes, opencv=cv2.__version__)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps({"made": made, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
