"""From a request and a model's spec to a plan. Pure: reads no file, asks no machine.

Each mode is one function from a shot to its segments. A mode that the model cannot run is refused by
name with the reason; nothing is changed silently, and what was rounded is said in ``Plan.notes``.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from farm.engine_spec import EngineSpec, Mode, RenderShape, need_bytes
from farm.errors import CannotRun, InvalidInput
from farm.job import MAX_FPS, MAX_FRAMES, MAX_SIDE, MIN_FPS, JobRequest, check
from farm.plan import Footprint, Plan, Segment, Shot
from farm.windows import cropped_windows, shifted_windows

DEFAULT_SECONDS = 4
#: A model's files come from a local disk about this fast.
LOAD_BYTES_PER_S = 1e9
#: A chain drifts; after this many hops it is pulled fully to its first segment's statistics.
HOPS_BETWEEN_ANCHORS = 6
#: Pull at every other hop (the factor of LTX's long-video pipeline).
ANCHOR_STRENGTH = 0.25
#: NTSC rates are so many thousandths and one; with a larger denominator video files lose count.
MAX_FPS_DENOMINATOR = 1001


def plan(request: JobRequest, spec: EngineSpec) -> Plan:
    """Decide everything about a job once.

    Raises:
        InvalidInput: a number or combination no model could serve.
        CannotRun: the model does not take this input, size, window or mode.
    """
    check(request)
    mode = _mode(request, spec)
    fps, fps_notes = _fps(request, spec)
    width, height, size_notes = _size(request, spec)
    window, overlap = _window(request, spec, mode)
    num_frames = _num_frames(request, fps, mode, window)
    steps = request.num_inference_steps or spec.default_steps
    guidance = spec.default_guidance_scale if request.guidance_scale is None else request.guidance_scale
    shots = _shots(request, mode, num_frames)
    segments: list[Segment] = []
    for shot in shots:
        segments += _SEGMENTS[mode](shot, spec, window, overlap)
    shape = RenderShape(
        num_frames=max(s.num_frames for s in segments),
        height=height,
        width=width,
        num_inference_steps=steps,
        guided=guidance > 1.0,
    )
    return Plan(
        model=spec.model,
        mode=mode,
        num_frames=num_frames,
        fps=fps,
        width=width,
        height=height,
        window_frames=window,
        overlap_frames=overlap,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=request.negative_prompt,
        strength=(request.strength or spec.default_strength) if mode == "refine" else None,
        seed=request.seed,
        shots=shots,
        segments=_with_tails(segments),
        on={kind: footprint(spec.on(kind), shape) for kind in ("cuda", "cpu")},
        mpixel_steps=sum(s.num_frames for s in segments) * width * height * steps / 1e6,
        notes=fps_notes + size_notes,
    )


def _with_tails(segments: list[Segment]) -> tuple[Segment, ...]:
    """What a segment shares with the one after is that one's head."""
    finals = [s for s in segments if s.level == "final"]
    tails = {before.id: after.head for before, after in pairwise(finals) if after.head}
    return tuple(s.model_copy(update={"tail": tails[s.id]}) if s.id in tails else s for s in segments)


def footprint(spec: EngineSpec, shape: RenderShape) -> Footprint:
    """Memory and time of one window, per rung."""
    return Footprint(
        need_bytes={rung.name: need_bytes(spec, rung, shape) for rung in spec.rungs},
        slowdown={rung.name: rung.slowdown for rung in spec.rungs},
        prior_seconds_per_mpixel_step=spec.prior_seconds_per_mpixel_step,
        prior_load_s=sum(spec.component_bytes.values()) / LOAD_BYTES_PER_S,
    )


def _mode(request: JobRequest, spec: EngineSpec) -> Mode:
    kind = request.inputs[0].kind
    mode = request.mode
    if mode == "auto":
        mode = "refine" if kind == "video" else "independent" if spec.random_access else "chain"
    refusal = mode_refusal(mode, kind, len(request.inputs), spec)
    if refusal:
        raise CannotRun(refusal, param="mode")
    return mode


def mode_refusal(mode: Mode, kind: str, num_inputs: int, spec: EngineSpec) -> str | None:
    """Why this model cannot run this mode on this input, or None when it can."""
    if kind == "video":
        if "video" not in spec.takes:
            return f"model {spec.model} takes no input video; give an image, or another model"
        if mode != "refine":
            return f"mode {mode} starts from images, and the input is a video; use refine"
        return None
    if "image" not in spec.takes:
        return f"model {spec.model} takes no image; give a video, or another model"
    if mode == "refine":
        return "mode refine works over a video, and the input is an image; use chain or independent"
    if mode == "independent" and not spec.random_access:
        return f"mode independent needs a model that can start at any frame; {spec.model} cannot: use chain"
    if mode == "infill" and "last_image" not in spec.takes:
        return (
            f"mode infill needs a model that takes a last image; {spec.model} does not: "
            "use chain, one shot an image"
        )
    if mode == "infill" and num_inputs < 2:
        return "mode infill renders between keyframes; give at least two images"
    if mode == "co_denoise" and not spec.fusible:
        return (
            f"mode co_denoise needs a model whose windows can be fused between denoising steps; "
            f"{spec.model} is not prepared for that: use chain"
        )
    return None


def _fps(request: JobRequest, spec: EngineSpec) -> tuple[Fraction, tuple[str, ...]]:
    """The frame rate: as asked, or the input video's, or the model's; rounded to what files can say."""
    wanted = request.fps or request.inputs[0].fps or Fraction(spec.native_fps)
    if not MIN_FPS <= wanted <= MAX_FPS:
        raise InvalidInput(
            f"the input video has {float(wanted):g} frames a second, expected {MIN_FPS} to {MAX_FPS}; "
            "re-encode it, or give fps",
            param="fps",
        )
    fps = wanted.limit_denominator(MAX_FPS_DENOMINATOR)
    return fps, () if fps == wanted else (f"fps {fps} chosen as the nearest to {wanted}",)


def _num_frames(request: JobRequest, fps: Fraction, mode: Mode, window: int) -> int:
    source = request.inputs[0]
    if request.num_frames is not None:
        num_frames = request.num_frames
    elif request.seconds is not None:
        num_frames = max(1, round(request.seconds * fps))
    elif source.kind == "video":
        num_frames = source.num_frames
    elif mode == "infill":
        num_frames = (len(request.inputs) - 1) * (window - 1) + 1
    else:
        num_frames = round(DEFAULT_SECONDS * fps) * len(request.inputs)
    if source.kind == "video" and num_frames > source.num_frames:
        raise InvalidInput(
            f"{num_frames} frames are asked for, and the input video has {source.num_frames}; ask for fewer",
            param="frames",
        )
    if num_frames > MAX_FRAMES:
        raise InvalidInput(
            f"{num_frames} frames are asked for, at most {MAX_FRAMES} are made", param="frames"
        )
    if num_frames < len(request.inputs):
        raise InvalidInput(
            f"{num_frames} frames cannot hold {len(request.inputs)} shots; ask for at least one a shot",
            param="frames",
        )
    return num_frames


def _size(request: JobRequest, spec: EngineSpec) -> tuple[int, int, tuple[str, ...]]:
    """The frame size: as asked, or the model's native area in the shape of the first input."""
    # H.264 in yuv420p needs even sides, whatever the model allows.
    multiple = spec.side_multiple * (1 + spec.side_multiple % 2)
    if request.width is not None and request.height is not None:
        width, height = request.width, request.height
        wrong = [side for side in (width, height) if side % multiple]
        if wrong:
            near = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in (width, height))
            raise InvalidInput(
                f"size is {width}x{height}, and {spec.model} needs multiples of {multiple}; try {near}",
                param="size",
            )
        return width, height, ()
    media = request.inputs[0]
    scale = (spec.native_width * spec.native_height / (media.width * media.height)) ** 0.5
    if media.kind == "video":
        scale = min(scale, 1.0)
    width = max(multiple, round(media.width * scale / multiple) * multiple)
    height = max(multiple, round(media.height * scale / multiple) * multiple)
    if max(width, height) > MAX_SIDE:
        raise InvalidInput(
            f"the input's shape makes a size of {width}x{height}, and a side may have {MAX_SIDE} pixels; "
            "cut the input or give a size",
            param="size",
        )
    return (
        width,
        height,
        (f"size {width}x{height} chosen from the input's shape and the model's native area",),
    )


def _window(request: JobRequest, spec: EngineSpec, mode: Mode) -> tuple[int, int]:
    window = spec.window_frames if request.window_frames is None else request.window_frames
    if not spec.allows_num_frames(window):
        form = f" in the form {spec.frame_step}k+{spec.frame_remainder}" if spec.frame_step > 1 else ""
        raise CannotRun(
            f"window is {window} frames, and {spec.model} renders {spec.min_window_frames} to "
            f"{spec.max_window_frames}{form}; nearest is {_nearest_window(spec, window)}",
            param="window",
        )
    if mode == "chain" and window < 2:
        raise InvalidInput(
            "window is 1 frame, and mode chain needs 2 or more to hand one over", param="window"
        )
    overlap = spec.overlap_frames if request.overlap_frames is None else request.overlap_frames
    if request.overlap_frames is None:
        overlap = min(overlap, window // 2)
    if overlap > window // 2:
        raise InvalidInput(
            f"overlap is {overlap}, expected at most half the window of {window} frames", param="overlap"
        )
    return window, overlap


def _nearest_window(spec: EngineSpec, window: int) -> int:
    allowed = [
        n for n in range(spec.min_window_frames, spec.max_window_frames + 1) if spec.allows_num_frames(n)
    ]
    return min(allowed, key=lambda n: abs(n - window))


def _shots(request: JobRequest, mode: Mode, num_frames: int) -> tuple[Shot, ...]:
    """Share the frames over the inputs as evenly as can be; ``infill`` has a shot between two images."""
    inputs = request.inputs
    prompts = request.prompts if len(request.prompts) > 1 else request.prompts * len(inputs)
    if mode == "infill":
        keys = [round(i * (num_frames - 1) / (len(inputs) - 1)) for i in range(len(inputs))]
        return tuple(
            Shot(
                index=i,
                start=keys[i],
                end=keys[i + 1] + 1,
                mode=mode,
                prompt=prompts[i],
                media=inputs[i],
                last_media=inputs[i + 1],
            )
            for i in range(len(inputs) - 1)
        )
    bounds = [round(i * num_frames / len(inputs)) for i in range(len(inputs) + 1)]
    return tuple(
        Shot(index=i, start=bounds[i], end=bounds[i + 1], mode=mode, prompt=prompts[i], media=inputs[i])
        for i in range(len(inputs))
    )


def _independent(shot: Shot, spec: EngineSpec, window: int, overlap: int) -> list[Segment]:
    """Every window alone; an engine that can start anywhere renders just what is kept."""
    windows = cropped_windows(shot.end - shot.start, window, overlap)
    return [
        Segment(
            id=f"s{shot.index}-{i}",
            shot=shot.index,
            level="final",
            start=shot.start + w.start,
            end=shot.start + w.end,
            num_frames=spec.num_frames_at_least(w.end - w.start) if spec.random_access else w.num_frames,
            head=0 if i == 0 else windows[i - 1].end - w.start,
        )
        for i, w in enumerate(windows)
    ]


def _chain(shot: Shot, spec: EngineSpec, window: int, overlap: int) -> list[Segment]:
    """Each window starts from the frame where the one before hands over: the first of their overlap."""
    segments = _independent(shot, spec.model_copy(update={"random_access": False}), window, max(1, overlap))
    chained = []
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        chained.append(
            segment.model_copy(
                update={
                    "depends_on": (segments[i - 1].id,) if i else (),
                    "handover_index": None if last else segments[i + 1].start - segment.start,
                    "hop": i,
                    "anchor_strength": 0.0
                    if i == 0
                    else 1.0
                    if i % HOPS_BETWEEN_ANCHORS == 0
                    else ANCHOR_STRENGTH,
                }
            )
        )
    return chained


def _refine(shot: Shot, spec: EngineSpec, window: int, overlap: int) -> list[Segment]:
    """First the windows' first frames as short clips, then every window at once on its refined keyframe."""
    windows = shifted_windows(shot.end - shot.start, window, overlap)
    _check_length(shot, spec, windows[0].num_frames)
    finals = [
        Segment(
            id=f"s{shot.index}-{i}",
            shot=shot.index,
            level="final",
            start=shot.start + w.start,
            end=shot.start + w.end,
            num_frames=spec.num_frames_at_least(w.end - w.start) if spec.random_access else w.num_frames,
            head=0 if i == 0 else windows[i - 1].end - w.start,
        )
        for i, w in enumerate(windows)
    ]
    if spec.random_access or len(finals) == 1:
        return finals
    starts = [s.start for s in finals]
    groups = [starts[i : i + window] for i in range(0, len(starts), window)]
    keyframes = [
        Segment(
            id=f"k{shot.index}-{g}",
            shot=shot.index,
            level="keyframes",
            start=group[0],
            end=group[-1] + 1,
            num_frames=spec.num_frames_at_least(len(group)),
            # The last again, up to the shortest clip the model renders.
            keyframe_indices=(*group, *group[-1:] * (spec.num_frames_at_least(len(group)) - len(group))),
        )
        for g, group in enumerate(groups)
    ]
    refined = [
        segment.model_copy(
            update={
                "keyframe": (f"k{shot.index}-{i // window}", i % window),
                "depends_on": (f"k{shot.index}-{i // window}",),
            }
        )
        for i, segment in enumerate(finals)
    ]
    return [*keyframes, *refined]


def _check_length(shot: Shot, spec: EngineSpec, num_frames: int) -> None:
    """Refuse a video that is shorter than the window and that the model cannot render as it is."""
    if spec.allows_num_frames(num_frames):
        return
    shorter = [n for n in range(1, num_frames) if spec.allows_num_frames(n)]
    do = f"try --window {shorter[-1]}" if shorter else f"give one of at least {spec.num_frames_at_least(1)}"
    raise CannotRun(f"the video has {num_frames} frames, less than a window; {do}", param="window")


def _infill(shot: Shot, spec: EngineSpec, window: int, overlap: int) -> list[Segment]:
    """One window between two keyframes; neighbours share the key frame."""
    length = shot.end - shot.start
    num_frames = spec.num_frames_at_least(length)
    if num_frames > window or num_frames != length:
        raise CannotRun(
            f"mode infill has {length} frames between two images, and {spec.model} renders a window of "
            f"{window}; give more images or fewer frames",
            param="frames",
        )
    return [
        Segment(
            id=f"s{shot.index}-0",
            shot=shot.index,
            level="final",
            start=shot.start,
            end=shot.end,
            num_frames=length,
            head=0 if shot.index == 0 else 1,
        )
    ]


_SEGMENTS = {
    "independent": _independent,
    "chain": _chain,
    "refine": _refine,
    "infill": _infill,
    # The windows of one shared latent canvas are the same; only their denoising is in step.
    "co_denoise": _independent,
}
