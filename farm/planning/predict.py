"""How long segments take that wait for each other, on workers that are not equal. Pure."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from math import inf, log

from farm.planning.plan import Kind, Plan, Segment

#: Work of a segment that renders no frames.
_NO_WORK = 1e-9
#: Workers whose speeds are this close count as equally fast while segments wait for each other.
_SAME_SPEED = log(1.1)


@dataclass(frozen=True)
class Outline:
    """A plan in numbers. Kinds are those of ``Plan.kind_of``."""

    #: One segment of each kind, and what it costs (``Plan.cost_s_of``).
    samples: tuple[Segment, ...]
    units: tuple[float, ...]
    #: Of each segment, in plan order: its kind, how many it waits for, and who waits for it.
    kinds: tuple[int, ...]
    num_waits: tuple[int, ...]
    dependents: tuple[Sequence[int], ...]
    #: Numbers of the segments that are joined into the video, in order.
    finals: tuple[int, ...]
    #: Segments of each kind, and the units of all together.
    num_of_kind: tuple[int, ...]
    total_units: float


def outline(plan: Plan) -> Outline:
    number = {s.id: i for i, s in enumerate(plan.segments)}
    kind_of: dict[Kind, int] = {}
    samples: list[Segment] = []
    kinds, num_waits, finals = [], [], []
    dependents: list[Sequence[int]] = [()] * len(plan.segments)
    for i, segment in enumerate(plan.segments):
        kind = kind_of.setdefault(plan.kind_of(segment), len(samples))
        if kind == len(samples):
            samples.append(segment)
        kinds.append(kind)
        num_waits.append(len(segment.depends_on))
        for dependency in segment.depends_on:
            dependents[number[dependency]] = (*dependents[number[dependency]], i)
        if segment.level == "final":
            finals.append(i)
    units = tuple(plan.cost_s_of(sample) or _NO_WORK for sample in samples)
    counts = Counter(kinds)
    return Outline(
        samples=tuple(samples),
        units=units,
        kinds=tuple(kinds),
        num_waits=tuple(num_waits),
        dependents=tuple(dependents),
        finals=tuple(finals),
        num_of_kind=tuple(counts[kind] for kind in range(len(samples))),
        total_units=sum(units[kind] * count for kind, count in counts.items()),
    )


@dataclass(frozen=True)
class Runner:
    """A worker as a simulation sees it. Seconds, or any other unit of time."""

    #: For a segment of each kind; infinite where it cannot hold one.
    costs: tuple[float, ...]
    #: Before its first segment.
    load_s: float = 0.0
    #: When it is free.
    free_at: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """What came of it. One number a segment, or a runner."""

    #: When each segment ends; 0 where it was not to be run.
    ends: list[float]
    num_segments: list[int]
    #: Loading and rendering.
    busy_s: list[float]

    @property
    def end(self) -> float:
        return max(self.ends, default=0.0)


@dataclass(frozen=True)
class Left:
    """What is left to do of a plan: numbers of its segments."""

    #: Of each segment: how many that are not done it waits for.
    num_waits: list[int]
    #: Waiting for nothing, in plan order.
    ready: list[int]
    #: How many wait for others.
    num_waiting: int
    #: (when it ends, number) of those being rendered.
    running: list[tuple[float, int]]


def all_of(plan: Outline) -> Left:
    """Nothing of the plan is begun."""
    ready = [i for i, count in enumerate(plan.num_waits) if count == 0]
    return Left(list(plan.num_waits), ready, len(plan.num_waits) - len(ready), [])


def simulate(plan: Outline, left: Left, runners: Sequence[Runner]) -> Simulated:
    """Every segment goes, in plan order once it is ready, to the runner that ends it first.

    As ``farm/scheduling/schedule.py`` decides: a busy runner that would still end it sooner is waited for.
    ``left`` is used up. The time this takes grows with the number of different speeds while segments wait for
    each other, and with the logarithm of the number of runners afterwards.

    Raises:
        ValueError: no runner can hold a segment of some kind.
    """
    for kind in range(len(plan.samples)):
        if all(runner.costs[kind] == inf for runner in runners):
            raise ValueError(f"no runner can hold a segment of {plan.samples[kind].num_frames} frames")
    run = _Simulation(plan, left, runners)
    if left.num_waiting:
        run.in_turn()
    run.rest()
    return Simulated(run.ends, run.num_segments, run.busy_s)


def simulate_reviewed(plan: Outline, runners: Sequence[Runner]) -> tuple[Simulated, float]:
    """``simulate`` of a whole plan whose windows begin when all before them is done, and when that is.

    What somebody takes to look at the keyframes is not counted.

    Raises:
        ValueError: no runner can hold a segment of some kind.
    """
    finals = set(plan.finals)
    waits = [count + (i in finals) for i, count in enumerate(plan.num_waits)]  # for what no segment is
    ready = [i for i, count in enumerate(waits) if count == 0]
    before = simulate(plan, Left(waits, ready, len(waits) - len(ready), []), runners)
    loaded = [
        Runner(r.costs, 0.0 if count else r.load_s, max(r.free_at, before.end))
        for r, count in zip(runners, before.num_segments, strict=True)
    ]
    after = simulate(plan, Left([0] * len(waits), sorted(finals), 0, []), loaded)
    return Simulated(
        [max(pair) for pair in zip(before.ends, after.ends, strict=True)],
        [sum(pair) for pair in zip(before.num_segments, after.num_segments, strict=True)],
        [sum(pair) for pair in zip(before.busy_s, after.busy_s, strict=True)],
    ), before.end


class _Group:
    """Runners that are about equally fast."""

    def __init__(self, runner: Runner) -> None:
        self.costs, self.load_s = runner.costs, runner.load_s
        #: Who is idle, with the model loaded and without: heaps of (cost, runner).
        self.warm: list[tuple[float, int]] = []
        self.cold: list[tuple[float, int]] = []
        #: When the others are free: a heap.
        self.busy: list[float] = []


class _Simulation:
    def __init__(self, plan: Outline, left: Left, runners: Sequence[Runner]) -> None:
        self.plan, self.left, self.runners = plan, left, runners
        self.ends = [0.0] * len(plan.kinds)
        self.num_segments = [0] * len(runners)
        self.busy_s = [0.0] * len(runners)
        self.free_at = [r.free_at for r in runners]
        self.loads = [r.load_s for r in runners]

    def in_turn(self) -> None:
        """From one end of a segment to the next, until no segment waits for another."""
        ready, waits, num_waiting = self.left.ready, self.left.num_waits, self.left.num_waiting
        group_of = _groups(self.runners)
        groups = list(dict.fromkeys(group_of.values()))
        rates = [sum(1 / r.costs[kind] for r in self.runners) for kind in range(len(self.plan.samples))]
        #: (when, segment or -1, runner or -1)
        events = [(end, i, -1) for end, i in self.left.running]
        for runner, group in group_of.items():
            events.append((self.free_at[runner], -1, runner))
            heappush(group.busy, self.free_at[runner])
        heapify(events)
        now = 0.0
        while events and num_waiting:
            now, segment, runner = heappop(events)
            if runner >= 0:
                group = group_of[runner]
                heappop(group.busy)
                heappush(
                    group.cold if self.loads[runner] else group.warm, (self.runners[runner].costs[0], runner)
                )
            if segment >= 0:
                self.ends[segment] = now
                for dependent in self.plan.dependents[segment]:
                    waits[dependent] -= 1
                    if waits[dependent] == 0:
                        num_waiting -= 1
                        insort(ready, dependent)
            if ready and num_waiting and not (events and events[0][0] <= now):
                self._hand_out(now, groups, rates, events)
        self.free_at = [max(at, now) for at in self.free_at]
        for end, segment, runner in events:
            if segment >= 0:
                self.ends[segment] = end
            if runner >= 0:
                self.free_at[runner] = end

    def _hand_out(
        self, now: float, groups: list[_Group], rates: list[float], events: list[tuple[float, int, int]]
    ) -> None:
        """What is ready to whoever is idle, unless the busy ones would end all of it sooner."""
        ready, kinds = self.left.ready, self.plan.kinds
        # As in the schedule, whoever has yet to load in this round is not counted on for one more.
        loading: list[tuple[_Group, float]] = []
        while ready:
            kind = kinds[ready[0]]
            best, cost = _idle(groups, kind)
            if best is None:
                break
            # So many go to busy ones, which end them sooner. Where there is more than enough for everyone and
            # nothing waits for the first, it does not matter which one is taken.
            position = 0
            if self.plan.dependents[ready[0]] or len(ready) < cost * rates[kind]:
                position = _num_sooner(groups, kind, now, cost, len(ready))
            if position >= len(ready) or best.costs[kinds[ready[position]]] == inf:
                break
            segment = ready.pop(position)
            is_warm = bool(best.warm)
            _, runner = heappop(best.warm if is_warm else best.cold)
            end = now + self._take(segment, runner)
            heappush(events, (end, segment, runner))
            if is_warm:
                heappush(best.busy, end)
            else:
                loading.append((best, end))
        for group, end in loading:
            heappush(group.busy, end)

    def _take(self, segment: int, runner: int) -> float:
        """Count a segment for a runner. Returns how long it takes there."""
        cost = self.runners[runner].costs[self.plan.kinds[segment]] + self.loads[runner]
        self.loads[runner] = 0.0
        self.num_segments[runner] += 1
        self.busy_s[runner] += cost
        return cost

    def rest(self) -> None:
        """What is ready, in plan order: no end can make anything else ready."""
        free_at, loads, kinds = self.free_at, self.loads, self.plan.kinds
        #: For each kind: when each runner would end one more, or sooner than it would.
        heaps: dict[int, list[tuple[float, int]]] = {}
        for end, segment in self.left.running:
            self.ends[segment] = end
        for segment in self.left.ready:
            kind = kinds[segment]
            heap = heaps.get(kind)
            if heap is None:
                costs = (r.costs[kind] for r in self.runners)
                heap = heaps[kind] = [
                    (free_at[r] + loads[r] + cost, r) for r, cost in enumerate(costs) if cost < inf
                ]
                heapify(heap)
            while True:
                end, runner = heap[0]
                own = self.runners[runner].costs[kind]
                actual = free_at[runner] + loads[runner] + own
                if actual <= end:
                    break
                heapreplace(heap, (actual, runner))
            self._take(segment, runner)
            free_at[runner] = self.ends[segment] = end
            heapreplace(heap, (end + own, runner))


def _idle(groups: Sequence[_Group], kind: int) -> tuple[_Group | None, float]:
    """Who of the idle ones ends a segment first that is begun now, and how long it takes."""
    best, cost = None, inf
    for group in groups:
        own = group.costs[kind]
        if own >= cost:
            break
        if group.warm:
            best, cost = group, own
        elif group.cold and own + group.load_s < cost:
            best, cost = group, own + group.load_s
    return best, cost


def _num_sooner(groups: Sequence[_Group], kind: int, now: float, cost: float, limit: int) -> int:
    """How many segments busy runners would end before one that is begun now and takes ``cost``."""
    count = 0
    for group in groups:
        own = group.costs[kind]
        if own >= cost:
            break
        if group.busy and group.busy[0] - now + own < cost:
            for end in group.busy:
                if end - now + own < cost:
                    count += int((cost - (end - now)) / own)
            if count >= limit:
                break
    return count


def _groups(runners: Sequence[Runner]) -> dict[int, _Group]:
    """The group of each runner, the fastest runner first."""
    groups: dict[tuple[object, ...], _Group] = {}
    group_of = {}
    for number in sorted(range(len(runners)), key=lambda i: runners[i].costs):
        runner = runners[number]
        speeds = (round(log(cost) / _SAME_SPEED) if 0 < cost < inf else cost for cost in runner.costs)
        key = (*speeds, runner.load_s and round(log(runner.load_s) / _SAME_SPEED))
        if key not in groups:
            groups[key] = _Group(runner)  # as fast as the fastest of its runners
        group_of[number] = groups[key]
    return group_of


def critical_path(plan: Plan) -> float:
    """Cost of the longest run of segments that must follow each other (``Plan.cost_s_of``)."""
    costs = dict(zip((s.id for s in plan.segments), plan.costs_s(), strict=True))
    return longest_path(plan, lambda segment: costs[segment.id])


def longest_path(plan: Plan, cost: Callable[[Segment], float]) -> float:
    """The longest run of segments that must follow each other, in what ``cost`` gives for one."""
    ends: dict[str, float] = {}
    before_review = 0.0
    for segment in plan.segments:
        end = max((ends[d] for d in segment.depends_on), default=0.0) + cost(segment)
        ends[segment.id] = end
        if segment.level != "final":
            before_review = max(before_review, end)
    if plan.review:  # windows wait for all that is looked at
        return before_review + max(cost(s) for s in plan.final_segments)
    return max(ends.values())


def makespan(plan: Plan, workers: int) -> float:
    """Cost one after the other when so many equal workers take what is ready, in plan order.

    For CPUs that nothing is known of, the seconds from submit to the last segment (``Plan.cost_s_of``).
    """
    drawn = outline(plan)
    return simulate(drawn, all_of(drawn), [Runner(drawn.units)] * workers).end
