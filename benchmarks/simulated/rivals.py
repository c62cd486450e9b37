"""Other ways to hand out the same work: a queue that idle workers pull from, and an even split beforehand."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from benchmarks.simulated.simulation import Simulation
from farm.planning.plan import Plan, Segment
from farm.state.events import JobSubmitted

Jobs = Sequence[tuple[float, JobSubmitted]]


def pulled(farm: Simulation, jobs: Jobs) -> float:
    """Makespan of a first-in first-out queue: whoever is idle takes the first segment that fits."""
    return _run(farm, jobs, split=False)


def split_evenly(farm: Simulation, jobs: Jobs) -> float:
    """Makespan where every worker is given as many segments as any other, as far as they fit."""
    return _run(farm, jobs, split=True)


def _run(farm: Simulation, jobs: Jobs, *, split: bool) -> float:
    """Without failures, and everything is there from the start: rivals are spared what the farm is not."""
    ids = list(farm.workers)
    waits: dict[tuple[int, str], int] = {}
    dependents: dict[tuple[int, str], list[tuple[int, Segment]]] = {}
    shared: deque[tuple[int, Segment]] = deque()
    own: dict[str, deque[tuple[int, Segment]]] = {worker_id: deque() for worker_id in ids}
    given = [(0, number, worker_id) for number, worker_id in enumerate(ids)]
    heapify(given)
    plans = [event.plan for _, event in jobs]
    fits: dict[tuple[int, int], bool] = {}

    def can(number: int, worker_id: str) -> bool:
        key = (number, farm.workers[worker_id].vram_bytes)
        if key not in fits:
            fits[key] = farm.held(plans[number], plans[number].segments[0], worker_id) is not None
        return fits[key]

    def queue(number: int, segment: Segment) -> None:
        if not split:
            shared.append((number, segment))
            return
        passed = []
        while True:
            count, place, worker_id = heappop(given)
            if can(number, worker_id):
                break
            passed.append((count, place, worker_id))
        heappush(given, (count + 1, place, worker_id))
        for entry in passed:
            heappush(given, entry)
        own[worker_id].append((number, segment))

    for number, made in enumerate(plans):
        for segment in made.segments:
            waits[number, segment.id] = len(segment.depends_on)
            for dependency in segment.depends_on:
                dependents.setdefault((number, dependency), []).append((number, segment))
            if not segment.depends_on:
                queue(number, segment)
    idle = dict.fromkeys(ids)
    running: list[tuple[float, int, str, int, Segment]] = []
    now, tie = 0.0, 0
    while True:
        for worker_id in list(idle):
            source = own[worker_id] if split else shared
            found = next((i for i, (number, _) in enumerate(source) if can(number, worker_id)), None)
            if found is None:
                if not source and not split:
                    break
                continue
            number, segment = source[found]
            del source[found]
            del idle[worker_id]
            took = _seconds(farm, plans[number], segment, worker_id)
            tie += 1
            heappush(running, (now + took, tie, worker_id, number, segment))
        if not running:
            return now
        now, _, worker_id, number, segment = heappop(running)
        idle[worker_id] = None
        for _, dependent in dependents.get((number, segment.id), ()):
            waits[number, dependent.id] -= 1
            if not waits[number, dependent.id]:
                queue(number, dependent)


def _seconds(farm: Simulation, made: Plan, segment: Segment, worker_id: str) -> float:
    rung = farm.held(made, segment, worker_id)
    assert rung is not None, "it was asked whether it fits"
    return farm.seconds(made, segment, worker_id, rung)
