"""What to do after something failed. Pure: a decision is a value, and nothing sleeps in here."""

from __future__ import annotations

from dataclasses import dataclass

from farm.capabilities import why_not
from farm.planning import Phase
from farm.scheduling.schedule import failed_workers
from farm.state import Job, Seam, State, Task

#: Different failed tries (OOM and withdrawals are not failures) after which a task stops its job.
MAX_FAILURES = 3
#: A segment is rendered this many times at most because its seam failed.
MAX_TAKES = 3

#: Seconds without a sign of life, by phase, before an attempt counts as stalled. Denoising is judged by
#: its own prediction as well: a step of a large task may take long.
STALL_S: dict[Phase, float] = {
    "load": 900.0,
    "encode": 120.0,
    "denoise": 60.0,
    "decode": 120.0,
    "transfer": 120.0,
}
STALL_PREDICTIONS = 3.0


@dataclass(frozen=True)
class TryAgain:
    """The task is ready again; the schedule leaves out the workers that failed it."""


@dataclass(frozen=True)
class StopJob:
    reason: str


def after_failure(state: State, job: Job, task: Task) -> TryAgain | StopJob:
    """Elsewhere, or stop with the reason."""
    blamed = [f for f in task.failures if f.kind not in ("oom", "cannot_start")]
    if len(blamed) >= MAX_FAILURES:
        tries = "; ".join(f"{f.worker_id}: {f.message}" for f in blamed[-MAX_FAILURES:])
        return StopJob(f"segment {task.id} failed {len(blamed)} times ({tries})")
    if not state.workers:
        return TryAgain()
    failed_on = failed_workers(task)
    refusals = []
    for worker_state in state.workers.values():
        worker = worker_state.worker
        too_small = why_not(state.profiles.needs(job.plan, task.segment, worker.kind), worker)
        if not too_small and worker.id not in failed_on:
            return TryAgain()
        refusals.append(too_small or f"{worker.id} failed it: {_last_message(task, worker.id)}")
    return StopJob(f"no worker is left for segment {task.id} ({'; '.join(refusals)})")


def _last_message(task: Task, worker_id: str) -> str:
    return next(f.message for f in reversed(task.failures) if f.worker_id == worker_id)


def stall_limit_s(phase: str, predicted_s: float) -> float:
    """How long an attempt may be silent in this phase."""
    limit = next((s for p, s in STALL_S.items() if p == phase), STALL_S["denoise"])
    return max(limit, STALL_PREDICTIONS * predicted_s)


@dataclass(frozen=True)
class Rerender:
    """Render the later segment again as this take."""

    take: int
    reason: str


@dataclass(frozen=True)
class Keep:
    """Join with this take; ``reason`` is empty when its gates passed."""

    take: int
    reason: str = ""


def after_seam(seam: Seam, *, may_rerender: bool) -> Rerender | Keep:
    """Take the join, render the segment again with other noise, or keep the best take and say so."""
    may_rerender = may_rerender and not seam.keeps_segment
    newest = max(seam.measured)
    if seam.measured[newest].passed:
        return Keep(newest)
    failed = ", ".join(seam.measured[newest].report["failed_gates"])
    if may_rerender and len(seam.measured) < MAX_TAKES:
        return Rerender(newest + 1, f"seam gates failed: {failed}")
    best = min(seam.measured, key=lambda take: (len(seam.measured[take].report["failed_gates"]), take))
    failed = ", ".join(seam.measured[best].report["failed_gates"])
    return Keep(best, f"kept with failed gates after {len(seam.measured)} takes: {failed}")
