"""Which task goes to which worker. Pure: ``schedule(state, now)`` reads a state and returns assignments.

Feasible (the need fits the worker at some rung, none that fits has failed the task less often) -> earliest
predicted finish over all workers, busy ones included: a slow card is left idle when a fast one, busy
now, would still finish the task sooner. Jobs share the farm by priority, then evenly. An idle worker
with nothing else to do takes a second copy of a straggler that it would finish sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from farm.capabilities import Rung, fitting_rungs, gib, why_not
from farm.scheduling.retry import barred
from farm.state import Attempt, Job, State, Task, WorkerState

#: Tasks looked at per worker and round: past this the slower workers are left to the next round.
LOOKAHEAD_PER_WORKER = 32
#: A copy is made when the idle worker would be done this much sooner than the straggler...
COPY_GAIN = 1.5
#: ...and the straggler has run for at least this share of its prediction.
COPY_AFTER = 1.0
#: No copies of tasks shorter than this: the first is about to end anyway.
COPY_MIN_S = 1.0


@dataclass(frozen=True)
class Assignment:
    job_id: str
    task_id: str
    worker_id: str
    rung: Rung
    need_bytes: int
    predicted_s: float
    why: str


@dataclass(frozen=True)
class Offer:
    """One worker's best way to run a task."""

    worker: WorkerState
    rung: Rung
    need_bytes: int
    run_s: float


def schedule(state: State, now: float) -> list[Assignment]:
    """Assignments for the idle workers, to be carried out as they stand."""
    idle = {w.worker.id for w in state.workers.values() if not w.draining and not w.attempts}
    if not idle:
        return []
    free_at = {w.worker.id: _free_at(state, w, now) for w in state.workers.values() if not w.draining}
    offers_of: dict[tuple[str, tuple[int, int, bool, bool]], list[Offer]] = {}
    assignments = []
    budget = LOOKAHEAD_PER_WORKER * len(free_at)
    fits_nowhere: set[str] = set()
    for job, task in _in_turn(state, fits_nowhere):
        if not idle or budget == 0:
            break
        key = (job.id, job.plan.kind_of(task.segment))
        if key not in offers_of:
            offers_of[key] = offers(state, job, task)
        if not offers_of[key]:
            fits_nowhere.add(job.id)
            continue
        budget -= 1
        candidates = _allowed(task, offers_of[key])
        by_finish = sorted(
            candidates, key=lambda o: (free_at[o.worker.worker.id] + o.run_s, o.worker.worker.id)
        )
        best = by_finish[0]
        worker_id = best.worker.worker.id
        free_at[worker_id] += best.run_s
        if worker_id in idle:
            idle.discard(worker_id)
            assignments.append(_assignment(job, task, best, _why(best, by_finish, free_at)))
    if idle:
        assignments += _copies(state, idle, now)
    return assignments


def offers(state: State, job: Job, task: Task) -> list[Offer]:
    """Every worker's fastest fitting rung for this task, draining workers left out."""
    found = []
    for worker_state in state.workers.values():
        if worker_state.draining:
            continue
        worker = worker_state.worker
        needs = state.profiles.needs(job.plan, task.segment, worker.kind)
        rungs = fitting_rungs(needs, worker)
        if rungs:
            run_s = state.profiles.render_s(job.plan, task.segment, worker, rungs[0])
            rendered_as = job.plan.rendered_as(task.segment)
            if worker_state.warm_model != rendered_as.loaded_as and task.segment.level != "text":
                run_s += state.profiles.loading_s(rendered_as, worker)
            found.append(Offer(worker_state, rungs[0], needs[rungs[0]].vram_bytes, run_s))
    return found


def _allowed(task: Task, found: list[Offer]) -> list[Offer]:
    """The offers of the workers that may try it: some, where there are any."""
    if not task.failures:
        return found
    out = barred(task, [offer.worker.worker.id for offer in found])
    return [offer for offer in found if offer.worker.worker.id not in out]


def explain(state: State, job: Job, task: Task) -> dict[str, str]:
    """For each worker, why the task does or does not run there."""
    said = {}
    out = barred(task, [offer.worker.worker.id for offer in offers(state, job, task)])
    for worker_state in state.workers.values():
        worker = worker_state.worker
        needs = state.profiles.needs(job.plan, task.segment, worker.kind)
        if worker_state.draining:
            said[worker.id] = "is draining"
        elif refused := why_not(needs, worker):
            said[worker.id] = refused.removeprefix(f"{worker.id} ")
        elif worker.id in out:
            failure = next(f for f in reversed(task.failures) if f.worker_id == worker.id)
            said[worker.id] = f"has failed this task: {failure.message}"
        elif worker_state.attempts:
            said[worker.id] = "is busy"
        else:
            said[worker.id] = f"can take it at {fitting_rungs(needs, worker)[0]}"
    return said


def _in_turn(state: State, passed_over: set[str]) -> Iterator[tuple[Job, Task]]:
    """Ready tasks: highest priority first, then the job with the least running, then plan order.

    A job that is put into ``passed_over`` on the way has its turn no more.
    """
    queue = [
        (-job.request.priority, job.num_running, number, 0, job)
        for number, job in enumerate(state.jobs.values())
        if job.status == "running" and job.ready
    ]
    heapify(queue)
    while queue:
        priority, running, number, position, job = queue[0]
        yield job, job.tasks[job.order[job.ready[position]]]
        if position + 1 < len(job.ready) and job.id not in passed_over:
            heapreplace(queue, (priority, running + 1, number, position + 1, job))
        else:
            heappop(queue)


def remaining_s(attempt: Attempt, now: float) -> float:
    """Predicted seconds an attempt still takes: from its own steps, loading left out, once there are some."""
    elapsed = now - attempt.given_at
    if attempt.done_fraction > 0 and attempt.denoising_since is not None:
        return (now - attempt.denoising_since) * (1 - attempt.done_fraction) / attempt.done_fraction
    # Overdue without a sign of progress: as long again as it took so far.
    return max(attempt.predicted_s - elapsed, elapsed if elapsed > attempt.predicted_s else 0.0)


def _free_at(state: State, worker: WorkerState, now: float) -> float:
    return now + sum(remaining_s(attempt, now) for _, _, attempt in state.running_on(worker))


def _copies(state: State, idle: set[str], now: float) -> list[Assignment]:
    copies = []
    for job in state.jobs.values():
        if job.status != "running" or not job.num_running:
            continue
        for attempt, task in _stragglers(state, job, now):
            left = remaining_s(attempt, now)
            able = [
                o
                for o in _allowed(task, offers(state, job, task))
                if o.worker.worker.id in idle and o.run_s * COPY_GAIN < left
            ]
            if able:
                best = min(able, key=lambda o: (o.run_s, o.worker.worker.id))
                idle.discard(best.worker.worker.id)
                why = f"second copy: done in {best.run_s:.1f} s, {attempt.worker_id} needs {left:.1f} s more"
                copies.append(_assignment(job, task, best, why))
    return copies


def _stragglers(state: State, job: Job, now: float) -> Iterator[tuple[Attempt, Task]]:
    for worker in state.workers.values():
        for attempt_id, (job_id, task_id) in worker.attempts.items():
            if job_id != job.id:
                continue
            task = job.tasks[task_id]
            running = task.running_attempts
            if task.status != "running" or len(running) != 1 or running[0].id != attempt_id:
                continue
            elapsed = now - running[0].given_at
            if elapsed >= max(COPY_MIN_S, COPY_AFTER * running[0].predicted_s):
                yield running[0], task


def _assignment(job: Job, task: Task, offer: Offer, why: str) -> Assignment:
    return Assignment(
        job_id=job.id,
        task_id=task.id,
        worker_id=offer.worker.worker.id,
        rung=offer.rung,
        need_bytes=offer.need_bytes,
        predicted_s=offer.run_s,
        why=why,
    )


def _why(best: Offer, by_finish: list[Offer], free_at: dict[str, float]) -> str:
    fits = f"{best.rung} fits ({gib(best.need_bytes)} of {gib(best.worker.worker.vram_bytes)})"
    if len(by_finish) == 1:
        return f"{fits}; the only worker that can"
    second = by_finish[1]
    ahead = free_at[second.worker.worker.id] + second.run_s - free_at[best.worker.worker.id]
    return f"{fits}; done {max(ahead, 0):.1f} s before {second.worker.worker.id}"
