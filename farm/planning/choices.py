"""What can be chosen for a video on the workers that are here, and why not the rest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from farm.capabilities import MODES, DeviceKind, EngineSpec, Mode, RenderShape, Worker, why_not
from farm.errors import CannotRun, InvalidInput
from farm.planning.framing import near_size, shape_of, size_for
from farm.planning.holding import held_on
from farm.planning.lengths import source_frames
from farm.planning.planner import footprint, plan
from farm.planning.window_choice import PresetChoice
from farm.request import MAX_SIDE, JobRequest, MediaInfo
from farm.values import Value

#: Shorter sides people ask for, beside multiples of the model's own area.
_SHORT_SIDES = (256, 360, 480, 576, 720, 1080)
_AREA_SCALES = (0.25, 1.0, 2.25, 4.0)
#: Window lengths offered, at most.
_MAX_WINDOWS = 12


class SizeChoice(Value):
    width: int
    height: int
    #: Of a window of the asked length: bytes at the smallest rung of the worker with the most memory.
    need_bytes: int | None
    #: Whether a worker can hold it; without any worker, whether the farm would wait for one.
    runnable: bool
    #: Why not, of the worker with the most memory.
    reason: str | None


class WindowChoice(Value):
    """As ``SizeChoice``, at the asked size."""

    window_frames: int
    need_bytes: int | None
    runnable: bool
    reason: str | None


class ModeChoice(Value):
    """As ``SizeChoice``, at the asked size and window."""

    mode: Mode
    need_bytes: int | None
    runnable: bool
    #: Why the model cannot run it on this input, or why no worker can hold it.
    reason: str | None


class Choices(Value):
    """Sizes and windows from the smallest on, modes in the order of ``MODES``, presets in theirs."""

    sizes: tuple[SizeChoice, ...]
    windows: tuple[WindowChoice, ...]
    modes: tuple[ModeChoice, ...]
    #: Filled by ``preset_choices``.
    presets: tuple[PresetChoice, ...] = ()


def choices(spec: EngineSpec, workers: Iterable[Worker], request: JobRequest | None = None) -> Choices:
    """Sizes, windows and modes, each judged with everything else as asked, or as the model has it.

    Args:
        spec: Of the model.
        workers: That are here.
        request: What is asked so far; None: nothing, over an input in the model's own shape.
    """
    asked, workers = request or nothing_asked(spec), list(workers)
    judge = _Judge(spec, workers, asked)
    window = asked.window_frames or spec.window_frames
    if asked.width is not None and asked.height is not None:
        size = (asked.width, asked.height)
    else:
        size = size_for(spec, asked.source)
    sizes = []
    for width, height in sizes_of(spec, asked.source, size):
        need, reason = judge(width, height, window, asked.mode)
        sizes.append(
            SizeChoice(width=width, height=height, need_bytes=need, runnable=not reason, reason=reason)
        )
    windows = []
    for frames in _windows(spec, window):
        need, reason = judge(*size, frames, asked.mode)
        windows.append(
            WindowChoice(window_frames=frames, need_bytes=need, runnable=not reason, reason=reason)
        )
    modes = []
    for mode in MODES:
        need, too_large = judge(*size, window, mode)
        reason = _refused(asked, spec, mode) or too_large
        modes.append(ModeChoice(mode=mode, need_bytes=need, runnable=not reason, reason=reason))
    return Choices(
        sizes=tuple(sizes),
        windows=tuple(windows),
        modes=tuple(modes),
    )


def nothing_asked(spec: EngineSpec, num_frames: int | None = None) -> JobRequest:
    """A request over an image in the model's own shape; of a model that takes none, of words alone, or over a
    video of so many frames, or of a window."""
    image = "image" in spec.takes
    if not image and "text_alone" in spec.takes:
        return JobRequest(prompts=("a view",), model=spec.model)
    media = MediaInfo(
        kind="image" if image else "video",
        width=spec.native_width,
        height=spec.native_height,
        num_frames=1 if image else num_frames or spec.window_frames,
        fps=None if image else Fraction(spec.native_fps),
        sha256="",
        path=Path(),
    )
    return JobRequest(inputs=(media,), model=spec.model)


class _Judge:
    """Whether a worker can hold a window of some size and length."""

    def __init__(self, spec: EngineSpec, workers: Sequence[Worker], asked: JobRequest) -> None:
        self._spec, self._workers, self._input = spec, workers, asked.inputs[:1]
        guidance = spec.default_guidance_scale if asked.guidance_scale is None else asked.guidance_scale
        self._guided = guidance > 1.0
        self._largest = max(workers, key=lambda w: w.vram_bytes, default=None)

    def __call__(
        self, width: int, height: int, window: int, mode: Mode | Literal["auto"]
    ) -> tuple[int | None, str | None]:
        """Bytes at the smallest rung of the largest worker, and why no worker has them."""
        if self._largest is None:
            return None, None
        # Memory does not depend on the number of steps.
        shape = RenderShape(
            num_frames=window,
            height=height,
            width=width,
            num_inference_steps=1,
            guided=self._guided,
            # A photo is refined over its draft, and windows are filled between clips.
            encodes_clips=any(media.kind == "video" for media in self._input) or mode in ("refine", "infill"),
        )
        needs = {
            kind: footprint(held_on(self._spec, kind, *self._input), shape, kind).needs
            for kind in get_args(DeviceKind)
        }
        refused = all(why_not(needs[w.kind], w) for w in self._workers)
        reason = why_not(needs[self._largest.kind], self._largest) if refused else None
        return min(need.vram_bytes for need in needs[self._largest.kind].values()), reason


def _scaled(
    spec: EngineSpec, shape: tuple[int, int], area_scale: float, *, is_video: bool
) -> tuple[int, int]:
    """Sides of the input, brought to so many times the model's own area; a video is not enlarged."""
    width, height = shape
    scale = (spec.native_width * spec.native_height * area_scale / (width * height)) ** 0.5
    if is_video:
        scale = min(scale, 1.0)
    return round(width * scale), round(height * scale)


def sizes_of(spec: EngineSpec, media: MediaInfo | None, asked: tuple[int, int]) -> Sequence[tuple[int, int]]:
    """In the shape of the input, or in the model's: parts and multiples of the model's own area, and usual
    heights of videos."""
    shape, is_video = shape_of(spec, media), media is not None and media.kind == "video"
    short = min(shape)
    sides = [side for side in _SHORT_SIDES if not is_video or side <= short]
    found = {near_size(spec, *shape, side / short) for side in sides}
    found |= {near_size(spec, *_scaled(spec, shape, s, is_video=is_video), 1.0) for s in _AREA_SCALES}
    found.add(size_for(spec, media))
    return sorted({size for size in found if min(size) >= 16 and max(size) <= MAX_SIDE} | {asked})


def _windows(spec: EngineSpec, asked: int) -> Sequence[int]:
    """Lengths the model renders, thinned out evenly; the one asked for stays."""
    allowed = spec.frames.allowed()
    every = -(-len(allowed) // _MAX_WINDOWS)
    first = allowed.index(asked) % every if asked in allowed else 0
    return allowed[first::every]


def _refused(asked: JobRequest, spec: EngineSpec, mode: Mode) -> str | None:
    """Why the planner would not make this in this mode. What is wrong with a size is not the mode's fault."""
    changes: dict[str, object] = {"mode": mode, "draft_model": None}
    if mode != "infill":
        # A window a shot tells as much as the whole video, and is planned at once.
        num_frames = (asked.window_frames or spec.window_frames) * asked.num_shots
        if asked.source is not None and asked.source.kind == "video":
            fps = asked.fps or asked.source.fps or Fraction(spec.native_fps)
            num_frames = min(num_frames, source_frames(asked.source, fps))
        changes |= {"num_frames": num_frames, "seconds": None, "deliver_fps": None}
    try:
        plan(asked.model_copy(update=changes), spec)
    except (CannotRun, InvalidInput) as error:
        return error.message if error.param in ("mode", "window", "frames") else None
    return None
