"""From a request and a model's spec to a plan. Pure: reads no file, asks no machine.

Each mode is one function from a shot to its segments (``farm/planning/modes``). A mode that the model cannot
run is refused by name with the reason; nothing is changed silently, and what was rounded or chosen is said in
``Plan.notes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from farm.capabilities import (
    DeviceKind,
    EngineSpec,
    FrameRule,
    Mode,
    RenderShape,
    host_need_bytes,
    need_bytes,
)
from farm.errors import InvalidInput
from farm.planning.framing import framing, framing_notes, near_size, side_multiple, size_for
from farm.planning.holding import held_on
from farm.planning.keyframes import keyframes, reviewed
from farm.planning.mode_choice import mode_notes, mode_of, mode_refusal, untrained
from farm.planning.modes import DRAFT_STRENGTH, SEGMENTS_OF, Cut
from farm.planning.plan import Footprint, Plan, Segment, Shot
from farm.planning.predict import makespan
from farm.planning.prompt_notes import prompt_notes
from farm.planning.sound import sound_of
from farm.planning.weight_choice import check_spec, weight_notes
from farm.planning.window_choice import window_choice
from farm.request import MAX_FPS, MAX_FRAMES, MAX_SIDE, MIN_FPS, JobRequest, MediaInfo, check

DEFAULT_SECONDS = 4
#: A model's files come from a local disk about this fast.
LOAD_BYTES_PER_S = 1e9
#: Before that, importing the libraries that run weights.
LIBRARIES_S = 4.0
#: NTSC rates are so many thousandths and one; with a larger denominator video files lose count.
MAX_FPS_DENOMINATOR = 1001
#: Of a plan: each is some KB here, in the journal and on every page that shows it.
MAX_SEGMENTS = 50_000


def plan(request: JobRequest, spec: EngineSpec, *, workers: int = 1) -> Plan:
    """Decide everything about a job once.

    Args:
        request: What is to be made.
        spec: Of the model that makes it.
        workers: How many can hold a window of this job: what ``auto`` chooses by between a chain, which keeps
            one of them busy, and a mode that costs more work and keeps all of them busy.

    Raises:
        InvalidInput: a number or combination no model could serve.
        CannotRun: the model does not take this input, size, window or mode.
    """
    check(request)
    check_spec(request, spec)
    mode = mode_of(request, spec)
    made = _in_mode(request, spec, mode)
    kind, shots = request.inputs[0].kind, len(request.inputs)
    if request.mode != "auto" or mode != "chain" or (workers < 2 and not request.review):
        return reviewed(made) if request.review else made
    # Images of a storyboard are cuts.
    modes: list[Mode] = ["refine", "infill"] if shots == 1 else ["refine"]
    able = [m for m in modes if not mode_refusal(m, kind, shots, spec) and not untrained(m, kind, spec)]
    others = [_in_mode(request, spec, m) for m in able]
    return _to_review(made, others, workers) if request.review else _soonest(made, others, workers)


def _to_review(chained: Plan, others: Sequence[Plan], workers: int) -> Plan:
    """Of the plans with keyframes the one that is done first."""
    in_parts = [p for p in others if keyframes(p)]
    if not in_parts:
        return reviewed(chained)  # says that there are none
    best = min(in_parts, key=lambda p: makespan(p, workers))
    note = f"{best.mode} chosen: it has keyframes to look at"
    return reviewed(best.model_copy(update={"notes": (*best.notes, note)}))


def _soonest(chained: Plan, others: Sequence[Plan], workers: int) -> Plan:
    """The plan that is done first, with a note of why; the chain where no shot has more than a window."""
    in_parts = [p for p in others if any(s.level != "final" for s in p.segments)]
    if not in_parts:
        return chained
    shares = {p.mode: makespan(p, workers) / makespan(chained, workers) for p in in_parts}
    best = min(in_parts, key=lambda p: shares[p.mode])
    share = shares[best.mode]
    if share < 1:
        note = f"{best.mode} chosen: {workers} workers, about {share:.2f} of chain's time"
        return best.model_copy(update={"notes": (*best.notes, note)})
    note = f"chain chosen: {workers} workers would take about {share:.2f} of its time for {best.mode}"
    return chained.model_copy(update={"notes": (*chained.notes, note)})


def _in_mode(request: JobRequest, spec: EngineSpec, mode: Mode) -> Plan:
    fps, fps_notes = _fps(request, spec)
    width, height, size_notes = _size(request, spec)
    window, overlap, window_notes = window_choice(request, spec, mode)
    num_frames = _num_frames(request, fps, mode, window)
    _check_segments(num_frames, window, overlap)
    own_steps = min(spec.preview_steps, spec.default_steps) if request.preview else spec.default_steps
    steps = request.num_inference_steps or own_steps
    guidance = spec.default_guidance_scale if request.guidance_scale is None else request.guidance_scale
    shots = _shots(request, spec.frames, mode, num_frames)
    sound, sound_notes = sound_of(request, num_frames, fps)
    framed = [framing(m.width, m.height, width, height, request.fit) for m in request.inputs]
    cut = Cut(spec=spec, window=window, overlap=overlap, fps=fps, num_inference_steps=steps)
    segments = _with_tails([segment for shot in shots for segment in SEGMENTS_OF[mode](shot, cut)])
    if spec.text_components:
        segments = _with_texts(segments)
    shape = RenderShape(
        num_frames=max(s.num_frames for s in segments),
        height=height,
        width=width,
        num_inference_steps=steps,
        guided=guidance > 1.0,
    )
    return Plan(
        model=spec.model,
        weights=spec.weights,
        mode=mode,
        num_frames=num_frames,
        fps=fps,
        width=width,
        height=height,
        fit=request.fit,
        sound=sound,
        window_frames=window,
        overlap_frames=overlap,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=request.negative_prompt,
        strength=_strength(request, spec) if mode == "refine" else None,
        seed=request.seed,
        shots=shots,
        segments=segments,
        on={kind: footprint(held_on(spec, kind, request.inputs[0]), shape, kind) for kind in ("cuda", "cpu")},
        text_on={
            kind: footprint(spec.on(kind), shape, kind, text=True)
            for kind in ("cuda", "cpu")
            if spec.on(kind).text_components
        },
        notes=(
            *_input_notes(request, fps),
            *prompt_notes(request.prompts, spec),
            *weight_notes(request, spec),
            *mode_notes(request, spec, mode, shots, segments),
            *fps_notes,
            *size_notes,
            *_trained_size_notes(spec, width, height),
            *window_notes,
            *framing_notes(framed, request.fit),
            *sound_notes,
        ),
    )


def _check_segments(num_frames: int, window: int, overlap: int) -> None:
    """Refuse a plan of too many segments before they are made."""
    num_segments = -(-num_frames // (window - overlap))
    if num_segments > MAX_SEGMENTS:
        raise InvalidInput(
            f"that would be about {num_segments} segments, and {MAX_SEGMENTS} are the most; "
            "use less overlap, a longer window or fewer frames",
            param="overlap_frames",
        )


def _strength(request: JobRequest, spec: EngineSpec) -> float | None:
    """How far a video, or the draft of an image, is changed; None where the engine does not denoise."""
    if request.strength is not None or spec.default_strength is None:
        return request.strength
    return spec.default_strength if request.inputs[0].kind == "video" else DRAFT_STRENGTH


def _with_tails(segments: list[Segment]) -> tuple[Segment, ...]:
    """What a segment shares with the one after is that one's head."""
    finals = [s for s in segments if s.level == "final"]
    tails = {before.id: after.head for before, after in pairwise(finals) if after.head}
    return tuple(s.model_copy(update={"tail": tails[s.id]}) if s.id in tails else s for s in segments)


def _with_texts(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Before them the tasks that encode their prompts: one for a shot and a rate, which a prompt may tell."""
    texts: dict[str, Segment] = {}
    waiting = []
    for segment in segments:
        text_id = f"t{segment.shot}-{segment.frame_stride}"
        if text_id not in texts:
            texts[text_id] = Segment(
                id=text_id,
                shot=segment.shot,
                level="text",
                start=segment.start,
                end=segment.start,
                num_frames=0,
                frame_stride=segment.frame_stride,
            )
        depends_on = (text_id, *segment.depends_on)
        waiting.append(segment.model_copy(update={"text_from": text_id, "depends_on": depends_on}))
    return (*texts.values(), *waiting)


def footprint(spec: EngineSpec, shape: RenderShape, kind: DeviceKind, *, text: bool = False) -> Footprint:
    """Memory and time of one window on such a worker, or of encoding its prompts, per rung.

    ``spec`` is the model as that kind holds it.
    """
    apart = set(spec.text_components)
    loaded = sum(n for name, n in spec.component_bytes.items() if not apart or (name in apart) == text)
    return Footprint(
        need_bytes={rung.name: need_bytes(spec, rung, shape, text=text) for rung in spec.rungs},
        host_bytes={
            rung.name: host_need_bytes(spec, rung, text=text) for rung in spec.rungs if kind == "cuda"
        },
        slowdown={rung.name: rung.slowdown for rung in spec.rungs},
        prior_seconds_per_mpixel_step=spec.prior_seconds_per_mpixel_step,
        prior_load_s=LIBRARIES_S + loaded / LOAD_BYTES_PER_S if spec.component_bytes else 0.0,
        decode_steps=spec.decode_steps,
        encode_steps=spec.encode_steps,
    )


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
    available = source_frames(source, fps)
    if request.num_frames is not None:
        num_frames = request.num_frames
    elif request.seconds is not None:
        num_frames = max(1, round(request.seconds * fps))
    elif source.kind == "video":
        num_frames = available
    elif mode == "infill" and len(request.inputs) > 1:
        num_frames = (len(request.inputs) - 1) * (window - 1) + 1
    else:
        num_frames = round(DEFAULT_SECONDS * fps) * len(request.inputs)
    if source.kind == "video" and num_frames > available:
        at = "" if fps == source.fps else f" at {float(fps):g} frames a second"
        raise InvalidInput(
            f"{num_frames} frames are asked for, and the input video has {available}{at}; ask for fewer",
            param="frames",
        )
    if num_frames > MAX_FRAMES:
        raise InvalidInput(
            f"{num_frames} frames are asked for, at most {MAX_FRAMES} are made; give fewer frames or seconds",
            param="frames",
        )
    if num_frames < len(request.inputs):
        raise InvalidInput(
            f"{num_frames} frames cannot hold {len(request.inputs)} shots; ask for at least one a shot",
            param="frames",
        )
    return num_frames


def source_frames(media: MediaInfo, fps: Fraction) -> int:
    """Frames an input video has at a rate: its length stays what it is. 0 for an image."""
    if media.kind != "video" or media.fps is None:
        return 0
    if media.reading is None:  # taken in by a farm that counted frames
        return media.num_frames
    return max(1, round(media.num_frames * fps / media.fps))


def _input_notes(request: JobRequest, fps: Fraction) -> tuple[str, ...]:
    """What is changed of the inputs before anything is rendered over them."""
    notes = [note for media in request.files for note in media.notes]
    source = request.inputs[0]
    if source.kind == "video" and source.fps and source_frames(source, fps) != source.num_frames:
        what = "frames are left out" if fps < source.fps else "frames are repeated"
        notes.append(
            f"the input has {float(source.fps):.6g} frames a second and the video {float(fps):.6g}: {what}, "
            "its length stays"
        )
    return tuple(notes)


def _size(request: JobRequest, spec: EngineSpec) -> tuple[int, int, tuple[str, ...]]:
    """The frame size: as asked, or the model's native area in the shape of the first input."""
    multiple = side_multiple(spec)
    if request.width is not None and request.height is not None:
        width, height = request.width, request.height
        wrong = [side for side in (width, height) if side % multiple]
        if wrong:
            near = "x".join(map(str, near_size(spec, width, height, 1.0)))
            raise InvalidInput(
                f"size is {width}x{height}, and {spec.model} needs multiples of {multiple}; try {near}",
                param="size",
            )
        return width, height, ()
    media = request.inputs[0]
    width, height = size_for(spec, media)
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


def _trained_size_notes(spec: EngineSpec, width: int, height: int) -> tuple[str, ...]:
    shortest, longest = spec.trained_sides or (1, MAX_SIDE)
    if shortest <= min(width, height) and max(width, height) <= longest:
        return ()
    return (
        f"{spec.model} was trained on sides of {shortest} to {longest} pixels, and not on {width}x{height}",
    )


def _shots(request: JobRequest, rule: FrameRule, mode: Mode, num_frames: int) -> tuple[Shot, ...]:
    """Share the frames over the inputs as evenly as can be; ``infill`` has a shot between two images."""
    inputs = request.inputs
    prompts = request.prompts if len(request.prompts) > 1 else request.prompts * len(inputs)
    if mode == "infill" and len(inputs) > 1:
        keys = _image_frames(len(inputs), num_frames, rule.frames_per_latent)
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


def _image_frames(num_images: int, num_frames: int, frames_per_latent: int) -> list[int]:
    """Where images stand that frames are rendered between: evenly, from the first frame to the last.

    Those within stand where a latent ends.

    Raises:
        InvalidInput: there is less than a latent between them.
    """
    last = num_frames - 1
    if last < frames_per_latent * (num_images - 1):
        raise InvalidInput(
            f"{num_frames} frames are too few between {num_images} images; ask for at least "
            f"{frames_per_latent * (num_images - 1) + 1}",
            param="frames",
        )
    gaps = num_images - 1
    within = [frames_per_latent * round(i * last / gaps / frames_per_latent) for i in range(gaps)]
    return [*within, last]
