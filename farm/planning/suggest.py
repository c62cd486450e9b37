"""A plan for the workers that are there, or the settings nearest to it that one of them can hold."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import log
from typing import NamedTuple

from farm.capabilities import (
    EngineSpec,
    RenderShape,
    RungSpec,
    SpecOf,
    Worker,
    fitting_rungs,
    gib,
    host_need_bytes,
    need_bytes,
    why_not,
)
from farm.errors import CannotRun, InvalidInput
from farm.planning.framing import near_size
from farm.planning.holding import encodes_clips, held_on
from farm.planning.mode_choice import Ends
from farm.planning.modes import draft_spec_of
from farm.planning.plan import Draft, Plan
from farm.planning.planner import plan
from farm.planning.window_choice import PresetChoice, at_level, nearest_overlap
from farm.request import PRESETS, JobRequest
from farm.values import Value

NUM_SUGGESTIONS = 3
#: Sizes tried, relative to the asked one.
_SCALES = tuple(i / 16 for i in range(16, 1, -1))


class Setting(Value):
    width: int
    height: int
    window_frames: int
    #: Only where the plan's does not go with this window.
    overlap_frames: int | None = None
    need_bytes: int

    def __str__(self) -> str:
        overlap = "" if self.overlap_frames is None else f" --overlap {self.overlap_frames}"
        return (
            f"--size {self.width}x{self.height} --window {self.window_frames}{overlap} "
            f"({gib(self.need_bytes)})"
        )


def plan_with(
    request: JobRequest, spec_of: SpecOf, workers: Iterable[Worker], ends: Ends | None = None
) -> Plan:
    """``plan_over`` by the specs of the models that are asked for.

    Raises:
        FarmError: as ``spec_of`` and ``plan_over`` say.
    """
    spec = spec_of(request.model, request.chosen_weights)
    return plan_over(request, spec, workers, draft=draft_spec_of(request, spec_of), ends=ends)


def plan_over(
    request: JobRequest,
    spec: EngineSpec,
    workers: Iterable[Worker],
    *,
    draft: EngineSpec | None = None,
    ends: Ends | None = None,
) -> Plan:
    """The plan of a job for these workers; without any, for one to come that can hold it.

    Args:
        request: What is to be made.
        spec: Of the model that makes it.
        workers: That are here.
        draft: Of ``request.draft_model``.
        ends: When the video of a plan would be done on them, by which ``auto`` chooses a mode; None: as if
            those that can hold a window were equal.

    Raises:
        InvalidInput, CannotRun: as ``plan`` says, or because no worker can hold a window.
    """
    workers = list(workers)
    tried = _try(request, spec, workers, draft)
    if tried.refused or not tried.is_in_memory:
        tried = _in_fewer_bits(request, tried, workers)
    if tried.refused:
        raise CannotRun(tried.refused, param="size")
    spec, made = tried.spec, tried.made
    num_able = len(_able(made, workers))
    if request.mode == "auto" and (made.mode == "chain" or made.review) and num_able > 1:
        # The other choices have no longer windows, but may encode clips, which takes more than an image.
        other = plan(request, spec, workers=num_able, ends=ends)
        made = made if refusal(other, spec, workers) else other
    return made.model_copy(update={"notes": (*made.notes, *tried.notes)})


class _Try(NamedTuple):
    """A plan over one way to keep the model's weights, for some workers."""

    #: With the window that was chosen.
    spec: EngineSpec
    draft: EngineSpec | None
    made: Plan
    notes: tuple[str, ...]
    #: Why no worker can hold it.
    refused: str | None
    #: Whether some worker can without reading weights from their files at every step; without workers, one to
    #: come is taken to.
    is_in_memory: bool


def _try(request: JobRequest, spec: EngineSpec, workers: Sequence[Worker], draft: EngineSpec | None) -> _Try:
    spec, notes = _in_windows_that_fit(request, spec, workers, draft)
    draft = _draft_that_fits(request, spec, workers, draft)
    made = plan(request, spec, draft=draft)
    in_files = {kind: {r.name for r in spec.on(kind).rungs if r.in_files} for kind in made.on}
    is_in_memory = not workers or any(
        set(fitting_rungs(made.on[w.kind].needs, w)) - in_files[w.kind] for w in workers
    )
    return _Try(spec, draft, made, notes, refusal(made, spec, workers), is_in_memory)


def _in_fewer_bits(request: JobRequest, tried: _Try, workers: Sequence[Worker]) -> _Try:
    """The same with weights in fewer bits, where only so they are in a worker's memory; else what was tried.

    One format for the whole job: segments of several would not agree. Where a format was asked for, it stays,
    and a refusal names the one that would fit.
    """
    free = request.model_copy(update={"weight_format": None})
    others = (_try(free, lighter, workers, tried.draft) for lighter in tried.spec.in_fewer_bits)
    fits = next((other for other in others if not other.refused and other.is_in_memory), None)
    if fits is None or (request.weight_format is not None and not tried.refused):
        return tried
    if request.weight_format is None:
        return fits
    return tried._replace(refused=f"{tried.refused}; --weight-format {fits.spec.weights.format} would fit")


def _in_windows_that_fit(
    request: JobRequest, spec: EngineSpec, workers: Sequence[Worker], draft: EngineSpec | None
) -> tuple[EngineSpec, tuple[str, ...]]:
    """The model with the longest window it was trained on that a worker can hold, no longer than its own, and
    what is said of that; as it is where another is asked for or nothing fits."""
    if request.window_frames is not None or not spec.trained_windows or not workers:
        return spec, ()
    for tried in _by_window(spec):
        window = tried.window_frames
        if _able(plan(request, tried, draft=draft), workers):
            note = f"window {window}: the longest {spec.model} was trained on that a worker here can hold"
            return tried, () if window == spec.window_frames else (note,)
    return spec, ()


def _by_window(spec: EngineSpec) -> list[EngineSpec]:
    """The model with its own window and with each shorter one that it was trained on, the longest first."""
    shorter = sorted((w for w in spec.trained_windows if w < spec.window_frames), reverse=True)
    return [spec.model_copy(update={"window_frames": window}) for window in (spec.window_frames, *shorter)]


def _draft_that_fits(
    request: JobRequest, spec: EngineSpec, workers: Sequence[Worker], draft: EngineSpec | None
) -> EngineSpec | None:
    """A draft model with the longest window it was trained on that a worker can hold, or as it is."""
    for tried in _by_window(draft) if draft and workers else ():
        made = plan(request, spec, draft=tried)
        if made.draft is None or _able(made.draft, workers):
            return tried
    return draft


def _able(made: Plan | Draft, workers: Iterable[Worker]) -> list[Worker]:
    return [w for w in workers if fitting_rungs(made.on[w.kind].needs, w)]


def refusal(made: Plan, spec: EngineSpec, workers: Iterable[Worker]) -> str | None:
    """Why no worker can hold a window of this plan, with what would fit, its draft or their prompts; None if
    some can."""
    workers = list(workers)
    if not workers:
        return None
    largest = max(workers, key=lambda w: w.vram_bytes)
    for each in (made, made.draft):
        if each and each.text_on and not any(fitting_rungs(each.text_on[w.kind].needs, w) for w in workers):
            return (
                f"no worker can hold what encodes the prompts of {each.model}: "
                f"{why_not(each.text_on[largest.kind].needs, largest)}; add a machine with more memory"
            )
    if made.draft and not _able(made.draft, workers):
        return (
            f"no worker can hold a draft by {made.draft.model}, {made.draft.width}x{made.draft.height} in "
            f"windows of {made.draft.window_frames} frames: "
            f"{why_not(made.draft.on[largest.kind].needs, largest)}; add a machine with more memory"
        )
    if _able(made, workers):
        return None
    near = nearest_settings(made, held_on(spec, largest.kind, *made.read), largest)
    hint = "; these fit: " + ", ".join(map(str, near)) if near else "; nothing smaller fits either"
    return (
        f"no worker can hold {made.width}x{made.height} in windows of {made.window_frames} frames: "
        f"{why_not(made.on[largest.kind].needs, largest)}{hint}"
    )


def preset_choices(spec: EngineSpec, workers: Iterable[Worker], asked: JobRequest) -> Iterator[PresetChoice]:
    """The presets that name size and window, each judged with nothing of them asked besides.

    Of a window a shot: more of them need no more memory.
    """
    workers = list(workers)
    left_open = {"width": None, "height": None, "window_frames": None, "num_inference_steps": None}
    for each in PRESETS:
        if each.level is None or asked.kind not in each.suits:
            continue
        short: dict[str, object] = {**left_open, "preset": each.name, "seconds": None, "mode": "auto"}
        level, _ = at_level(asked.model_copy(update=short), spec)
        assert level.width is not None
        assert level.height is not None
        assert level.window_frames is not None
        num_frames = level.window_frames * asked.num_shots
        if asked.source is not None and asked.source.kind == "video":
            num_frames = min(num_frames, asked.source.num_frames)
        changes: dict[str, object] = {"num_frames": num_frames, "deliver_fps": None, "draft_model": None}
        try:
            made = plan(level.model_copy(update=changes), spec)
            reason = refusal(made, spec, workers)
        except (CannotRun, InvalidInput) as error:
            reason = error.message
        yield PresetChoice(
            preset=each.name,
            width=level.width,
            height=level.height,
            window_frames=level.window_frames,
            runnable=reason is None,
            reason=reason,
        )


def nearest_settings(made: Plan, spec: EngineSpec, worker: Worker) -> list[Setting]:
    """Up to three settings that fit, the nearest in pixels and window length first."""
    sizes = {near_size(spec, made.width, made.height, scale) for scale in _SCALES}
    # A chain, and the draft of one, needs a frame to hand over besides the one it starts from.
    smallest = max(spec.frames.min_frames, 2 if made.mode in ("chain", "refine") else 1)
    windows = [n for n in range(smallest, made.window_frames + 1) if spec.frames.allows(n)]
    rungs = [rung for rung in spec.rungs if _host_keeps(spec, rung, worker)]
    if not rungs:
        return []
    beside = max(s.latents_beside for s in made.segments if not s.drafted)
    clips = encodes_clips(made.segments, made.shots, drafted=False)

    def needed(width: int, height: int, window: int) -> int:
        shape = RenderShape(
            num_frames=window,
            height=height,
            width=width,
            num_inference_steps=made.num_inference_steps,
            guided=made.guidance_scale > 1.0,
            encodes_clips=clips,
            latents_beside=beside,
        )
        return min(need_bytes(spec, rung, shape) for rung in rungs)

    fitting = []
    for width, height in sizes:
        # A longer window needs more, and the longest that fit are the nearest.
        longest = bisect_right(windows, worker.vram_bytes, key=partial(needed, width, height))
        for window in windows[:longest][-NUM_SUGGESTIONS:]:
            pixels = log(made.width * made.height / (width * height))
            frames = log(made.window_frames / window)
            need = needed(width, height, window)
            fitting.append((abs(pixels) + frames, -width, -window, width, height, need))
    return [
        Setting(
            width=width,
            height=height,
            window_frames=-window,
            overlap_frames=_other_overlap(made, spec, -window),
            need_bytes=need,
        )
        for _, _, window, width, height, need in sorted(fitting)[:NUM_SUGGESTIONS]
    ]


def _other_overlap(made: Plan, spec: EngineSpec, window: int) -> int | None:
    """The overlap to ask for with a shorter window, where the plan's does not go with it."""
    nearest = nearest_overlap(spec.frames, made.overlap_frames, window)
    return None if nearest == made.overlap_frames else nearest


def _host_keeps(spec: EngineSpec, rung: RungSpec, worker: Worker) -> bool:
    """Whether the worker's machine has the memory for the weights that wait beside its card at this rung."""
    beside = host_need_bytes(spec, rung) if worker.kind == "cuda" else 0
    return worker.host_bytes is None or beside <= worker.host_bytes
