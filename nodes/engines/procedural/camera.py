"""The camera path of the procedural engine: how a crop window glides over a photo during one shot."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farm.planning import RenderTask

Image = NDArray[np.uint8]

#: Camera speed at the default pace, and how far a shot may go: in window widths, log zoom, radians.
_PAN_PER_S, _PAN_MAX = 0.08, 0.40
_ZOOM_PER_S, _ZOOM_MAX = 0.06, math.log(1.5)
_TURN_PER_S, _TURN_MAX = math.radians(2.5), math.radians(10.0)
#: A short shot still moves as far as this long a shot would.
_SHORTEST_S = 2.0
#: A path without motion words turns to a new direction this often.
_LEG_S = 5.0


@dataclass(frozen=True)
class Motion:
    """What a prompt asks of the camera: -1, 0 or 1 per axis (1 is zoom in, right, down), and its pace."""

    zoom: int
    x: int
    y: int
    turn: int
    pace: float
    #: False when the prompt asks for no motion in particular, not even to hold still.
    is_named: bool

    @classmethod
    def of(cls, prompt: str) -> Motion:
        text = prompt.lower()
        panned = set(re.findall(r"\b(?:pan|tilt)\w*\s+(?:\w+\s+){0,3}?(left|right|up|down)\b", text))
        zoomed = set(re.findall(r"\bzoom\w*\s+(?:\w+\s+){0,3}?(in|out)\b", text))
        turn = int(bool(re.search(r"\brotat\w*\b", text)))
        still = bool(re.search(r"\b(?:hold\w*\s+still|static camera|still camera)\b", text))
        return cls(
            zoom=("in" in zoomed) - ("out" in zoomed),
            x=("right" in panned) - ("left" in panned),
            y=("down" in panned) - ("up" in panned),
            turn=turn,
            pace=0.5 if re.search(r"\bslow", text) else 2.0 if re.search(r"\b(?:quick|fast)", text) else 1.0,
            is_named=bool(panned or zoomed or turn or still),
        )


@dataclass(frozen=True)
class CameraPath:
    """A smooth path of a crop window inside an image, over one whole shot.

    A state is (zoom, x, y, turn), each in [-1, 1] of a range the image has room for, so no state can show
    the border. ``waypoints`` (N, 4) are states evenly spaced over the shot; the path eases out of the first
    and into the last.
    """

    waypoints: NDArray[np.float64]
    shot_start: int
    shot_end: int
    image_size: tuple[int, int]
    target_size: tuple[int, int]
    #: The largest window of the target's aspect ratio, (width, height) in image pixels.
    widest: tuple[float, float]
    #: log zoom at states -1 and 1; share of the free room at x, y = 1; radians at turn = 1.
    log_zoom: tuple[float, float]
    reach: tuple[float, float]
    turn: float

    @classmethod
    def plan(cls, task: RenderTask, image: Image) -> CameraPath:
        """The path the prompt's motion words ask for; without any, one that the seed draws."""
        motion = Motion.of(task.prompt)
        rng = np.random.default_rng([abs(task.seed), task.shot_start])
        seconds = max((task.shot_end - task.shot_start - 1) / task.fps, _SHORTEST_S)
        if motion.is_named:
            end = np.array([motion.zoom, motion.x, motion.y, motion.turn * rng.choice((-1, 1))], np.float64)
            waypoints = np.stack([end * (-1, -1, -1, 0), end])  # a turn begins upright
            moves = np.abs(end)
        else:
            waypoints = _drawn_waypoints(rng, legs=max(1, round(seconds / _LEG_S)))
            seconds /= len(waypoints) - 1
            moves = np.array([1.0, 1.0, 0.5, 0.15])
        run = seconds * motion.pace
        pan_x, pan_y = min(_PAN_PER_S * run, _PAN_MAX) * moves[1:3]
        turn = min(_TURN_PER_S * run, _TURN_MAX) * moves[3]
        size = image.shape[1], image.shape[0]
        scale = min(size[0] / task.width, size[1] / task.height)
        width, height = task.width * scale, task.height * scale
        # The turned window and the pan must fit: that sets how far in the camera stands at least.
        turned_x, turned_y = width + height * math.sin(turn), height + width * math.sin(turn)
        zoom = max((turned_x + width * pan_x) / size[0], (turned_y + height * pan_y) / size[1], 1.0)
        room = size[0] * zoom - turned_x, size[1] * zoom - turned_y
        return cls(
            waypoints=waypoints,
            shot_start=task.shot_start,
            shot_end=task.shot_end,
            image_size=size,
            target_size=(task.width, task.height),
            widest=(width, height),
            log_zoom=(math.log(zoom), math.log(zoom) + min(_ZOOM_PER_S * run, _ZOOM_MAX) * moves[0]),
            reach=(width * pan_x / max(room[0], 1e-9), height * pan_y / max(room[1], 1e-9)),
            turn=turn,
        )

    def state_at(self, index: float) -> NDArray[np.float64]:
        """The state (zoom, x, y, turn) at a frame index, which may be fractional; clamped to the shot."""
        legs = len(self.waypoints) - 1
        last = max(self.shot_end - 1 - self.shot_start, 1)
        position = min(max((index - self.shot_start) / last, 0.0), 1.0) * legs
        k = min(int(position), legs - 1)
        t = position - k
        # Cubic Hermite spline: Catmull-Rom slopes between legs, no speed at the two ends of the shot.
        slopes = np.zeros_like(self.waypoints)
        slopes[1:-1] = (self.waypoints[2:] - self.waypoints[:-2]) / 2
        weights = np.array(
            [2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, 3 * t**2 - 2 * t**3, t**3 - t**2], np.float64
        )
        ends = np.stack([self.waypoints[k], slopes[k], self.waypoints[k + 1], slopes[k + 1]])
        state: NDArray[np.float64] = weights @ ends
        return state

    def matrix_at(self, index: float) -> NDArray[np.float64]:
        """(2, 3): takes a pixel (x, y) of the target at this frame index to its place in the image.

        Coordinates count from the corner of the image, so a pixel's centre lies at +0.5.
        """
        zoom, x, y, turn = self.state_at(index)
        low, high = self.log_zoom
        factor = math.exp(low + (high - low) * (zoom + 1) / 2)
        angle, sine = turn * self.turn, math.sin(self.turn)
        width, height = self.widest[0] / factor, self.widest[1] / factor
        room_x = self.image_size[0] - width - height * sine
        room_y = self.image_size[1] - height - width * sine
        centre_x = (self.image_size[0] + x * self.reach[0] * room_x) / 2
        centre_y = (self.image_size[1] + y * self.reach[1] * room_y) / 2
        a = width / self.target_size[0] * math.cos(angle)
        b = width / self.target_size[0] * math.sin(angle)
        half_x, half_y = self.target_size[0] / 2, self.target_size[1] / 2
        left = centre_x - a * half_x + b * half_y
        top = centre_y - b * half_x - a * half_y
        return np.array([[a, -b, left], [b, a, top]], np.float64)


def _drawn_waypoints(rng: np.random.Generator, *, legs: int) -> NDArray[np.float64]:
    """Way points (legs + 1, 4) that swing from side to side, so that every leg is seen to move.

    Coordinates stay within 0.8: a Catmull-Rom spline overshoots by a quarter of that at most.
    """
    flip = np.where(np.arange(legs + 1) % 2 == 0, 1.0, -1.0)
    bearing = rng.uniform(0.0, 2 * math.pi) + rng.uniform(-0.7, 0.7, legs + 1)
    zoom = rng.choice((-1.0, 1.0)) * flip * rng.uniform(0.5, 0.8, legs + 1)
    turn = rng.choice((-1.0, 1.0)) * flip * rng.uniform(0.2, 0.8, legs + 1)
    return np.stack([zoom, 0.8 * flip * np.cos(bearing), 0.8 * flip * np.sin(bearing), turn], axis=1)
