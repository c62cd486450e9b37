"""Whose turn it is: jobs with something ready, by priority, then by who has least running.

The person counts before the job: who has ten jobs gets as much of the farm as who has one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Any, Generic, TypeVar

from farm.state.state import Job, State

#: Of equal tasks: what the index keeps of them.
C = TypeVar("C", bound=Hashable)
#: (attempts that run, number of the job, id of the job)
_Entry = tuple[int, int, str]


@dataclass
class _Filed:
    """Where a job stands among the others."""

    priority: int
    entry: _Entry
    #: Ready tasks, by kind.
    counts: dict[int, int]


class Turns(Generic[C]):
    """Kept with the state; ``changed`` after every event of a job."""

    def __init__(self, state: State, class_of: Callable[[Job, int], C]) -> None:
        self._state = state
        self._class_of = class_of
        #: Attempts that run, by person.
        self.running: Counter[str] = Counter()
        #: By priority and person, the jobs with something ready, in order.
        self.levels: dict[int, dict[str, list[_Entry]]] = {}
        #: By priority and class: how much is ready, by job and kind.
        self.pools: dict[int, dict[C, dict[tuple[str, int], int]]] = {}
        self._filed: dict[str, _Filed] = {}
        #: How many run as counted last, and the manieth to come, by job.
        self._counted: dict[str, int] = {}
        self._number: dict[str, int] = {}
        self._num_seen = 0
        for job in state.jobs.values():
            self.changed(job)

    def number(self, job_id: str) -> int:
        """The manieth job it is."""
        return self._number[job_id]

    def changed(self, job: Job) -> None:
        """Something happened to a job."""
        if job.id not in self._number:
            self._number[job.id] = self._num_seen
            self._num_seen += 1
        before = self._counted.get(job.id, 0)
        if job.num_running != before:
            self._counted[job.id] = job.num_running
            self.running[job.person] += job.num_running - before
        filed = self._filed.get(job.id)
        waits = job.status == "running" and bool(job.ready)
        if filed is not None and (not waits or filed.priority != job.request.priority):
            self._take_out(job)
            filed = None
        if waits:
            self._put_in(job, filed)

    def gone(self, job_id: str) -> None:
        """A job was deleted: it had ended, and nothing of it ran."""
        self._counted.pop(job_id, None)
        self._number.pop(job_id, None)

    def _put_in(self, job: Job, filed: _Filed | None) -> None:
        """``filed``: where it is already, as it was before."""
        priority, entry = job.request.priority, (job.num_running, self._number[job.id], job.id)
        if filed is None:
            filed = self._filed[job.id] = _Filed(priority, entry, {})
            insort(self.levels.setdefault(priority, {}).setdefault(job.person, []), entry)
        elif filed.entry != entry:
            jobs = self.levels[priority][job.person]
            del jobs[bisect_left(jobs, filed.entry)]
            insort(jobs, entry)
            filed.entry = entry
        for kind, orders in job.ready_of.items():
            if len(orders) == filed.counts.get(kind, 0):
                continue
            filed.counts[kind] = len(orders)
            of = self._class_of(job, kind)
            level = self.pools.setdefault(priority, {})
            if orders:
                level.setdefault(of, {})[job.id, kind] = len(orders)
            elif len(level[of]) > 1:
                del level[of][job.id, kind]
            else:
                del level[of]

    def _take_out(self, job: Job) -> None:
        filed = self._filed.pop(job.id, None)
        if filed is None:
            return
        people = self.levels[filed.priority]
        jobs = people[job.person]
        del jobs[bisect_left(jobs, filed.entry)]
        if not jobs:
            del people[job.person]
        level = self.pools[filed.priority]
        for kind, count in filed.counts.items():
            if count:
                of = self._class_of(job, kind)
                del level[of][job.id, kind]
                if not level[of]:
                    del level[of]
        if not people:
            del self.levels[filed.priority], self.pools[filed.priority]


class Round:
    """Turns given one after the other; what is kept does not change by it."""

    def __init__(self, turns: Turns[Any], state: State) -> None:
        self._turns, self._state = turns, state
        self._to_come = sorted(turns.levels)
        #: Turns given in this round, by person and by job.
        self._given: defaultdict[str, int] = defaultdict(int)
        self.position: defaultdict[str, int] = defaultdict(int)
        #: Heaps of (attempts and turns of the person, the same of its next job, number of that, person).
        self._people: list[tuple[int, int, int, str]] = []
        self._jobs: dict[str, list[_Entry]] = {}
        self.priority: int | None = None
        self._next_level()

    def next(self) -> tuple[Job, int] | None:
        """Whose turn it is, and the place of the task among the job's ready ones; None: nobody's."""
        if not self._people:
            return None
        job_id = self._jobs[self._people[0][3]][0][2]
        return self._state.jobs[job_id], self.position[job_id]

    def is_alone(self) -> bool:
        """Whether no other job of this priority has a turn to come."""
        return len(self._people) == 1 and len(self._jobs[self._people[0][3]]) == 1

    def ends_with(self, count: int) -> bool:
        """Whether so many turns of whose turn it is, alone, are the last of the round."""
        job_id = self._jobs[self._people[0][3]][0][2]
        return not self._to_come and len(self._state.jobs[job_id].ready) - self.position[job_id] == count

    def taken(self, count: int = 1) -> None:
        """It had so many turns."""
        person = self._people[0][3]
        jobs = self._jobs[person]
        running, number, job_id = jobs[0]
        self.position[job_id] += count
        self._given[person] += count
        if self.position[job_id] < len(self._state.jobs[job_id].ready):
            heapreplace(jobs, (running + count, number, job_id))
        else:
            heappop(jobs)
        self._settle(person)

    def passed_over(self) -> None:
        """It has its turn no more."""
        person = self._people[0][3]
        heappop(self._jobs[person])
        self._settle(person)

    def next_level(self) -> None:
        """On to the next lower priority."""
        self._people = []
        self._next_level()

    def _settle(self, person: str) -> None:
        jobs = self._jobs[person]
        if jobs:
            heapreplace(self._people, (self._count(person), *jobs[0][:2], person))
        else:
            heappop(self._people)
            self._next_level()

    def _next_level(self) -> None:
        while not self._people and self._to_come:
            self.priority = self._to_come.pop()
            people = self._turns.levels[self.priority]
            self._jobs = {person: list(jobs) for person, jobs in people.items()}  # sorted: a heap
            self._people = [(self._count(p), *jobs[0][:2], p) for p, jobs in self._jobs.items()]
            heapify(self._people)
        if not self._people:
            self.priority = None

    def _count(self, person: str) -> int:
        return self._turns.running[person] + self._given[person]
