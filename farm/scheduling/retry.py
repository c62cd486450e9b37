"""What to do after something failed. Pure: a decision is a value, and nothing sleeps in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from farm.capabilities import why_not
from farm.planning import Phase
from farm.state import FailureKind, Job, Seam, State, Task

#: Different failed tries (OOM and withdrawals are not failures) after which a task stops its job.
MAX_FAILURES = 3
#: A segment is rendered this many times at most because its seam failed.
MAX_TAKES = 3

#: Seconds without a sign of life, by phase, before an attempt counts as stalled. Denoising is judged by
#: its own prediction as well: a step of a large task may take long.
STALL_S: dict[Phase, float] = {
    # The farm's machine hashes a model before it gives it: a second for each GB, once.
    "fetch": 900.0,
    "load": 900.0,
    "encode": 120.0,
    "denoise": 60.0,
    "decode": 120.0,
    "transfer": 120.0,
}
STALL_PREDICTIONS = 3.0


#: Failures that say nothing against the worker: one that was lost comes back as a fresh process, and one that
#: ran out of memory has a smaller rung, for the need was raised.
_FORGIVEN: frozenset[FailureKind] = frozenset({"lost", "oom"})


def barred(task: Task, able: Collection[str]) -> frozenset[str]:
    """Of the workers that can hold a task, those that may not try it now: another has failed it less often.

    So no task waits behind bars alone: where all have failed it, those that did least may try once more, a
    single worker always, until ``after_failure`` stops the job.
    """
    failures = Counter(f.worker_id for f in task.failures if f.kind not in _FORGIVEN)
    least = min((failures[worker_id] for worker_id in able), default=0)
    return frozenset(worker_id for worker_id in able if failures[worker_id] > least)


@dataclass(frozen=True)
class TryAgain:
    """The task is ready again; the schedule leaves out the workers that are barred from it."""


@dataclass(frozen=True)
class StopJob:
    reason: str


def after_failure(state: State, job: Job, task: Task) -> TryAgain | StopJob:
    """Elsewhere, on the same worker where there is no other, or stop with the reason.

    Every attempt brings a task nearer to its end: a failure counts towards ``MAX_FAILURES``, running out of
    memory raises its need, and a refusal to start is the last once no worker is left that has not refused.
    """
    blamed = [f for f in task.failures if f.kind not in ("oom", "cannot_start")]
    if len(blamed) >= MAX_FAILURES:
        tries = "; ".join(f"{f.worker_id}: {f.message}" for f in blamed[-MAX_FAILURES:])
        return StopJob(f"segment {task.id} failed {len(blamed)} times ({tries})")
    here = [w.worker for w in state.workers.values() if not w.draining]
    # Only these two say anew who can hold it. Whoever was lost comes back, and may be the only one.
    if not here or not task.failures or task.failures[-1].kind not in ("oom", "cannot_start"):
        return TryAgain()
    refused = {f.worker_id: f.message for f in task.failures if f.kind == "cannot_start"}
    refusals = []
    for worker in here:
        too_small = why_not(state.profiles.needs(job.plan, task.segment, worker.kind), worker)
        if not too_small and worker.id not in refused:
            return TryAgain()
        refusals.append(too_small or f"{worker.id} refused it: {refused[worker.id]}")
    return StopJob(f"no worker is left for segment {task.id} ({'; '.join(refusals)})")


def why_not_retried(state: State, job: Job) -> str | None:
    """Why a retry of this job would do nothing or harm; None for one that failed, was cancelled or waits."""
    if job.status == "succeeded":
        return "is succeeded; only a job that failed, was cancelled or waits can be retried"
    if job.status == "running" and job.num_running:
        return (
            "is running and a worker is at it; only a job that failed, was cancelled or waits can be retried"
        )
    if job.awaits_review:
        return f"waits for you to look at its keyframes; `farm review {job.id}` shows them"
    failed = any(task.failures for task in job.tasks.values())
    if job.status == "running" and job.ready and not state.workers and not failed:
        return "waits for a worker, and no worker is here; `farm join` on a machine brings its cards"
    return None


def stall_limit_s(phase: str, predicted_s: float) -> float:
    """How long an attempt may be silent in this phase."""
    limit = next((s for p, s in STALL_S.items() if p == phase), STALL_S["denoise"])
    return max(limit, STALL_PREDICTIONS * predicted_s)


@dataclass(frozen=True)
class Rerender:
    """Render the later segment again as this take."""

    take: int
    reason: str


def after_fill(task: Task, *, may_rerender: bool) -> Rerender | None:
    """Render a window between given frames again that gets badly from one to the other, or leave it. Asked
    where no seam is before it; else its gates count with the seam's."""
    artifact = task.artifact
    failed = artifact.fill.failed_gates if artifact is not None and artifact.fill is not None else ()
    if not failed or not may_rerender or len(task.artifacts) >= MAX_TAKES:
        return None
    return Rerender(task.next_take, f"gates failed: {', '.join(failed)}")


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
