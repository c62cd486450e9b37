"""Who can hold a plan's windows, and how long each takes for them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from farm.capabilities import Worker
from farm.planning import Outline, Plan, Runner
from farm.state import Profiles, State, TaskClass, remaining_s


@dataclass(frozen=True)
class Crew:
    """The workers that can hold some of a plan's windows, all of them together every one."""

    workers: Sequence[Worker] = ()
    runners: Sequence[Runner] = ()
    #: Ids of those whose speed was measured with each of the plan's models that they can hold.
    measured: frozenset[str] = frozenset()

    def whole_s(self, drawn: Outline) -> float:
        """Seconds that all together take for every segment of the plan, were nothing to wait for."""
        return sum(
            count / sum(1.0 / runner.costs[kind] for runner in self.runners)
            for kind, count in enumerate(drawn.num_of_kind)
        )


def crew_of(state: State, plan: Plan, drawn: Outline, now: float) -> Crew:
    """Who can hold some of the plan's windows, if together they can hold all of them and its prompts.

    Times are seconds from now. Whoever drafts with a model of its own brings it there once a shot: that time
    is shared out over the shot's draft.
    """
    workers, runners, measured = [], [], []
    drafts = (n for s, n in zip(drawn.samples, drawn.num_of_kind, strict=True) if s.level == "draft")
    num_drafted = sum(drafts) / len(plan.shots)
    model, profiles, times = plan.loaded_as, state.profiles, _Times(state.profiles, plan, drawn)
    for worker_state in state.workers.values():
        if worker_state.draining:
            continue
        worker = worker_state.worker
        alike = times.of_like(worker)
        costs = times.on(worker, alike)
        if min(costs) == inf:
            continue
        load_s = 0.0
        if worker_state.warm_model != model and alike.holds_own:
            load_s = profiles.bringing_s(plan, worker, worker_state.models)
        if plan.draft and worker_state.warm_model != plan.draft.loaded_as != model:
            share_s = profiles.bringing_s(plan.draft, worker, worker_state.models) / num_drafted
            costs = tuple(
                cost + share_s if sample.drafted and sample.level != "text" else cost
                for sample, cost in zip(drawn.samples, costs, strict=True)
            )
        free_at = 0.0
        for _, _, attempt in state.running_on(worker_state) if worker_state.attempts else ():
            free_at += remaining_s(attempt, now)
        workers.append(worker)
        runners.append(Runner(costs, load_s, free_at))
        if all(profiles.has_measured(each, worker) for each in alike.models):
            measured.append(worker.id)
    if any(all(runner.costs[kind] == inf for runner in runners) for kind in range(len(drawn.samples))):
        return Crew()  # there is something that nobody can hold
    return Crew(workers, runners, frozenset(measured))


def whole_s_of(state: State, plan: Plan, drawn: Outline) -> float:
    """Seconds that all who can take for every segment of the plan; infinite where some nobody can hold."""
    if plan.draft:  # shares out what bringing its model takes
        crew = crew_of(state, plan, drawn, 0.0)
        return crew.whole_s(drawn) if crew.workers else inf
    times = _Times(state.profiles, plan, drawn)
    here = [w.worker for w in state.workers.values() if not w.draining]
    costs = [times.on(worker, times.of_like(worker)) for worker in here]
    rates = (sum(1.0 / own[kind] for own in costs) for kind in range(len(drawn.samples)))
    return sum(count / rate if rate else inf for count, rate in zip(drawn.num_of_kind, rates, strict=True))


class _Pace(NamedTuple):
    """Of one kind of segment on all workers that are alike."""

    #: None: it takes ``prior_s``, whoever renders it.
    model: str | None
    prior_s: float
    units: float = 1.0
    slowdown: float = 1.0


class _Alike(NamedTuple):
    """What holds for all workers of one device and memory."""

    paces: Sequence[_Pace]
    #: Whether windows of the plan's own model are among what they can hold.
    holds_own: bool
    #: The plan's models of which they can hold windows.
    models: Sequence[str]


class _Times:
    """Seconds of each kind of segment of a plan on workers that have the model loaded."""

    def __init__(self, profiles: Profiles, plan: Plan, drawn: Outline) -> None:
        self._profiles, self._plan, self._samples = profiles, plan, drawn.samples
        self._classes = [TaskClass(plan, sample) for sample in drawn.samples]
        self._looked: dict[tuple[object, ...], _Alike] = {}

    def of_like(self, worker: Worker) -> _Alike:
        has = (worker.device_name, worker.kind, worker.vram_bytes, worker.host_bytes)
        if has not in self._looked:
            self._looked[has] = self._look(worker)
        return self._looked[has]

    def on(self, worker: Worker, alike: _Alike) -> tuple[float, ...]:
        """Infinite where a worker cannot hold one."""
        timed, worker_id = self._profiles.seconds_per_unit, worker.id
        return tuple(
            [
                prior_s if model is None else timed.get((worker_id, model), prior_s) * units * slowdown
                for model, prior_s, units, slowdown in alike.paces
            ]
        )

    def _look(self, worker: Worker) -> _Alike:
        paces: list[_Pace] = []
        models: dict[str, None] = {}
        holds_own = False
        for each, sample in zip(self._classes, self._samples, strict=True):
            held = each.holding(self._profiles, worker)
            if held is None:
                paces.append(_Pace(None, inf))
                continue
            work = each.pace(worker.kind)
            if work.text_s is not None:
                paces.append(_Pace(None, work.text_s))
                continue
            prior_s = self._profiles.prior_s(work, worker)
            paces.append(_Pace(work.model, prior_s, work.units, work.slowdown[held[0]]))
            models[work.model] = None
            holds_own |= not sample.drafted
        return _Alike(paces, holds_own, list(models))
