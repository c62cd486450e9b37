"""A plan in a terminal: five plain lines, or every segment, and all that was chosen or changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

from rich.console import Console

from farm.capabilities import Rung, gib
from farm.planning import Plan
from farm.reporting import console
from farm.scheduling import Quote

#: Workers that are told by name.
_MAX_NAMED = 4


def print_plan(plan: Plan, quote: Quote, *, on_a_farm: bool, shown_on: Console = console.out) -> None:
    """A plan in five lines, and every note of it.

    Args:
        plan: Of a video.
        quote: Of the plan, on the workers that would make it.
        on_a_farm: It is for a farm that is up, and not for this machine alone.
        shown_on: Where it is told.
    """
    for what, told in _lines(plan, quote, on_a_farm).items():
        console.say(f"{what:7}{told}", shown_on)
    for note in dict.fromkeys((*plan.notes, *quote.notes)):
        shown_on.print(note, style="dim", markup=False, soft_wrap=True)


def _lines(plan: Plan, quote: Quote, on_a_farm: bool) -> dict[str, str]:
    command = "submit" if on_a_farm else "render"
    return {
        "video": f"{_count(plan.delivered.num_frames, 'frame')} ({quote.duration_s:.1f} s) "
        f"{plan.width}x{plan.height} at {_rate(plan.delivered.fps)} fps",
        "how": _how(plan),
        "where": _where(quote),
        "time": _time(quote),
        "next": f"`farm {command}` with the same options makes it; --segments tells every segment here",
    }


def _how(plan: Plan) -> str:
    with_files = f" with {plan.weights}" if str(plan.weights) else ""
    at_once = widest(plan)
    side_by_side = f"up to {at_once} at once" if at_once > 1 else "one after the other"
    draft = ""
    if plan.draft is not None:
        draft = f", drafted by {plan.draft.model} in {plan.draft.width}x{plan.draft.height}"
    return (
        f"{plan.model}{with_files}, {_count(plan.num_inference_steps, 'step')}, seed {plan.seed}; "
        f"mode {plan.mode}: {_count(len(plan.segments), 'segment')}, {side_by_side}{draft}"
    )


def widest(plan: Plan) -> int:
    """How many segments can be rendered at once where each waits for no more than it must."""
    depth: dict[str, int] = {}
    for segment in plan.segments:
        depth[segment.id] = 1 + max((depth[each] for each in segment.depends_on), default=0)
    return max(Counter(depth.values()).values())


def _where(quote: Quote) -> str:
    """Who renders how much of it, and why others do not."""
    used = [
        f"{worker.worker_id} ({_share(worker.segments, worker.need_bytes, worker.rung)})"
        for worker in quote.workers
        if worker.segments
    ]
    refused = [
        worker.why_not if worker.worker_id in worker.why_not else f"{worker.worker_id} {worker.why_not}"
        for worker in quote.workers
        if worker.why_not is not None
    ]
    return "; ".join((_first(used, ", ") or "no worker that is here", *filter(None, [_first(refused, "; ")])))


def _share(segments: int, need_bytes: int | None, rung: Rung | None) -> str:
    held = "" if need_bytes is None or rung is None else f", {gib(need_bytes)} at {rung}"
    return _count(segments, "segment") + held


def _first(told: list[str], between: str) -> str:
    more = f"{between}{len(told) - _MAX_NAMED} more" if len(told) > _MAX_NAMED else ""
    return between.join(told[:_MAX_NAMED]) + more


def _time(quote: Quote) -> str:
    """How long a plan would take, and what it would cost where that is known."""
    if quote.predicted_s is None:
        return "not known"
    count = sum(1 for worker in quote.workers if worker.segments)
    basis = "" if quote.measured else "; an estimate, for not every speed was measured"
    cost = "" if quote.cost is None else f", cost {quote.cost:.2f}"
    return f"about {quote.predicted_s:.0f} s on {_count(count, 'worker')}{cost}{basis}"


def print_segments(plan: Plan, shown_on: Console = console.out) -> None:
    """Every segment of a plan, and what its windows need."""
    rows = (
        (
            s.id,
            s.level,
            f"{s.start}-{s.end - 1}" if s.num_frames else "none",
            f"{s.head}+{s.tail}",
            ", ".join(s.depends_on) or "nothing",
        )
        for s in plan.segments
    )
    console.print_rows(("segment", "level", "frames", "shared", "waits for"), rows, shown_on)
    needs = [(f"a window on {kind}", each.need_bytes) for kind, each in plan.on.items()]
    needs += [(f"its prompts on {kind}", each.need_bytes) for kind, each in plan.text_on.items()]
    if (draft := plan.draft) is not None:
        of_draft = f"a window of the draft by {draft.model} on"
        needs += [(f"{of_draft} {kind}", each.need_bytes) for kind, each in draft.on.items()]
        needs += [(f"its prompts on {kind}", each.need_bytes) for kind, each in draft.text_on.items()]
    for what, need_bytes in needs:
        shown_on.print(f"{what}: {_needs_words(need_bytes)}", markup=False)
    windows = f"windows of {plan.window_frames} frames, overlap {plan.overlap_frames}"
    if (beside := plan.beside_chain) is not None:
        windows += (
            f"; beside a chain: {beside.critical_path:.2f} of the time that no number of workers can "
            f"shorten, {beside.work:.2f} of the work"
        )
    shown_on.print(windows, markup=False, soft_wrap=True)


def _needs_words(need_bytes: Mapping[Rung, int]) -> str:
    return ", ".join(f"{rung} {gib(need)}" for rung, need in need_bytes.items())


def _rate(fps: Fraction) -> str:
    return str(fps) if fps.denominator == 1 else f"{float(fps):.2f}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
