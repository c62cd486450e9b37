"""The legal changes of status, as data. A pair that is not here is refused with its story."""

from __future__ import annotations

from typing import Literal

TaskStatus = Literal["waiting", "ready", "running", "done"]
JobStatus = Literal["running", "succeeded", "failed", "cancelled"]

#: (status before, event) -> status after. ``ready`` after a failure is decided by what is still running.
TASK_TRANSITIONS: dict[tuple[TaskStatus, str], TaskStatus] = {
    ("waiting", "dependencies_done"): "ready",
    ("ready", "task_assigned"): "running",
    ("running", "task_assigned"): "running",  # a second copy of a straggler
    ("running", "attempt_succeeded"): "done",
    ("running", "attempt_failed"): "ready",
    ("done", "task_reopened"): "ready",
    ("done", "job_reopened"): "ready",
    ("ready", "dependency_reopened"): "waiting",
}

JOB_TRANSITIONS: dict[tuple[JobStatus, str], JobStatus] = {
    ("running", "job_published"): "succeeded",
    ("running", "job_failed"): "failed",
    ("running", "job_cancelled"): "cancelled",
    ("running", "job_retried"): "running",  # while nothing of it runs
    ("failed", "job_retried"): "running",
    ("cancelled", "job_retried"): "running",
    ("running", "job_reopened"): "running",
    ("succeeded", "job_reopened"): "running",
    ("failed", "job_reopened"): "running",
    ("cancelled", "job_reopened"): "running",
}

#: Statuses after which nothing happens to a job by itself.
FINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})
