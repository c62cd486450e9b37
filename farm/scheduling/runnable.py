"""What the workers that are here can run of a model: each size and window, and what the next larger lacks.

Pure. Whether a setting fits is asked as for a job, and its time is a quote's: of a video of ``VIDEO_S`` that
the farm has to itself, with the model loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farm.capabilities import EngineSpec, Lack, Mode, Rung, Worker, lack
from farm.errors import CannotRun, InvalidInput
from farm.planning import Plan, Segment, nothing_asked, plan_over, sizes_of
from farm.scheduling.expected import ends_on
from farm.scheduling.forecast import quote
from farm.state import Profiles, State, WorkerState
from farm.values import Value

#: Length of the videos whose times are told.
VIDEO_S = 10
#: Sizes between these parts of the model's own area; beyond them it was trained for nothing of the kind.
_LEAST_AREA, _MOST_AREA = 0.2, 4.2


class Holder(Value):
    """The worker that renders a window soonest, and what it holds."""

    worker_id: str
    rung: Rung
    need_bytes: int
    #: Of its machine's memory, beside a card.
    host_bytes: int


class RunnableSetting(Value):
    """A size and window. Where ``lack`` is not None, no worker here can run it."""

    width: int
    height: int
    window_frames: int
    #: What ``auto`` makes of one photo here, where somebody can.
    mode: Mode | None = None
    holder: Holder | None = None
    #: Workers that can hold a window.
    num_workers: int = 0
    #: Seconds that the farm takes for a second of video; None where nobody can, or nobody can encode prompts
    #: and render alike.
    seconds_per_second: float | None = None
    #: Whether every speed this is worked out from was measured here.
    measured: bool = False
    #: Of the worker that lacks least.
    lack: Lack | None = None
    #: In words; also where there is no worker, or the model refuses the setting.
    why_not: str | None = None

    @property
    def runs(self) -> bool:
        return self.why_not is None


class Runnable(Value):
    """Of one model. Settings by their window, then by their size, smallest first."""

    model: str
    engine: str
    settings: tuple[RunnableSetting, ...]
    #: The largest size in the longest window that runs, and the size after it or, where it is the largest
    #: tried, the next window; None where nothing runs, or nothing larger was tried.
    largest: RunnableSetting | None
    next_larger: RunnableSetting | None


def runnable(spec: EngineSpec, workers: Iterable[Worker], profiles: Profiles | None = None) -> Runnable:
    """Sizes in the model's own shape, in the windows it was trained on; in parts of them where none runs.

    Args:
        spec: Of the model.
        workers: That are here and not draining.
        profiles: What was learned of them; None: nothing.
    """
    here = list(workers)
    # With the model loaded, and no other jobs.
    state = State(
        workers={w.id: WorkerState(w, warm_model=spec.model) for w in here}, profiles=profiles or Profiles()
    )
    media = nothing_asked(spec).source
    own = spec.native_width * spec.native_height
    sizes = [
        (width, height)
        for width, height in sorted(
            sizes_of(spec, media, (spec.native_width, spec.native_height)), key=lambda s: (s[0] * s[1], s)
        )
        if _LEAST_AREA * own <= width * height <= _MOST_AREA * own
    ]
    windows = sorted(spec.trained_windows) or [spec.window_frames]
    by_window = [[_judged(spec, state, here, *size, window) for size in sizes] for window in windows]
    if here and not any(setting.runs for row in by_window for setting in row):
        parts = {spec.frames.nearest(windows[0] // n) for n in (2, 4)} - {1, *windows}
        by_window[:0] = [[_judged(spec, state, here, *size, n) for size in sizes] for n in sorted(parts)]
    largest, next_larger = _largest(by_window)
    return Runnable(
        model=spec.model,
        engine=spec.engine,
        settings=tuple(setting for row in by_window for setting in row),
        largest=largest,
        next_larger=next_larger,
    )


def _largest(
    by_window: Sequence[Sequence[RunnableSetting]],
) -> tuple[RunnableSetting | None, RunnableSetting | None]:
    """The largest setting that runs, and the one after it."""
    found: tuple[RunnableSetting | None, RunnableSetting | None] = (None, by_window[0][0])
    for i, row in enumerate(by_window):
        fitting = [j for j, setting in enumerate(row) if setting.runs]
        if fitting:
            j = fitting[-1]
            longer = by_window[i + 1][0] if i + 1 < len(by_window) else None
            found = row[j], row[j + 1] if j + 1 < len(row) else longer
    return found


def _judged(
    spec: EngineSpec, state: State, workers: Sequence[Worker], width: int, height: int, window: int
) -> RunnableSetting:
    setting = RunnableSetting(width=width, height=height, window_frames=window)
    request = nothing_asked(spec, VIDEO_S * spec.native_fps).model_copy(
        update={"width": width, "height": height, "window_frames": window, "seconds": VIDEO_S}
    )
    try:
        made = plan_over(request, spec, ())
    except (CannotRun, InvalidInput) as error:
        return setting.model_copy(update={"why_not": error.message})
    if not workers:
        return setting.model_copy(update={"why_not": "no worker is here"})
    short = _lack(state.profiles, made, workers)
    if short is not None:
        why, lacking = short
        return setting.model_copy(update={"lack": lacking, "why_not": why})
    made = plan_over(request, spec, workers, ends=ends_on(state.workers.values(), state.profiles))
    quoted = quote(state, made, 0.0)
    able = [share for share in quoted.workers if share.rung is not None]
    longest = _longest(made)
    by_id = {worker.id: worker for worker in workers}
    _, first = min(
        (state.profiles.render_s(made, longest, by_id[share.worker_id], share.rung), share.worker_id)
        for share in able
        if share.rung is not None
    )
    share = next(share for share in able if share.worker_id == first)
    assert share.rung is not None
    needs = state.profiles.needs(made, longest, by_id[first].kind)[share.rung]
    per_second = None if quoted.predicted_s is None else quoted.predicted_s / quoted.duration_s
    return setting.model_copy(
        update={
            "mode": made.mode,
            "holder": Holder(
                worker_id=first, rung=share.rung, need_bytes=needs.vram_bytes, host_bytes=needs.host_bytes
            ),
            "num_workers": len(able),
            "seconds_per_second": per_second,
            "measured": quoted.measured,
        }
    )


def _longest(made: Plan) -> Segment:
    return max(made.segments, key=lambda s: s.num_frames)


def _lack(profiles: Profiles, made: Plan, workers: Sequence[Worker]) -> tuple[str, Lack] | None:
    """What the worker that comes nearest lacks for a window, or else for encoding prompts."""
    tasks = [("", _longest(made)), *(("prompts: ", s) for s in made.segments if s.level == "text")]
    for what, segment in tasks[:2]:
        found = [lack(profiles.needs(made, segment, worker.kind), worker) for worker in workers]
        short = [each for each in found if each is not None]
        if len(short) == len(workers):
            nearest = min(short, key=lambda each: each.lacking_bytes)
            return f"{what}{nearest}", nearest
    return None
