"""Which task goes to which worker. Pure: ``schedule(state, now)`` reads a state and returns assignments.

Feasible (the need fits the worker at some rung, none that fits has failed the task less often) -> earliest
predicted finish over all workers, busy ones included: a slow card is left idle when a fast one, busy
now, would still finish the task sooner. Jobs share the farm by priority, then evenly between people, then
between jobs. An idle worker with nothing else to do takes a second copy of a straggler that it would finish
sooner.

Tasks are placed in turn, those that go to busy workers too, for the later ones go elsewhere then. How many of
a run of equal tasks busy workers would end first is counted, not tried one by one (``farm.scheduling.runs``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from farm.capabilities import DeviceKind, Rung, gib, why_not
from farm.scheduling.retry import barred
from farm.scheduling.runs import place_run
from farm.state import (
    Fleet,
    Floats,
    Index,
    Job,
    Round,
    State,
    Task,
    TaskClass,
    index_of,
    remaining_s,
)

#: Tasks of several jobs are placed one by one this often, over all workers, and so often at least in a call:
#: on a small farm all of them. Past this they are counted.
LOOKS = 2048
MIN_LOOKS = 8
#: Assignments of one call; whoever is still idle is given something by the next.
MAX_ASSIGNMENTS = 128
#: A copy is made when the idle worker would be done this much sooner than the straggler...
COPY_GAIN = 1.5
#: ...and the straggler has run for at least this share of its prediction.
COPY_AFTER = 1.0
#: No copies of tasks shorter than this: the first is about to end anyway.
COPY_MIN_S = 1.0


class Assignment(NamedTuple):
    job_id: str
    task_id: str
    worker_id: str
    rung: Rung
    need_bytes: int
    predicted_s: float
    why: str


def schedule(state: State, now: float) -> list[Assignment]:
    """Assignments for idle workers, to be carried out as they stand; ask again until there are none."""
    index = index_of(state)
    if not np.count_nonzero(index.fleet.idle):
        return []
    call = _Call(state, index, now)
    if call.place() and np.count_nonzero(call.idle):
        call.copy_stragglers()
    return call.assignments


class _Call:
    """One call of ``schedule``: when workers will be free, as tasks are placed on them."""

    def __init__(self, state: State, index: Index, now: float) -> None:
        self._state, self._index, self._now = state, index, now
        self._fleet: Fleet = index.fleet
        self._free_at: Floats = self._fleet.free_at(now)
        self.idle = self._fleet.idle.copy()
        self.assignments: list[Assignment] = []
        self._given: set[tuple[str, str]] = set()

    def place(self) -> bool:
        """Place what is ready; False: there was no room for more assignments."""
        turn = Round(self._index.turns, self._state)
        looks = max(MIN_LOOKS, LOOKS // len(self._fleet.ids))
        while (found := turn.next()) is not None and len(self.assignments) < MAX_ASSIGNMENTS:
            if looks == 0:
                return self._place_pools(turn)
            looks -= 1
            job, position = found
            order = job.ready[position]
            of = self._index.class_of(job, job.outline.kinds[order])
            if not of.num_able:
                turn.passed_over()
                looks += 1
                continue
            count = _run_length(job, order) if turn.is_alone() else 0
            if count:
                self._place_run(job, order, count, of, is_last=turn.ends_with(count))
            else:
                self._place(job, job.tasks[job.order[order]], of)
            if not np.count_nonzero(self.idle):
                break
            turn.taken(count or 1)
        return len(self.assignments) < MAX_ASSIGNMENTS

    def _place(self, job: Job, task: Task, of: TaskClass) -> None:
        """One task, on whoever ends it first."""
        run_s = self._allowed(task, of)
        finish = self._free_at + run_s
        best = int(finish.argmin())
        if self.idle[best]:
            self._assign(job, task, of, best, finish)
        self._free_at[best] += run_s[best]

    def _place_run(self, job: Job, order: int, count: int, of: TaskClass, *, is_last: bool) -> None:
        """So many equal tasks of one job, from this one on."""
        own = job.ready_of[job.outline.kinds[order]]
        position = bisect_left(own, order)
        room = MAX_ASSIGNMENTS - len(self.assignments)
        placed = place_run(self._free_at, of.run_s, self.idle, count, room, is_last=is_last)
        for skipped, row, finish in placed:
            position += skipped
            self._assign(job, job.tasks[job.order[own[position]]], of, row, finish)
            position += 1

    def _place_pools(self, turn: Round) -> bool:
        """What is left, counted by class and priority; the turns tell whose task an idle worker takes."""
        while (priority := turn.priority) is not None and np.count_nonzero(self.idle):
            pools = self._index.turns.pools[priority]
            first = turn.next()
            assert first is not None, "a priority has a turn to come"
            job, position = first
            head = self._index.class_of(job, job.outline.kinds[job.ready[position]])
            for of in (head, *(other for other in pools if other is not head)):
                if not of.num_able:
                    continue
                room = MAX_ASSIGNMENTS - len(self.assignments)
                if not room:
                    return False
                self._place_pool(turn, of, pools[of], room)
            if turn.priority == priority:
                turn.next_level()
        return len(self.assignments) < MAX_ASSIGNMENTS

    def _place_pool(self, turn: Round, of: TaskClass, pool: dict[tuple[str, int], int], room: int) -> None:
        """Ready tasks of one class and priority, of any job."""
        for job, order in islice(self._failed(pool), MIN_LOOKS):  # who may try one is its own
            self._place(job, job.tasks[job.order[order]], of)
        for skipped, row, finish in place_run(self._free_at, of.run_s, self.idle, sum(pool.values()), room):
            picked = self._pick(turn, of, pool, skipped, row)
            if picked is None:
                break
            self._assign(*picked, of, row, finish)

    def _failed(self, pool: dict[tuple[str, int], int]) -> Iterator[tuple[Job, int]]:
        """Those that were tried and failed, and were not given out yet."""
        for job_id, kind in pool:
            job = self._state.jobs[job_id]
            if not job.ready_failed:
                continue
            for order in sorted(job.ready_failed):
                given = (job.id, job.order[order]) in self._given
                if job.outline.kinds[order] == kind and not given:
                    yield job, order

    def _pick(
        self, turn: Round, of: TaskClass, pool: dict[tuple[str, int], int], skipped: int, row: int
    ) -> tuple[Job, Task] | None:
        """A task of this class for a worker: of whoever has the turn, as far in as its share was skipped."""
        found = turn.next()
        first = [found[0]] if found and self._ready_of(found[0], of) else []
        for job in chain(first, (self._state.jobs[job_id] for job_id, _ in pool)):
            orders = self._ready_of(job, of)
            share = min(skipped // len(pool), len(orders) - 1)
            for order in (orders[n] for n in chain(range(share, len(orders)), range(share))):
                task = job.tasks[job.order[order]]
                if (job.id, task.id) not in self._given and self._allowed(task, of)[row] < np.inf:
                    if found and job is found[0]:
                        turn.taken()
                    return job, task
        return None

    def _ready_of(self, job: Job, of: TaskClass) -> list[int]:
        """A job's ready tasks of a class, in plan order."""
        kinds = (
            kind for kind, orders in job.ready_of.items() if orders and self._index.class_of(job, kind) is of
        )
        return job.ready_of[kind] if (kind := next(kinds, None)) is not None else []

    def _allowed(self, task: Task, of: TaskClass) -> Floats:
        """What the task takes on each worker; infinite where it cannot or may not try it."""
        if not task.failures:
            return of.run_s
        able = [self._fleet.ids[row] for row in (of.run_s < np.inf).nonzero()[0]]
        run_s = of.run_s.copy()
        run_s[[self._fleet.row(worker_id) for worker_id in barred(task, able)]] = np.inf
        return run_s

    def copy_stragglers(self) -> None:
        """Second copies of what is overdue, for whoever is idle and would end it much sooner."""
        fleet, now = self._fleet, self._now
        overdue = now - fleet.given_at >= np.maximum(COPY_MIN_S, COPY_AFTER * fleet.predicted_s)
        rows = (fleet.busy & overdue).nonzero()[0]
        if not rows.size:
            return
        soonest = min((known.run_s[self.idle].min() for known in fleet.classes.values()), default=np.inf)
        rows = rows[fleet.free_at(now)[rows] - now > soonest * COPY_GAIN]
        found = [
            (self._index.turns.number(job.id), int(fleet.joined[row]), job, task, attempt)
            for row in rows
            for job, task, attempt in self._state.running_on(self._state.workers[fleet.ids[row]])
            if job.status == "running" and task.status == "running" and task.running_attempts == [attempt]
        ]
        for _, _, job, task, attempt in sorted(found, key=itemgetter(0, 1)):
            of = self._index.class_of(job, job.outline.kinds[task.order])
            left = remaining_s(attempt, now)
            run_s = np.where(self.idle, self._allowed(task, of), np.inf)
            best = int(run_s.argmin())
            if run_s[best] * COPY_GAIN < left:
                self.idle[best] = False
                why = f"second copy: done in {run_s[best]:.1f} s, {attempt.worker_id} needs {left:.1f} s more"
                self._give(job, task, of, best, why)

    def _assign(self, job: Job, task: Task, of: TaskClass, row: int, finish: Floats) -> None:
        """An idle worker ends it first; ``finish``: when each would."""
        self.idle[row] = False
        self._give(job, task, of, row, self._why(of, row, finish))

    def _give(self, job: Job, task: Task, of: TaskClass, row: int, why: str) -> None:
        worker = self._state.workers[self._fleet.ids[row]].usable
        held = of.holding(self._state.profiles, worker)
        assert held is not None, "a worker that cannot hold a task takes forever"
        rung, need_bytes = held
        self._given.add((job.id, task.id))
        self.assignments.append(
            Assignment(
                job_id=job.id,
                task_id=task.id,
                worker_id=worker.id,
                rung=rung,
                need_bytes=need_bytes,
                predicted_s=float(of.run_s[row]),
                why=why,
            )
        )

    def _why(self, of: TaskClass, row: int, finish: Floats) -> str:
        worker = self._state.workers[self._fleet.ids[row]].usable
        held = of.holding(self._state.profiles, worker)
        assert held is not None, "a worker that cannot hold a task takes forever"
        fits = _fits(*held, worker.vram_bytes)
        own, finish[row] = finish[row], np.inf
        second = int(finish.argmin())
        ahead, finish[row] = float(finish[second] - own), own
        if ahead == np.inf:
            return f"{fits}; the only worker that can"
        return f"{fits}; done {max(ahead, 0):.1f} s before {self._fleet.ids[second]}"


@lru_cache
def _fits(rung: Rung, need_bytes: int, vram_bytes: int) -> str:
    return f"{rung} fits ({gib(need_bytes)} of {gib(vram_bytes)})"


def _run_length(job: Job, order: int) -> int:
    """How many of a job's ready tasks, from this one on, are equal and were never tried."""
    kind = job.outline.kinds[order]
    own = job.ready_of[kind]
    ends = [failed for failed in job.ready_failed if failed >= order]
    for other, orders in job.ready_of.items():
        if other != kind and (place := bisect_left(orders, order)) < len(orders):
            ends.append(orders[place])
    return (bisect_left(own, min(ends)) if ends else len(own)) - bisect_left(own, order)


def explain(state: State, job: Job, task: Task, worker_ids: Iterable[str] | None = None) -> dict[str, str]:
    """For each worker, or each of these, why the task does or does not run there."""
    of = index_of(state).class_of(job, job.outline.kinds[task.order])
    out = barred(task, able_workers(state, job, task)) if task.failures else frozenset()
    #: By what a worker has: what it lacks, or at which rung it fits.
    looked: dict[tuple[DeviceKind, int, int | None], str] = {}
    said = {}
    for worker_id in state.workers if worker_ids is None else worker_ids:
        worker_state = state.workers[worker_id]
        worker = worker_state.usable
        held = of.holding(state.profiles, worker)
        if worker_state.draining:
            said[worker_id] = "is draining"
        elif held is None:
            has = (worker.kind, worker.vram_bytes, worker.host_bytes)
            if has not in looked:
                needs = state.profiles.needs(job.plan, task.segment, worker.kind)
                looked[has] = str(why_not(needs, worker)).removeprefix(f"{worker_id} ")
            others = worker_state.others_words
            said[worker_id] = f"{looked[has]}; {others}" if others else looked[has]
        elif worker_id in out:
            failure = next(f for f in reversed(task.failures) if f.worker_id == worker_id)
            said[worker_id] = f"has failed this task: {failure.message}"
        elif worker_state.attempts:
            said[worker_id] = "is busy"
        else:
            said[worker_id] = f"can take it at {held[0]}"
    return said


def able_workers(state: State, job: Job, task: Task) -> list[str]:
    """Ids of the workers that can hold a task and are not draining, in order."""
    index = index_of(state)
    of = index.class_of(job, job.outline.kinds[task.order])
    return [index.fleet.ids[row] for row in (of.run_s < np.inf).nonzero()[0]]
