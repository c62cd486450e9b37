"""When a video will be done and what it will cost, on the workers that are here as they are now. Pure.

Segments are handed out as ``farm/scheduling/schedule.py`` does, with every prediction coming true
(``farm/planning/predict.py``); the joiner follows in segment order. Other jobs count as work for the whole
farm: a higher priority is served first, and jobs of one priority share the farm evenly until the smaller of
them is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pydantic import TypeAdapter

from farm.capabilities import Mode, Rung, Worker, why_not
from farm.planning import (
    Left,
    Outline,
    Plan,
    Simulated,
    all_of,
    longest_path,
    outline,
    simulate,
    simulate_reviewed,
)
from farm.scheduling.crew import Crew, crew_of, whole_s_of
from farm.state import Job, State, TaskClass, frames_to_join, remaining_s
from farm.values import Value


class WorkerShare(Value):
    """What one worker would do of a job."""

    worker_id: str
    device_name: str
    segments: int
    #: Seconds it would load and render.
    busy_s: float
    #: The fastest rung that fits, None where none does; bytes held there, or at the smallest rung.
    rung: Rung | None
    need_bytes: int | None
    #: Why it takes no part, or None when it can.
    why_not: str | None


class Quote(Value):
    """What a plan would take on the workers that are here."""

    num_segments: int
    num_frames: int
    #: Of the video.
    duration_s: float
    mode: Mode
    width: int
    height: int
    fps: float
    #: Seconds from now to the finished video; None where no worker can hold a window. What its user takes to
    #: look at the keyframes is not among them.
    predicted_s: float | None
    #: Whether every speed this is worked out from was measured here, joining included.
    measured: bool
    #: Seconds of the longest run of segments that must follow each other, each on the fastest worker.
    critical_path_s: float | None
    #: In the currency of the workers' prices; None where a worker that takes part has no price.
    cost: float | None
    #: Not known: no worker tells what power a job takes.
    energy_wh: None = None
    workers: tuple[WorkerShare, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """What a quote reads of the farm: looked up at one moment, and nothing changes it afterwards."""

    _crew: Crew
    #: Shares of every worker that is here, but for what it takes.
    _parts: tuple[Mapping[str, Any], ...]
    #: Seconds that all workers together give to other jobs before this one is done.
    _ahead_s: float
    #: Seconds to join a frame, and whether that was measured.
    _join_s: float
    _join_measured: bool


def quote(state: State, plan: Plan, now: float, *, priority: int = 50) -> Quote:
    """What this plan would take if it were submitted now.

    Args:
        state: Of the farm; other jobs and what runs are counted in.
        plan: Of the job.
        now: Seconds of the ledger's monotonic clock.
        priority: Of the job, 0 to 100.
    """
    drawn = outline(plan)
    return quote_of(plan, drawn, standing(state, plan, drawn, now, priority=priority))


def standing(state: State, plan: Plan, drawn: Outline, now: float, *, priority: int = 50) -> Standing:
    """What ``quote_of`` has to know of the farm. Takes no longer for a plan of many segments.

    Args:
        state: As for ``quote``, like ``now`` and ``priority``.
        plan: Of the job.
        drawn: Its outline.
    """
    crew = crew_of(state, plan, drawn, now)
    return Standing(
        _crew=crew,
        _parts=tuple(_parts(state, plan, drawn)),
        _ahead_s=_ahead_s(state, plan, None, priority, crew.whole_s(drawn)) if crew.workers else 0.0,
        _join_s=state.profiles.joining_s(plan),
        _join_measured=state.profiles.join_s is not None,
    )


def quote_of(plan: Plan, drawn: Outline, here: Standing) -> Quote:
    """The quote of a plan on a farm that stands like this. Slow for many segments: made for a thread."""
    crew = here._crew
    notes: list[str] = []
    predicted_s = critical_path_s = cost = None
    done = Simulated([], [0] * len(crew.workers), [0.0] * len(crew.workers))
    measured = False
    if crew.workers:
        keyframes_s: float | None = None
        if plan.review:
            done, keyframes_s = simulate_reviewed(drawn, crew.runners)
        else:
            done = simulate(drawn, all_of(drawn), crew.runners)
        used = [w for w, count in zip(crew.workers, done.num_segments, strict=True) if count]
        known = [w for w in used if w.id in crew.measured]
        measured = len(known) == len(used) and here._join_measured
        alone_s = _joined(plan, drawn, done.ends, here._join_s, 0)
        predicted_s = max(alone_s, crew.whole_s(drawn) + here._ahead_s)
        fastest = [min(r.costs[kind] for r in crew.runners) for kind in range(len(drawn.samples))]
        kind_of = dict(zip((s.id for s in plan.segments), drawn.kinds, strict=True))
        critical_path_s = longest_path(plan, lambda s: fastest[kind_of[s.id]])
        cost = _cost(used, [s for s in done.busy_s if s])
        notes = _notes(plan, len(used), len(known), predicted_s - alone_s)
        if keyframes_s is not None:
            notes.append(
                f"waits for you after about {keyframes_s:.0f} s, and takes about "
                f"{alone_s - keyframes_s:.0f} s more once you approve"
            )
    elif not here._parts:
        notes = ["no worker is here: nothing can be said about time"]
    taken = {
        worker.id: {"segments": count, "busy_s": busy_s}
        for worker, count, busy_s in zip(crew.workers, done.num_segments, done.busy_s, strict=True)
        if count
    }
    return Quote(
        num_segments=len(plan.segments),
        num_frames=plan.delivered.num_frames,
        duration_s=float(plan.delivered.duration_s),
        mode=plan.mode,
        width=plan.width,
        height=plan.height,
        fps=float(plan.delivered.fps),
        predicted_s=predicted_s,
        measured=measured,
        critical_path_s=critical_path_s,
        cost=cost,
        workers=_SHARES.validate_python(
            [{**part, **taken.get(part["worker_id"], _NOTHING)} for part in here._parts]
        ),
        notes=(*plan.notes, *notes),
    )


def eta_s(state: State, job: Job, now: float) -> float | None:
    """Seconds until this job's video is done.

    None when it has ended, when its user has yet to look at its keyframes, or no worker can hold its windows.
    """
    if job.status != "running" or job.held:
        return None
    drawn = job.outline
    left = _left(state, job, now)
    num_left = len(left.ready) + left.num_waiting
    if num_left == 0:
        ends = [0.0] * len(drawn.kinds)
        for end, number in left.running:
            ends[number] = end
        return _joined(job.plan, drawn, ends, state.profiles.joining_s(job.plan), _num_joined(job))
    crew = crew_of(state, job.plan, drawn, now)
    if not crew.workers:
        return None
    own_s = crew.whole_s(drawn) * num_left / len(drawn.kinds)
    ahead_s = _ahead_s(state, job.plan, job, job.request.priority, own_s)
    ends = simulate(drawn, left, crew.runners).ends
    joined_s = _joined(job.plan, drawn, ends, state.profiles.joining_s(job.plan), _num_joined(job))
    return max(joined_s, own_s + ahead_s)


def _left(state: State, job: Job, now: float) -> Left:
    """What of a job is not done."""
    ends: dict[int, float] = {}
    for task in map(job.tasks.__getitem__, job.running_tasks):
        here = [a for a in task.running_attempts if a.worker_id in state.workers]
        if task.status == "running" and here:
            ends[task.order] = min(remaining_s(attempt, now) for attempt in here)
    num_waits = [0] * len(job.tasks)
    num_waiting = len(job.tasks) - job.num_done - len(job.ready) - len(ends)
    if num_waiting:
        waiting = [task for task in job.tasks.values() if task.status == "waiting"]
        num_waiting = len(waiting)
        for task in waiting:
            num_waits[task.order] = len(task.waits_for)
    return Left(num_waits, list(job.ready), num_waiting, [(end, number) for number, end in ends.items()])


def _num_joined(job: Job) -> int:
    """How many of the final segments the joiner has gone past."""
    newest = next(reversed(job.seams), None)
    if newest is None or job.published is not None:
        # What was published is joined from the start again.
        return 0
    return job.outline.finals.index(job.tasks[newest].order) + 1


def _joined(plan: Plan, drawn: Outline, ends: Sequence[float], frame_s: float, num_joined: int) -> float:
    """When the last of these segments is joined, which end at ``ends``."""
    segments = plan.segments
    at = 0.0
    for number in drawn.finals[num_joined:]:
        segment = segments[number]
        own_s = frames_to_join(segment) * frame_s
        end = ends[number]
        at = (end if end > at else at) + own_s
    return at


def _ahead_s(state: State, plan: Plan, own: Job | None, priority: int, own_s: float) -> float:
    """Seconds that all workers together give to other jobs before a job of ``own_s`` is done."""
    # For each model asked once: it is of the same workers, and sizes matter little beside the speed.
    speeds: dict[str, float | None] = {}
    ahead_s = 0.0
    for job in state.jobs.values():
        if job is own or job.status != "running" or job.request.priority < priority:
            continue
        drawn, model = job.outline, job.plan.loaded_as
        if model not in speeds:
            whole_s = whole_s_of(state, job.plan, drawn)
            speeds[model] = whole_s / drawn.total_units if whole_s < inf else None
        per_unit = speeds[model]
        if per_unit is not None:
            left_s = per_unit * _units_left(job, drawn)
            ahead_s += left_s if job.request.priority > priority else min(left_s, own_s)
    return ahead_s


def _units_left(job: Job, drawn: Outline) -> float:
    """Work of a job that nothing but workers holds up, segments that are done counted as equal."""
    units, count = drawn.total_units, len(job.tasks)
    if job.held:
        units -= sum(drawn.units[drawn.kinds[final]] for final in drawn.finals)
        count -= len(drawn.finals)
    return units * (1 - job.num_done / count)


def _cost(workers: Sequence[Worker], busy_s: Sequence[float]) -> float | None:
    prices = [worker.price_per_hour for worker in workers]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return None
    return sum(price * s / 3600 for price, s in zip(known, busy_s, strict=True))


def _notes(plan: Plan, num_used: int, num_known: int, waits_s: float) -> list[str]:
    notes = []
    if num_known < num_used:
        notes.append(
            f"{num_used - num_known} of {num_used} workers have not rendered with {plan.loaded_as} yet: "
            "their speed is an estimate"
        )
    if waits_s >= 1:
        notes.append(f"other jobs take about {waits_s:.0f} s of the farm meanwhile")
    return notes


def _parts(state: State, plan: Plan, drawn: Outline) -> Iterable[Mapping[str, Any]]:
    """Of every worker, what its share says whatever it takes."""
    # The largest window; where that is too large, the draft's that is not.
    largest = [
        max(samples, key=lambda s: s.num_frames)
        for drafted in (False, True)
        if (samples := [s for s in drawn.samples if s.drafted == drafted and s.level != "text"])
    ]
    classes = [TaskClass(plan, sample) for sample in largest]
    for worker_state in state.workers.values():
        worker = worker_state.worker
        held = next((h for each in classes if (h := each.holding(state.profiles, worker))), None)
        lacking = None
        if held is None:
            needs = state.profiles.needs(plan, largest[0], worker.kind)
            lacking = why_not(needs, worker)
        yield {
            "worker_id": worker.id,
            "device_name": worker.device_name,
            "rung": held[0] if held else None,
            "need_bytes": held[1] if held else min(need.vram_bytes for need in needs.values()),
            "why_not": "is draining" if worker_state.draining else lacking,
        }


_NOTHING = {"segments": 0, "busy_s": 0.0}
#: Ten thousand at once are made in a third of the time that they take one by one.
_SHARES = TypeAdapter(tuple[WorkerShare, ...])
