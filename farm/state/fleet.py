"""The workers as columns of numbers, a row each in the order of their ids: what the schedule reads of them.

Kept with the state and changed by the events that change a worker, a row at a time (``farm.state.index``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping
from math import inf

import numpy as np
from numpy.typing import NDArray

from farm.capabilities import DeviceKind, Rung, Worker, fitting_rungs
from farm.planning import Plan, Segment
from farm.state.profiles import Pace, Profiles, pace
from farm.state.state import Attempt, State
from farm.state.workers import WorkerState

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class TaskClass:
    """Tasks that are as much work as each other, of any job: what one of them takes on every worker."""

    def __init__(self, plan: Plan, sample: Segment) -> None:
        self._plan, self._sample = plan, sample
        self.rendered_as = plan.rendered_as(sample)
        #: The model that a worker has loaded which renders one of them.
        self.model = self.rendered_as.loaded_as
        self.is_text = sample.level == "text"
        #: Seconds of one, the model brought there if need be; infinite where none may go. A row a worker.
        self.run_s: Floats = np.empty(0)
        #: How many may take one.
        self.num_able = 0
        #: By what a worker has: the fastest rung that fits and what it needs.
        self._held: dict[tuple[DeviceKind, int, int | None], tuple[Rung, int] | None] = {}
        self._pace: dict[DeviceKind, Pace] = {}

    def holding(self, profiles: Profiles, worker: Worker) -> tuple[Rung, int] | None:
        """The fastest rung that fits and the bytes it needs there; None where none does."""
        has = (worker.kind, worker.vram_bytes, worker.host_bytes)
        if has not in self._held:
            needs = profiles.needs(self._plan, self._sample, worker.kind)
            rungs = fitting_rungs(needs, worker)
            self._held[has] = (rungs[0], needs[rungs[0]].vram_bytes) if rungs else None
        return self._held[has]

    def needs_changed(self) -> None:
        """A card ran out of memory: who can hold one is asked anew."""
        self._held.clear()

    def loaded_s(self, profiles: Profiles, worker: Worker) -> float:
        """What one takes on a worker that has the model loaded; infinite where it does not fit."""
        held = self.holding(profiles, worker)
        return inf if held is None else profiles.seconds_of(self.pace(worker.kind), worker, held[0])

    def pace(self, kind: DeviceKind) -> Pace:
        """What the time of one on a kind of worker is worked out from."""
        if kind not in self._pace:
            self._pace[kind] = pace(self._plan, self._sample, kind)
        return self._pace[kind]

    def seconds(self, profiles: Profiles, worker_state: WorkerState) -> float:
        """What one takes on this worker, begun now; infinite where it may not go."""
        if worker_state.draining:
            return inf
        worker = worker_state.usable
        run_s = self.loaded_s(profiles, worker)
        if run_s < inf and worker_state.warm_model != self.model and not self.is_text:
            run_s += profiles.bringing_s(self.rendered_as, worker, worker_state.models)
        return run_s


def class_key(plan: Plan, sample: Segment) -> tuple[object, ...]:
    """Equal for segments that take as long and as many bytes on any one worker."""
    here = plan.rendered_as(sample)
    is_text = sample.level == "text"
    return (
        here.loaded_as,
        (here.width, here.height, sample.num_frames, is_text),
        *(
            (kind, footprint.model_dump_json(), plan.timed_units(sample, kind))
            for kind, footprint in sorted((here.text_on if is_text else here.on).items())
        ),
    )


class Fleet:
    """Every worker that is here. Rows move when one joins or leaves: they are good for one look."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.ids: list[str] = sorted(state.workers)
        count = len(self.ids)
        #: May be given something now.
        self.idle: Bools = np.zeros(count, bool)
        self.busy: Bools = np.zeros(count, bool)
        #: Of the attempt there: when it was given, what was predicted and when it ends by that; ...
        self.given_at: Floats = np.zeros(count)
        self.predicted_s: Floats = np.zeros(count)
        self.ends_at: Floats = np.full(count, -np.inf)
        #: ... and, once it told of its steps, when the first began and how many are done.
        self.num_told = 0
        self.has_told: Bools = np.zeros(count, bool)
        self.denoising_since: Floats = np.zeros(count)
        self.done_fraction: Floats = np.ones(count)
        #: The manieth to have joined.
        self.joined: NDArray[np.int64] = np.zeros(count, np.int64)
        self._num_joined = 0
        self._warm: dict[str, str | None] = {}
        #: Numbers of what a device is called, and of all that times depend on of whom nothing is measured.
        self.device: NDArray[np.int64] = np.zeros(count, np.int64)
        self.like: NDArray[np.int64] = np.zeros(count, np.int64)
        self._numbers: dict[Hashable, int] = {}
        #: By model, who was timed rendering with it, and loading it.
        self._timed: dict[str, Bools] = {}
        self._loaded: dict[str, Bools] = {}
        #: Those with more than one attempt, which no schedule makes and old journals may tell of.
        self._several: set[str] = set()
        self.classes: dict[tuple[object, ...], TaskClass] = {}
        for worker_id in state.workers:
            self._joins(worker_id)
            self.read(worker_id)

    def row(self, worker_id: str) -> int:
        return bisect_left(self.ids, worker_id)

    def class_of(self, plan: Plan, sample: Segment) -> TaskClass:
        """The class that a segment belongs to."""
        key = class_key(plan, sample)
        found = self.classes.get(key)
        if found is None:
            found = self.classes[key] = TaskClass(plan, sample)
            self._fill(found)
        return found

    def keep_classes(self, used: set[int]) -> None:
        """Forget the classes that no task is of any more; ``used``: ids of the objects."""
        self.classes = {key: kept for key, kept in self.classes.items() if id(kept) in used}

    # What events change.

    def join(self, worker_id: str) -> None:
        row = self.row(worker_id)
        self.ids.insert(row, worker_id)
        for name in _COLUMNS:
            setattr(self, name, np.insert(getattr(self, name), row, 0))
        for known in self.classes.values():
            known.run_s = np.insert(known.run_s, row, np.inf)
        for timed, figures in self._known():
            for model, own in timed.items():
                timed[model] = np.insert(own, row, (worker_id, model) in figures)
        self._joins(worker_id)
        self.read(worker_id)
        self.speed_changed(worker_id)

    def leave(self, worker_id: str) -> None:
        row = self.row(worker_id)
        if row == len(self.ids) or self.ids[row] != worker_id:
            return  # it was starting, and never here
        self._tell(row, None)
        del self.ids[row]
        self._several.discard(worker_id)
        del self._warm[worker_id]
        for timed, _ in self._known():
            for model, own in timed.items():
                timed[model] = np.delete(own, row)
        for name in _COLUMNS:
            setattr(self, name, np.delete(getattr(self, name), row))
        for known in self.classes.values():
            known.num_able -= int(known.run_s[row] < np.inf)
            known.run_s = np.delete(known.run_s, row)

    def read(self, worker_id: str) -> None:
        """What a worker does has changed."""
        worker = self._state.workers[worker_id]
        row = self.row(worker_id)
        at_work = [a for _, _, a in self._state.running_on(worker) if not a.handing_over]
        is_busy = bool(at_work)
        self.busy[row] = is_busy
        self.idle[row] = not is_busy and not worker.draining
        if self.has_told[row]:
            self._tell(row, None)
        self.ends_at[row] = -inf
        for attempt in at_work:
            self.given_at[row] = attempt.given_at
            self.predicted_s[row] = attempt.predicted_s
            self.ends_at[row] = attempt.given_at + attempt.predicted_s
            if attempt.done_fraction > 0:
                self._tell(row, attempt)
        if len(at_work) > 1:
            self._several.add(worker_id)
        elif self._several:
            self._several.discard(worker_id)

    def hear(self, attempt: Attempt) -> None:
        """An attempt that runs has told how far it is."""
        self._tell(self.row(attempt.worker_id), attempt)

    def _tell(self, row: int, attempt: Attempt | None) -> None:
        told = attempt is not None and attempt.done_fraction > 0 and attempt.denoising_since is not None
        self.num_told += int(told) - int(self.has_told[row])
        self.has_told[row] = told
        if told:
            assert attempt is not None
            self.denoising_since[row] = attempt.denoising_since
            self.done_fraction[row] = attempt.done_fraction

    def warmed(self, worker_id: str) -> None:
        """A worker may have another model loaded than before."""
        before, after = self._warm.get(worker_id), self._state.workers[worker_id].warm_model
        if before != after:
            self._warm[worker_id] = after
            self._compare(worker_id)
            self._ask(self.row(worker_id), before, after)

    def speed_changed(self, worker_id: str) -> None:
        """How long tasks take on a worker is asked anew."""
        self._compare(worker_id)
        self._ask(self.row(worker_id))

    def _ask(self, row: int, *models: str | None) -> None:
        """How long tasks (of these models; of all) take there."""
        worker = self._state.workers[self.ids[row]]
        for known in self.classes.values():
            if not models or known.model in models:
                before, known.run_s[row] = known.run_s[row], known.seconds(self._state.profiles, worker)
                known.num_able += int(known.run_s[row] < np.inf) - int(before < np.inf)

    def measured(self, worker_id: str, model: str, *, loaded: bool) -> None:
        """A task of a model was timed on a worker; of others of its kind, as much is expected."""
        row = self.row(worker_id)
        self._ask(row, model)
        for timed, figures in self._known():
            if model not in timed:
                timed[model] = np.array([(each, model) in figures for each in self.ids])
            timed[model][row] = (worker_id, model) in figures
        known = (self._loaded if loaded else self._timed)[model]
        if known.all():
            return
        others = ((self.device == self.device[row]) & ~known).nonzero()[0]
        self._ask_alike(others[~self._timed[model][others]], model)
        for other in others[self._timed[model][others]]:  # that never had to load it
            self._ask(int(other), model)

    def _ask_alike(self, rows: NDArray[np.int64], model: str) -> None:
        """How long tasks of a model take on workers of whom nothing was timed with it: one for all alike."""
        workers, like = self._state.workers, self.like[rows]
        for number in np.unique(like):
            own = rows[like == number]
            worker = workers[self.ids[int(own[0])]]
            for known in self.classes.values():
                if known.model == model:
                    run_s = known.seconds(self._state.profiles, worker)
                    num_before = np.count_nonzero(known.run_s[own] < np.inf)
                    known.run_s[own] = run_s
                    known.num_able += int(own.size * (run_s < np.inf) - num_before)

    def needs_changed(self, model: str) -> None:
        """Tasks of a model turned out to need more memory."""
        for known in self.classes.values():
            if known.model == model:
                known.needs_changed()
                self._fill(known)

    # What the schedule asks.

    def free_at(self, now: float) -> Floats:
        """When each is done with what it does, as ``remaining_s`` of it has it."""
        free = np.maximum(self.ends_at, now)  # those that do nothing are free now
        late = (self.busy & (self.ends_at < now)).nonzero()[0]
        if late.size:
            free[late] = now + (now - self.given_at[late])
        if self.num_told:
            told = self.has_told.nonzero()[0]
            done = self.done_fraction[told]
            free[told] = now + (now - self.denoising_since[told]) * (1 - done) / done
        for worker_id in self._several:
            free[self.row(worker_id)] = now + sum(
                remaining_s(attempt, now)
                for _, _, attempt in self._state.running_on(self._state.workers[worker_id])
            )
        return free

    def _fill(self, known: TaskClass) -> None:
        workers, profiles = self._state.workers, self._state.profiles
        known.run_s = np.array([known.seconds(profiles, workers[worker_id]) for worker_id in self.ids])
        known.num_able = int((known.run_s < np.inf).sum())

    def _joins(self, worker_id: str) -> None:
        worker = self._state.workers[worker_id]
        self._warm[worker_id] = worker.warm_model
        self._compare(worker_id)
        self.joined[self.row(worker_id)] = self._num_joined
        self._num_joined += 1

    def _compare(self, worker_id: str) -> None:
        """Whom a worker is like."""
        state = self._state.workers[worker_id]
        worker, row = state.usable, self.row(worker_id)
        has = (worker.device_name, worker.kind, worker.vram_bytes, worker.host_bytes)
        on_disk = None if state.models is None else frozenset(state.models)
        alike = (*has, state.draining, state.warm_model, on_disk)
        self.device[row] = self._numbers.setdefault(worker.device_name, len(self._numbers))
        self.like[row] = self._numbers.setdefault(alike, len(self._numbers))

    def _known(self) -> tuple[tuple[dict[str, Bools], Mapping[tuple[str, str], float]], ...]:
        profiles = self._state.profiles
        return (self._timed, profiles.seconds_per_unit), (self._loaded, profiles.load_s)


_COLUMNS = (
    "idle",
    "busy",
    "given_at",
    "predicted_s",
    "ends_at",
    "has_told",
    "denoising_since",
    "done_fraction",
    "device",
    "like",
    "joined",
)


def remaining_s(attempt: Attempt, now: float) -> float:
    """Predicted seconds an attempt still keeps its worker: from its own steps, loading left out, once there
    are some."""
    if attempt.handing_over:
        return 0.0
    elapsed = now - attempt.given_at
    if attempt.done_fraction > 0 and attempt.denoising_since is not None:
        return (now - attempt.denoising_since) * (1 - attempt.done_fraction) / attempt.done_fraction
    # Overdue without a sign of progress: as long again as it took so far.
    return max(attempt.predicted_s - elapsed, elapsed if elapsed > attempt.predicted_s else 0.0)
