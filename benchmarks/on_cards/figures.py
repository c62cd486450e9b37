"""What a run on several cards is worth: beside one card, and beside the best that its tasks allow."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Work(NamedTuple):
    """A task: how long it keeps a card, how long its result is on the way then, and what it starts from."""

    busy_s: float
    lag_s: float
    depends_on: tuple[str, ...]


def work_of(attempts: Sequence[Row], tasks: Sequence[Row]) -> dict[str, Work]:
    """The tasks of a plan with the times that a run took for tasks of their kind (level, frames).

    Args:
        attempts: Of the run whose times count; those that ended well.
        tasks: Of the plan: ``id``, ``level``, ``num_frames``, ``depends_on``.
    """
    times: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in attempts:
        if row["outcome"] == "succeeded":
            busy_s = row["wall_s"] - row["load_s"] - row["phases_s"].get("transfer", 0.0)
            whole_s = row["ended_s"] - row["given_s"] - row["load_s"]
            times[row["level"], row["num_frames"]].append((busy_s, max(0.0, whole_s - busy_s)))
    every = [each for own in times.values() for each in own]
    found = {}
    for task in tasks:
        own = times.get((task["level"], task["num_frames"])) or every
        busy_s, lag_s = (sum(column) / len(own) for column in zip(*own, strict=True))
        found[task["id"]] = Work(busy_s, lag_s, tuple(task["depends_on"]))
    return found


def best_list_schedule_s(work: Mapping[str, Work], num_cards: int) -> float:
    """Seconds of the shorter of two list schedules on equal cards: by longest path, and in plan order."""
    path: dict[str, float] = {}
    dependents: defaultdict[str, list[str]] = defaultdict(list)
    for name, each in work.items():
        for other in each.depends_on:
            dependents[other].append(name)

    def longest(name: str) -> float:
        if name not in path:
            own = work[name]
            behind = max((longest(each) for each in dependents[name]), default=0.0)
            path[name] = own.busy_s + own.lag_s + behind
        return path[name]

    order = {name: number for number, name in enumerate(work)}
    ranks: list[Callable[[str], float]] = [lambda name: -longest(name), lambda name: order[name]]
    return min(_list_schedule_s(work, dependents, num_cards, rank) for rank in ranks)


def _list_schedule_s(
    work: Mapping[str, Work],
    dependents: Mapping[str, Sequence[str]],
    num_cards: int,
    rank: Callable[[str], float],
) -> float:
    waits = {name: len(each.depends_on) for name, each in work.items()}
    ready = [(rank(name), name) for name, count in waits.items() if not count]
    heapq.heapify(ready)
    free, now, end = num_cards, 0.0, 0.0
    #: (moment, task, whether it is the card that is free, else the result that is there)
    coming: list[tuple[float, str, bool]] = []
    while ready or coming:
        while ready and free:
            free -= 1
            name = heapq.heappop(ready)[1]
            each = work[name]
            heapq.heappush(coming, (now + each.busy_s, name, True))
            heapq.heappush(coming, (now + each.busy_s + each.lag_s, name, False))
        now, name, is_card = heapq.heappop(coming)
        end = max(end, now)
        if is_card:
            free += 1
            continue
        for dependent in dependents.get(name, ()):
            waits[dependent] -= 1
            if not waits[dependent]:
                heapq.heappush(ready, (rank(dependent), dependent))
    return end


def compared(one: Row, many: Row) -> dict[str, float]:
    """A run on several equal cards beside the same on one, both with the model loaded."""
    cards = len(many["workers"])
    best_s = best_list_schedule_s(work_of(one["attempts"], many["tasks"]), cards)
    return {
        "cards": cards,
        "wall_s": many["wall_s"],
        "speed_up": one["wall_s"] / many["wall_s"],
        "of_linear": one["wall_s"] / many["wall_s"] / cards,
        "best_list_schedule_s": best_s,
        "over_best_list_schedule": many["wall_s"] / best_s,
        "segment_over_alone": mean_final_s(many) / mean_final_s(one),
        "publish_s": many["publish_s"],
        "idle_share": many["idle_share"],
    }


def mean_final_s(run: Row) -> float:
    """Seconds of a window of the video, its model loaded."""
    own = [
        row["wall_s"] - row["load_s"]
        for row in run["attempts"]
        if row["level"] == "final" and row["outcome"] == "succeeded"
    ]
    return sum(own) / len(own)


def windows_per_s(run: Row) -> float:
    """Windows of the video that a run rendered in a second of its first order to its last result."""
    own = [r for r in run["attempts"] if r["outcome"] == "succeeded"]
    first, last = min(r["given_s"] for r in own), max(r["ended_s"] for r in own)
    return sum(r["level"] == "final" for r in own) / (last - first)
