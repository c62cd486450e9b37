"""A deterministic moving picture: a camera that glides over a photo, or a drawn look over a video.

For tests, demonstrations and seam truth; it needs no card and no weights. Two things set it apart:

* ``inputs.image`` is the whole normalised image at its own size, not resized to the task: the engine
  covers the task's aspect ratio itself and crops every frame from full resolution.
* ``procedural-mild``, ``-typical`` and ``-hard`` make every segment but the first of a shot differ from
  ``procedural`` by a known photometric, geometric and timing error, so a join has something true to
  repair and ``procedural`` renders the right answer.

A frame depends on its index, the shot and the task alone, so any segment can be rendered first, and on any
number of threads it is the same byte for byte (processors with AVX2; older ones round differently).
``handover`` and ``anchor`` are not used: no segment needs anything of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.capabilities import Conditioning, EngineSpec, Rung, RungSpec, StageCost
from farm.planning import RenderTask
from nodes.engines.engine import Rendered, RenderInputs, Report
from nodes.engines.procedural.camera import CameraPath
from nodes.engines.procedural.looks import look_for

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ErrorLevel:
    """How far a segment strays. Magnitudes follow the measured behaviour of independent segments."""

    #: Euclidean length of the Lab shift (CIE units) and largest relative change of contrast.
    lab_shift: float
    contrast: float
    #: Root mean square displacement in pixels for a frame 256 pixels wide.
    rms_px_at_256: float
    #: Timing errors in frames that the seed picks from.
    slips: tuple[float, ...]


LEVELS: dict[str, ErrorLevel | None] = {
    "procedural": None,
    "procedural-mild": ErrorLevel(1.5, 0.02, 0.7, (0.0,)),
    "procedural-typical": ErrorLevel(3.5, 0.05, 2.0, (0.0, -0.5, 0.5)),
    "procedural-hard": ErrorLevel(8.0, 0.10, 5.0, (-0.5, 0.5, -1.0, 1.0)),
}

TAKES: frozenset[Conditioning] = frozenset({"image", "text", "video"})

#: Measured resident peaks of a process at 512 to 2048 pixels a side, 1 to 64 frames, images to 4096 x 4096:
#: 75 MiB with the interpreter, numpy, OpenCV and PyAV alone; the image and its reduced copy beside that;
#: up to 80 bytes per pixel of the frame in hand plus 6 per pixel of the window (its frames and its input).
#: That sum is at most the larger of 160 per pixel and 12 per pixel and frame: the two stages of the spec.
_CONTEXT_BYTES = 80 << 20
_IMAGE_BYTES = 80 << 20

#: Below this scale the image is first reduced by area averaging, or fine texture would shimmer.
_REDUCE_BELOW = 0.75


def spec(model: str) -> EngineSpec:
    """What the planner needs to know of one of ``LEVELS``. ``image`` conditioning is at full size.

    The prior time is a camera move's on one CPU core, most of it for packing the frames without loss; drawing
    a look over a video takes about twice that.

    Raises:
        ValueError: the model is none of this engine's.
    """
    if model not in LEVELS:
        raise ValueError(f"model: got {model!r}, expected one of {', '.join(LEVELS)}.")
    return EngineSpec(
        model=model,
        engine="procedural",
        takes=TAKES,
        random_access=True,
        wants_full_image=True,
        side_multiple=2,
        native_width=512,
        native_height=512,
        default_strength=1.0,
        component_bytes={},
        context_bytes=_CONTEXT_BYTES,
        rungs=(
            RungSpec(
                name="resident",
                stages=(
                    StageCost(name="draw", fixed_bytes=_IMAGE_BYTES, bytes_per_pixel=160.0, frames_at_once=1),
                    StageCost(name="window", fixed_bytes=_IMAGE_BYTES, bytes_per_pixel=12.0),
                ),
            ),
        ),
        prior_seconds_per_mpixel_step=0.1,
    )


class Procedural:
    """The engine. Holds nothing between calls."""

    def __init__(self, model: str = "procedural") -> None:
        self.spec = spec(model)

    def load(self, rung: Rung) -> None:
        """There is nothing to load."""

    def unload(self) -> None:
        """There is nothing to release."""

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        """Draw the window from ``inputs.video`` (F, H, W, 3) if there is one, else ``inputs.image``.

        ``inputs.image`` has shape (any height, any width, 3). A restyled video is locked to its source
        frames, so the timing part of a model's error shows in camera moves only.

        Raises:
            ValueError: there is neither an image nor a video, or the video has another size.
        """
        error = segment_error(task, self.spec.model)
        source: _CameraMove | _Restyle
        if inputs.video is not None:
            source = _Restyle(task, inputs.video)
        elif inputs.image is not None:
            source = _CameraMove(task, inputs.image)
        else:
            raise ValueError("inputs: got neither image nor video, expected one of them to draw from.")
        frames = np.empty((task.num_frames, task.height, task.width, 3), np.uint8)
        for k in range(task.num_frames):
            report("denoise", k, task.num_frames)
            frames[k] = source.frame(k, error)
        report("denoise", task.num_frames, task.num_frames)
        handover = {} if task.handover_index is None else {"image": frames[task.handover_index].copy()}
        return Rendered(frames=frames, handover=handover)


@dataclass(frozen=True)
class SegmentError:
    """What one segment gets wrong, the same in all its frames."""

    slip_frames: float
    #: Lab out = (Lab - (50, 0, 0)) * contrast + (50, 0, 0) + shift, in CIE units.
    contrast: float
    shift: tuple[float, float, float]
    #: (H, W, 2) float32: where to read, in pixels (x, y) relative to the right place.
    displacement: Floats

    def recoloured(self, frame: Image) -> Image:
        """The frame (H, W, 3) with the photometric error; works in bands to keep float copies small."""
        middle = np.array([50.0, 0.0, 0.0], np.float32)
        offset = middle * (1.0 - self.contrast) + np.array(self.shift, np.float32)
        out = np.empty_like(frame)
        for top in range(0, frame.shape[0], 32):
            band = slice(top, top + 32)
            lab = cv2.cvtColor(frame[band].astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
            lab = lab * np.float32(self.contrast) + offset
            rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB)
            out[band] = np.clip(np.rint(rgb * 255.0), 0, 255).astype(np.uint8)
        return out


def segment_error(task: RenderTask, model: str) -> SegmentError | None:
    """The error of this task's segment under ``model``; None for exact models and a shot's first segment.

    Drawn from (seed, first frame index, take): a re-render strays another way by as much.
    """
    level = LEVELS[model]
    first = task.frame_indices[0]
    if level is None or first == task.shot_start:
        return None
    rng = np.random.default_rng([abs(task.seed), first, task.take])
    shift = rng.standard_normal(3)
    shift *= level.lab_shift / float(np.linalg.norm(shift))
    # A coarse grid of random arrows, smoothly enlarged: three bends across the frame's longer side.
    cells = [max(2, round(3 * side / max(task.height, task.width))) + 1 for side in (task.height, task.width)]
    grid = rng.standard_normal((*cells, 2)).astype(np.float32)
    field = cv2.resize(grid, (task.width, task.height), interpolation=cv2.INTER_CUBIC)
    rms = float(np.sqrt(np.mean(np.sum(field.astype(np.float64) ** 2, axis=-1))))
    return SegmentError(
        slip_frames=float(rng.choice(level.slips)),
        contrast=1.0 + level.contrast * float(rng.choice((-1.0, 1.0))),
        shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        displacement=(field * (level.rms_px_at_256 * task.width / 256 / rms)).astype(np.float32),
    )


class _CameraMove:
    """Frames cropped from one image along a path, each interpolated once, errors included."""

    def __init__(self, task: RenderTask, image: Image) -> None:
        self._task = task
        self._path = CameraPath.plan(task, image)
        # Cubic interpolation must not skip pixels: reduce the image until its closest crop is about 1:1.
        closest = self._path.widest[0] / math.exp(self._path.log_zoom[1])
        scale = task.width / closest
        if scale < _REDUCE_BELOW:
            size = round(image.shape[1] * scale), round(image.shape[0] * scale)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        self._image = image

    def frame(self, k: int, error: SegmentError | None) -> Image:
        index = self._task.frame_indices[k] + (error.slip_frames if error else 0.0)
        matrix = self._path.matrix_at(index)
        matrix[0] *= self._image.shape[1] / self._path.image_size[0]
        matrix[1] *= self._image.shape[0] / self._path.image_size[1]
        matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV counts from the centre of pixel 0
        return _warped(self._image, matrix, self._task, error)


def _warped(image: Image, matrix: NDArray[np.float64], task: RenderTask, error: SegmentError | None) -> Image:
    """Target frame (H, W, 3) read from ``image`` through ``matrix`` and the error's displacement."""
    # Cubic, not Lanczos: 5 times as fast here and as sharp at scales near 1. Mirrored edges only ever serve
    # the kernel's rim and a displaced reading.
    if error is None:
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        size = (task.width, task.height)
        warped = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        return warped.astype(np.uint8, copy=False)
    x = np.arange(task.width, dtype=np.float32)[None, :] + error.displacement[..., 0]
    y = np.arange(task.height, dtype=np.float32)[:, None] + error.displacement[..., 1]
    m = matrix.astype(np.float32)
    map_x = m[0, 0] * x + m[0, 1] * y + m[0, 2]
    map_y = m[1, 0] * x + m[1, 1] * y + m[1, 2]
    warped = cv2.remap(image, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return error.recoloured(warped.astype(np.uint8, copy=False))


class _Restyle:
    """Frames of a video in a drawn look, each from its own source frame alone."""

    def __init__(self, task: RenderTask, video: Image) -> None:
        wanted = (task.num_frames, task.height, task.width, 3)
        if video.shape != wanted:
            raise ValueError(f"video: got shape {video.shape}, expected {wanted} as the task says.")
        self._look = look_for(task.prompt)
        self._strength = 1.0 if task.strength is None else task.strength
        self._task, self._video = task, video

    def frame(self, k: int, error: SegmentError | None) -> Image:
        source = self._video[k]
        drawn = cv2.addWeighted(self._look(source), self._strength, source, 1.0 - self._strength, 0.0)
        styled = drawn.astype(np.uint8, copy=False)
        return _warped(styled, np.eye(2, 3), self._task, error) if error else styled
