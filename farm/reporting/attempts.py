"""What is told of a task's attempts, and of the workers that made those of a job. Plain, JSON-safe values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from farm.capabilities import Worker
from farm.state import Job, Task

#: Ends of an attempt that are nobody's failure.
_WITHDRAWN = ("cancelled", "coordinator_restart")


class EarlierSummary(TypedDict):
    """Older attempts of a segment that ended without a result, where there were many."""

    count: int
    #: How they ended, and how many so.
    outcomes: dict[str, int]
    #: Seconds they held their workers, together.
    held_s: float


def earlier_attempts(task: Task) -> EarlierSummary | None:
    """Of those that are only counted; None: every attempt is told whole."""
    if task.earlier is None:
        return None
    outcomes: Counter[str] = Counter()
    for (_, outcome), count in task.earlier.outcomes.items():
        outcomes[outcome] += count
    return {
        "count": task.earlier.count,
        "outcomes": dict(sorted(outcomes.items())),
        "held_s": round(task.earlier.held_s, 3),
    }


def num_failures(task: Task) -> int:
    """How many of its attempts failed."""
    return _failures(task).total()


def worker_totals(job: Job, workers: Mapping[str, Worker]) -> dict[str, dict[str, Any]]:
    """By worker, what it did for a job, in the order of their ids."""
    segments: Counter[str] = Counter()
    busy_s: dict[str, float] = {}
    failures: Counter[str] = Counter()
    for task in job.tasks.values():
        failures.update(_failures(task))
        for worker_id, _ in task.earlier.outcomes if task.earlier else ():
            segments[worker_id] += 0
        for attempt in task.attempts:
            segments[attempt.worker_id] += attempt.outcome == "succeeded"
            # Of attempts that ended well; how long the others held the worker is not kept.
            busy_s[attempt.worker_id] = busy_s.get(attempt.worker_id, 0.0) + (attempt.wall_s or 0.0)
    return {
        worker_id: {
            "kind": worker.kind if worker else None,
            "device_name": worker.device_name if worker else None,
            "vram_bytes": worker.vram_bytes if worker else None,
            "segments": count,
            "busy_s": busy_s.get(worker_id, 0.0),
            "failed_attempts": failures[worker_id],
        }
        for worker_id, count in sorted(segments.items())
        for worker in (workers.get(worker_id),)
    }


def _failures(task: Task) -> Counter[str]:
    """Of a task's attempts, those that failed, by worker."""
    found = Counter(a.worker_id for a in task.attempts if _is_failure(a.outcome))
    for (worker_id, outcome), count in task.earlier.outcomes.items() if task.earlier else ():
        if _is_failure(outcome):
            found[worker_id] += count
    return found


def _is_failure(outcome: str) -> bool:
    return outcome not in ("running", "succeeded", *_WITHDRAWN)
