"""From a request and a model's spec to a plan. Pure: reads no file, asks no machine.

Each mode is one function from a shot to its segments (``farm/planning/modes``). A mode that the model cannot
run is refused by name with the reason; nothing is changed silently, and what was rounded or chosen is said in
``Plan.notes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from farm.capabilities import (
    DeviceKind,
    EngineSpec,
    Mode,
    RenderShape,
    host_need_bytes,
    need_bytes,
)
from farm.errors import CannotRun, InvalidInput
from farm.planning.framing import framing, framing_notes, near_size, side_multiple, size_for
from farm.planning.holding import encodes_clips, given_beside, held_on
from farm.planning.keyframes import reviewed
from farm.planning.lengths import (
    check_mask,
    deliver_fps_of,
    delivery_notes,
    fps_of,
    input_notes,
    is_between_images,
    num_frames_of,
    shots_of,
)
from farm.planning.mode_choice import (
    Ends,
    check_beside,
    compared,
    is_drafted,
    mode_notes,
    mode_of,
    mode_refusal,
    refines_untrained,
    soonest,
    to_review,
    untrained,
)
from farm.planning.modes import (
    DRAFT_STRENGTH,
    SEGMENTS_OF,
    Cut,
    DraftChoice,
    Frames,
    draft_choice,
    draft_notes,
)
from farm.planning.plan import Delivery, Draft, Footprint, Plan, Segment, Shot
from farm.planning.prompt_notes import prompt_notes
from farm.planning.sound import sound_of
from farm.planning.weight_choice import check_spec, weight_notes
from farm.planning.window_choice import at_level, one_a_shot, window_choice
from farm.request import MAX_SIDE, JobRequest, check

#: A model's files come from a local disk about this fast.
LOAD_BYTES_PER_S = 1e9
#: Before that, importing the libraries that run weights.
LIBRARIES_S = 4.0
#: Of a plan: each is some KB here, in the journal and on every page that shows it.
MAX_SEGMENTS = 50_000


def plan(
    request: JobRequest,
    spec: EngineSpec,
    *,
    draft: EngineSpec | None = None,
    workers: int = 1,
    ends: Ends | None = None,
) -> Plan:
    """Decide everything about a job once.

    Args:
        request: What is to be made.
        spec: Of the model that makes it.
        draft: Of ``request.draft_model``.
        workers: How many can hold a window of this job: what ``auto`` chooses by between a chain, which keeps
            one of them busy, and a mode that costs more work and keeps all of them busy.
        ends: When the video of a plan would be done on them; None: they are equal, and nothing is loaded.

    Raises:
        InvalidInput: a number or combination no model could serve.
        CannotRun: the model does not take this input, size, window or mode.
    """
    check(request)
    check_spec(request, spec)
    check_beside(request, spec)
    mode = mode_of(request, spec)
    made = _in_mode(request, spec, mode, draft)
    kind = request.kind
    if request.mode != "auto" or mode != "chain" or (workers < 2 and not request.review):
        made = _beside_chain(made, request, spec)
        return reviewed(made) if request.review else made
    modes: list[Mode] = ["infill", "refine"]  # the one that softens nothing first
    able = [m for m in modes if not mode_refusal(m, kind, spec) and not untrained(m, spec)]
    plans = [_in_mode(request, spec, m) for m in able]
    others = [p for p in plans if not refines_untrained(p, spec)]
    choose = to_review if request.review else soonest
    return choose(made, others, workers, ends)


def _beside_chain(made: Plan, request: JobRequest, spec: EngineSpec) -> Plan:
    """A plan that drafts, with its numbers beside those of a chain, where the model can make one of it."""
    kind = request.kind
    if kind == "video" or not is_drafted(made) or mode_refusal("chain", kind, spec):
        return made
    same: dict[str, object] = {
        "mode": "chain",
        "draft_model": None,
        "num_frames": made.num_frames,
        "seconds": None,
        "deliver_fps": None,
    }
    if request.inputs:
        same["prompts"] = request.prompts[:1]  # of those between pictures there is one less
    try:
        return compared(made, _in_mode(request.model_copy(update=same), spec, "chain"))
    except (CannotRun, InvalidInput):
        return made  # an overlap that a chain cannot have


def _in_mode(request: JobRequest, spec: EngineSpec, mode: Mode, draft: EngineSpec | None = None) -> Plan:
    request, level_notes = at_level(request, spec)
    fps, fps_notes = fps_of(request, spec)
    width, height, size_notes = _size(request, spec)
    windows = window_choice(request, spec, mode)
    between = is_between_images(request, mode)
    deliver_fps = deliver_fps_of(request, fps)
    num_frames, num_delivered = num_frames_of(request, fps, deliver_fps, windows.window, between=between)
    delivery = Delivery(num_frames=num_delivered, fps=deliver_fps) if deliver_fps != fps else None
    shots = shots_of(request, spec.frames, mode, num_frames, between=between)
    if request.kind == "text" and "image" not in spec.takes:
        windows = one_a_shot(request, spec, windows, max(shot.end - shot.start for shot in shots))
    window, overlap, window_notes = windows
    _check_segments(num_frames, window, overlap)
    check_mask(request, num_frames, fps)
    own_steps = min(spec.preview_steps, spec.default_steps) if request.preview else spec.default_steps
    steps = request.num_inference_steps or own_steps
    guidance = spec.default_guidance_scale if request.guidance_scale is None else request.guidance_scale
    sound, sound_notes = sound_of(request, num_delivered, deliver_fps)
    framed = [framing(m.width, m.height, width, height, request.fit) for m in request.inputs]
    choice = None
    if mode == "infill":
        video = Frames(width, height, fps, window, overlap, steps, guidance)
        choice = draft_choice(request, spec, draft, video, between=between)
    cut = Cut(
        spec=spec,
        window=window,
        overlap=overlap,
        fps=fps,
        num_inference_steps=steps,
        drafting=None if choice is None else choice.drafting,
    )
    segments = _with_tails([segment for shot in shots for segment in SEGMENTS_OF[mode](shot, cut)])
    if choice is not None and choice.is_apart:
        segments = tuple(s.model_copy(update={"drafted": s.level == "draft"}) for s in segments)
    drafter = spec if choice is None else choice.drafting.spec
    segments = tuple(given_beside(segments, shots, spec, drafter, len(request.references)))
    drafted = _draft_of(choice, segments, shots, request) if choice else None
    segments = _with_texts(segments, spec, draft or spec)
    shape = RenderShape(
        num_frames=max(s.num_frames for s in segments if not s.drafted),
        height=height,
        width=width,
        num_inference_steps=steps,
        guided=guidance > 1.0,
        encodes_clips=encodes_clips(segments, shots, drafted=False),
        latents_beside=max(s.latents_beside for s in segments if not s.drafted),
    )
    read = [media for media in (request.source, request.mask) if media is not None]
    is_refined = mode == "refine" or (mode == "infill" and any(s.sources for s in segments))
    made = Plan(
        model=spec.model,
        weights=spec.weights,
        mode=mode,
        num_frames=num_frames,
        fps=fps,
        width=width,
        height=height,
        fit=request.fit,
        delivery=delivery,
        sound=sound,
        window_frames=window,
        overlap_frames=overlap,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=request.negative_prompt,
        strength=_strength(request, spec) if is_refined else None,
        seed=request.seed,
        shots=shots,
        segments=segments,
        draft=drafted,
        on={kind: footprint(held_on(spec, kind, *read), shape, kind) for kind in ("cuda", "cpu")},
        text_on=_text_on(spec, shape),
        mask=request.mask,
        references=request.references,
        notes=(
            *input_notes(request, fps),
            *prompt_notes(request.prompts, spec, negative_prompt=request.negative_prompt),
            *weight_notes(request, spec),
            *mode_notes(request, spec, mode, shots),
            *level_notes,
            *fps_notes,
            *delivery_notes(request, num_frames, fps, delivery),
            *size_notes,
            *_trained_size_notes(spec, width, height),
            *window_notes,
            *framing_notes(framed, request.fit),
            *sound_notes,
        ),
    )
    said = draft_notes(request, spec, made, choice)
    return made.model_copy(update={"notes": (*said, *made.notes)})


def _draft_of(
    choice: DraftChoice, segments: Sequence[Segment], shots: Sequence[Shot], request: JobRequest
) -> Draft | None:
    """How these segments' draft is rendered, where that is not as the video is."""
    num_frames = max((s.num_frames for s in segments if s.drafted), default=0)
    if num_frames == 0:
        return None
    spec, steps = choice.drafting.spec, choice.drafting.num_inference_steps
    shape = RenderShape(
        num_frames=num_frames,
        height=choice.height,
        width=choice.width,
        num_inference_steps=steps,
        guided=choice.guidance_scale > 1.0,
        encodes_clips=encodes_clips(segments, shots, drafted=True),
        latents_beside=max(s.latents_beside for s in segments if s.drafted),
    )
    return Draft(
        model=spec.model,
        weights=spec.weights,
        width=choice.width,
        height=choice.height,
        window_frames=choice.drafting.window,
        num_inference_steps=steps,
        guidance_scale=choice.guidance_scale,
        on={
            kind: footprint(held_on(spec, kind, *request.inputs[:1]), shape, kind) for kind in ("cuda", "cpu")
        },
        text_on=_text_on(spec, shape),
    )


def _text_on(spec: EngineSpec, shape: RenderShape) -> dict[DeviceKind, Footprint]:
    """What encoding prompts takes, where that is a task of its own."""
    kinds: tuple[DeviceKind, ...] = ("cuda", "cpu")
    return {
        kind: footprint(spec.on(kind), shape, kind, text=True)
        for kind in kinds
        if spec.on(kind).text_components
    }


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
    if request.mask is not None:
        return 1.0  # what the mask keeps, stays
    return spec.default_strength if request.kind == "video" else DRAFT_STRENGTH


def _with_tails(segments: list[Segment]) -> tuple[Segment, ...]:
    """What a segment shares with the one after is that one's head."""
    finals = [s for s in segments if s.level == "final"]
    tails = {before.id: after.head for before, after in pairwise(finals) if after.head}
    return tuple(s.model_copy(update={"tail": tails[s.id]}) if s.id in tails else s for s in segments)


def _with_texts(segments: Sequence[Segment], spec: EngineSpec, drafter: EngineSpec) -> tuple[Segment, ...]:
    """Before them the tasks that encode their prompts: one for a model, a shot and a rate, which a prompt may
    tell; none for a model whose workers encode for themselves."""
    texts: dict[str, Segment] = {}
    waiting = []
    for segment in segments:
        by_other = segment.drafted and drafter.model != spec.model
        if not (drafter if by_other else spec).text_components:
            waiting.append(segment)
            continue
        text_id = f"t{'d' if by_other else ''}{segment.shot}-{segment.frame_stride}"
        if text_id not in texts:
            texts[text_id] = Segment(
                id=text_id,
                shot=segment.shot,
                level="text",
                start=segment.start,
                end=segment.start,
                num_frames=0,
                frame_stride=segment.frame_stride,
                drafted=by_other,
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
        attention_per_latent=spec.attention_per_token
        * shape.width
        * shape.height
        / (spec.pixels_per_token or 1),
        frames_per_latent=spec.frames.frames_per_latent,
        disk_bytes=spec.disk_bytes,
    )


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
    width, height = size_for(spec, request.source)
    if max(width, height) > MAX_SIDE:
        raise InvalidInput(
            f"the input's shape makes a size of {width}x{height}, and a side may have {MAX_SIDE} pixels; "
            "cut the input or give a size",
            param="size",
        )
    shape = "the model's own" if request.source is None else "the input's shape and the model's native area"
    return width, height, (f"size {width}x{height} chosen from {shape}",)


def _trained_size_notes(spec: EngineSpec, width: int, height: int) -> tuple[str, ...]:
    shortest, longest = spec.trained_sides or (1, MAX_SIDE)
    if shortest <= min(width, height) and max(width, height) <= longest:
        return ()
    return (
        f"{spec.model} was trained on sides of {shortest} to {longest} pixels, and not on {width}x{height}",
    )
