"""How long a plan takes before anything was measured, in its own units of work. Pure."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from farm.plan import Plan, Segment


def critical_path(plan: Plan) -> float:
    """Work of the longest run of segments that must follow each other, in million pixels x frames x steps."""
    return longest_path(plan, plan.work_units)


def longest_path(plan: Plan, cost: Callable[[Segment], float]) -> float:
    """The longest run of segments that must follow each other, in what ``cost`` gives for one."""
    ends: dict[str, float] = {}
    for segment in plan.segments:
        ends[segment.id] = max((ends[d] for d in segment.depends_on), default=0.0) + cost(segment)
    return max(ends.values())


def makespan(plan: Plan, workers: int) -> float:
    """Work done one after the other when so many equal workers take what is ready, in plan order.

    In million pixels x frames x steps: times the seconds of one, the time from submit to the last segment.
    """
    segments = plan.segments
    number = {s.id: i for i, s in enumerate(segments)}
    waits_for = [len(s.depends_on) for s in segments]
    dependents: list[list[int]] = [[] for _ in segments]
    for i, segment in enumerate(segments):
        for dependency in segment.depends_on:
            dependents[number[dependency]].append(i)
    # A sorted list is a heap.
    ready = [i for i, count in enumerate(waits_for) if count == 0]
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            i = heappop(ready)
            heappush(running, (now + plan.work_units(segments[i]), i))
        now, ended = heappop(running)
        for i in dependents[ended]:
            waits_for[i] -= 1
            if waits_for[i] == 0:
                heappush(ready, i)
    return now
