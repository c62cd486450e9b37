"""How long the windows of a job are, and how far they overlap: as asked, as its preset names them, or as the
model has it. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from farm.capabilities import EngineSpec, FrameRule, Mode
from farm.errors import CannotRun, InvalidInput
from farm.planning.framing import size_for
from farm.planning.lengths import is_between_images
from farm.request import MAX_FRAMES, MIN_STEPS, JobRequest, preset
from farm.values import Value


def at_level(request: JobRequest, spec: EngineSpec) -> tuple[JobRequest, tuple[str, ...]]:
    """The request with the size, window and steps of its preset, where it leaves them open; and what is said.

    Of windows it is the nearest that the model was trained on, or has.
    """
    level = None if request.preset is None else preset(request.preset).level
    if level is None:
        return request, ()
    changes: dict[str, int] = {}
    said = []
    if request.width is None:
        width, height = size_for(spec, request.source, area=level.side_px**2)
        changes |= {"width": width, "height": height}
        said.append(f"{width}x{height}")
    if request.window_frames is None:
        window = spec.frames.nearest(level.window_frames)
        if spec.trained_windows:
            window = min(spec.trained_windows, key=lambda n: (abs(n - level.window_frames), n))
        changes["window_frames"] = window
        own = (
            "" if window == level.window_frames else f", the nearest of {spec.model} to {level.window_frames}"
        )
        said.append(f"windows of {window} frames{own}")
    if request.num_inference_steps is None:
        if spec.default_steps < MIN_STEPS:
            said.append(f"{spec.model} is made for few steps and keeps its own number")
        else:
            changes["num_inference_steps"] = level.num_inference_steps
            said.append(f"{level.num_inference_steps} steps")
    notes = (f"preset {request.preset}: {'; '.join(said)}",) if said else ()
    return request.model_copy(update=changes), notes


class PresetChoice(Value):
    """A preset that names size and window, with nothing of them asked besides."""

    preset: str
    width: int
    height: int
    window_frames: int
    runnable: bool
    #: Why no worker can hold it, and the nearest settings that one can.
    reason: str | None


class WindowChoice(NamedTuple):
    """In frames, with what is said of how they were chosen."""

    window: int
    overlap: int
    notes: tuple[str, ...] = ()


def window_choice(request: JobRequest, spec: EngineSpec, mode: Mode) -> WindowChoice:
    """Window and overlap of a job.

    Raises:
        CannotRun: the model does not render such a window, or its windows cannot overlap so.
        InvalidInput: the overlap is more than half of the window, or nothing could be handed over.
    """
    window, notes = _window(request, spec)
    hands_over = mode in ("chain", "infill") or (mode == "refine" and request.kind != "video")
    if hands_over and window < 2:
        raise InvalidInput(
            f"window is 1 frame, and mode {mode} needs 2 or more to hand one over", param="window"
        )
    asked = request.overlap_frames
    overlap = _overlap(request, spec, mode, window) if asked is None else asked
    if overlap > window // 2:
        raise InvalidInput(
            f"overlap is {overlap}, expected at most half the window of {window} frames", param="overlap"
        )
    if not spec.frames.allows_overlap(overlap):
        near = nearest_overlap(spec.frames, overlap, window)
        raise CannotRun(
            f"overlap is {overlap} frames, and windows of {spec.model} start on every "
            f"{spec.frames.frames_per_latent}th frame; nearest is {near}",
            param="overlap",
        )
    return WindowChoice(window, overlap, notes)


def one_a_shot(
    request: JobRequest, spec: EngineSpec, choice: WindowChoice, longest_shot: int
) -> WindowChoice:
    """Windows as long as shots, of a model that makes them of words and can go on from no frame.

    Raises:
        CannotRun: it renders no such window, or a shorter one is asked for.
    """
    if longest_shot <= choice.window:
        return choice
    most = spec.frames.nearest(MAX_FRAMES)
    if request.window_frames is not None or longest_shot > most:
        allowed = choice.window if request.window_frames is not None else most
        raise CannotRun(
            f"{spec.model} can be given no frame to go on from, so that a shot of words alone is one window: "
            f"{longest_shot} frames are asked for, and a window has {allowed}; ask for fewer frames, or give "
            "a prompt for each of several shots",
            param="frames",
        )
    window = spec.frames.at_least(longest_shot)
    overlap = nearest_overlap(spec.frames, choice.overlap, window)
    alone = f"window {window}: {spec.model} goes on from no frame, and a shot is one window"
    return WindowChoice(window, overlap, (alone, *_untrained_window(spec, window)))


def _window(request: JobRequest, spec: EngineSpec) -> tuple[int, tuple[str, ...]]:
    asked, rule = request.window_frames, spec.frames
    window = spec.window_frames if asked is None else asked
    if rule.allows(window):
        return window, _untrained_window(spec, window)
    if rule.frames_per_latent > 1 and rule.allows(window + 1) and window % rule.frames_per_latent == 0:
        return window + 1, (f"window {window + 1}: the first of its frames is shared, {window} are new",)
    raise CannotRun(
        f"window is {window} frames, and {spec.model} renders {rule.form()}; "
        f"nearest is {rule.nearest(window)}",
        param="window",
    )


def _untrained_window(spec: EngineSpec, window: int) -> tuple[str, ...]:
    if not spec.trained_windows or window in spec.trained_windows:
        return ()
    if spec.context_frames is not None and window > spec.context_frames:
        return (
            f"windows of {window} frames are denoised in overlapping parts of {spec.context_frames}, which "
            "takes no more memory and about a third more time",
        )
    trained = ", ".join(map(str, spec.trained_windows))
    return (f"{spec.model} was trained on windows of {trained} frames, and not on {window}",)


def _overlap(request: JobRequest, spec: EngineSpec, mode: Mode, window: int) -> int:
    """As the model has it, up to half the window; between keyframes the length of a clip at its ends."""
    wanted = spec.overlap_frames
    if mode == "infill":
        wanted = 1 if is_between_images(request, mode) else spec.frames.clip_frames(spec.max_end_latents)
    return nearest_overlap(spec.frames, min(wanted, window // 2), window)


def nearest_overlap(rule: FrameRule, overlap: int, window: int) -> int:
    """The overlap nearest to this one, of those that windows of this length can have."""
    allowed = [n for n in range(window // 2 + 1) if rule.allows_overlap(n)]
    return min(allowed, key=lambda n: abs(n - overlap), default=0)
