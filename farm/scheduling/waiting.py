"""What a job that stands still waits for, and its place in the queue. Pure: reads a state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from farm.capabilities import Worker, why_not
from farm.scheduling.retry import barred
from farm.scheduling.schedule import able_workers
from farm.state import Job, State, Task

#: Of many workers or failures, this many are named.
NAMED = 3


@dataclass(frozen=True)
class Waiting:
    """Why nothing of a job runs, for people, and its place among the jobs that wait, from 1."""

    reason: str
    #: None: it is in no queue, but waits for its user.
    position: int | None


def waiting(state: State, job: Job) -> Waiting | None:
    """What a running job waits for; None where something of it runs, or nothing is left but joining."""
    if job.awaits_review:
        count = len(job.keyframes)
        has = f"its {count} keyframes wait" if count > 1 else "its keyframe waits"
        return Waiting(f"{has} for you; `farm review {job.id}` shows {'them' if count > 1 else 'it'}", None)
    if not _waits(job):
        return None
    task = job.tasks[job.order[job.ready[0]]]
    return Waiting(_reason(state, job, task), _position(state, job))


def _waits(job: Job) -> bool:
    return job.status == "running" and not job.num_running and bool(job.ready)


def _position(state: State, job: Job) -> int:
    """As the schedule takes turns: by priority, then by who came first."""
    ahead = 1
    behind = False
    for other in state.jobs.values():
        if other is job:
            behind = True
        elif _waits(other):
            higher = other.request.priority - job.request.priority
            ahead += higher > 0 or (higher == 0 and not behind)
    return ahead


def _reason(state: State, job: Job, task: Task) -> str:
    able = able_workers(state, job, task)
    out = barred(task, able)
    allowed = [worker_id for worker_id in able if worker_id not in out]
    if allowed:
        return _turn(state, task, allowed) + _failures(task, out)
    draining = [w.worker for w in state.workers.values() if w.draining]
    off = [*draining, *state.drained.values(), *state.starting.values()]
    here = [w.usable for w in state.workers.values() if not w.draining]
    if not off and not here:
        return "no worker is here; `farm join` on a machine brings its cards"

    def refused(worker: Worker) -> str | None:
        return why_not(state.profiles.needs(job.plan, task.segment, worker.kind), worker)

    fitting = [worker for worker in off if not refused(worker)]
    starting = [worker.id for worker in fitting if worker.id in state.starting]
    if starting:
        return f"{_names(starting)} is starting"
    if fitting:
        return _drained(state, fitting)
    largest = max((*here, *off), key=lambda worker: (worker.vram_bytes, worker.id))
    filled = (w for w in state.workers.values() if w.limited and not refused(w.worker))
    others = "".join(f"; {w.worker.id} could, and {w.others_words}" for w in islice(filled, NAMED))
    return f"no worker here can hold segment {task.id}: {refused(largest)}{others}"


def _turn(state: State, task: Task, allowed: Sequence[str]) -> str:
    """Where somebody can take it: who, and why that is not now."""
    free = [worker_id for worker_id in allowed if not state.workers[worker_id].attempts]
    busy = [worker_id for worker_id in allowed if state.workers[worker_id].attempts]
    if not free:
        return f"{_names(busy)} can take it and {'are' if len(busy) > 1 else 'is'} busy"
    if not busy:
        return f"segment {task.id} goes to {free[0]} next"
    return f"{_names(busy)}, busy now, will finish segment {task.id} sooner than {_names(free)}"


def _drained(state: State, workers: Sequence[Worker]) -> str:
    """Every worker that could take it is drained, or about to be."""
    known = (*(w.worker for w in state.workers.values()), *state.drained.values(), *state.starting.values())
    here = {worker.id for worker in workers}
    first = workers[0]
    whole = all(worker.id in here for worker in known if worker.node == first.node)
    is_drained = "drained" if first.id in state.drained else "draining"
    names = _names([worker.id for worker in workers])
    verb = f"are all {is_drained}" if len(workers) > 1 else f"is {is_drained}"
    return f"{names} could take it and {verb}; `farm enable {first.node if whole else first.id}` ends that"


def _failures(task: Task, out: Iterable[str]) -> str:
    last = {failure.worker_id: failure.message for failure in task.failures}
    told = "; ".join(f"{worker_id}: {last[worker_id]}" for worker_id in sorted(out)[:NAMED])
    return f"; the others have failed it ({told})" if told else ""


def _names(ids: Sequence[str]) -> str:
    ids = sorted(ids)
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
