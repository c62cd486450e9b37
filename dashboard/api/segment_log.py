"""The story of one segment as text: what the farm recorded, and what its workers noted meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dashboard.files import TaskEvent
from farm.capabilities import gib

#: Before these stand the worker's own lines.
_ENDS = ("attempt_succeeded", "attempt_failed", "result_refused")


def segment_log(task_id: str, events: Sequence[TaskEvent], worker_logs: Mapping[int, str]) -> str:
    """One line for every event, in order; before the end of an attempt, indented, its worker's lines.

    Args:
        events: of this segment, oldest first.
        worker_logs: by number of the attempt, counted from 1.
    """
    return "".join(f"{line}\n" for line in _lines(task_id, events, worker_logs))


def attempt_number(attempt_id: str) -> int:
    """``job-…/f3/2`` -> 2."""
    return int(attempt_id.rpartition("/")[2])


def _lines(task_id: str, events: Sequence[TaskEvent], worker_logs: Mapping[int, str]) -> Iterator[str]:
    told: set[int] = set()
    for event in events:
        if event.type in _ENDS:
            number = attempt_number(event.body["attempt_id"])
            if number not in told:
                told.add(number)
                yield from (f"    {line}" for line in worker_logs.get(number, "").splitlines())
        yield f"{_time(event.at)} {_said(task_id, event)}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _said(task_id: str, event: TaskEvent) -> str:
    body = event.body
    match event.type:
        case "task_assigned":
            return (
                f"{_attempt(body)} goes to {body['worker_id']} at {body['rung']}: needs "
                f"{gib(body['need_bytes'])}, about {body['predicted_s']:.1f} s; {body['why']}"
            )
        case "attempt_succeeded":
            artifact = body["artifact"]
            return (
                f"{_attempt(body)} is done in {body['wall_s']:.1f} s, {body['load_s']:.1f} s of it loading: "
                f"{artifact['num_frames']} frames, {artifact['size_bytes']} bytes"
            )
        case "attempt_failed":
            return f"{_attempt(body)} ended ({body['kind']}): {body['message']}"
        case "result_refused":
            return f"{_attempt(body)} came too late: {body['reason']}"
        case "seam_measured":
            gates = ", ".join(body["report"]["failed_gates"])
            return f"take {body['take']}: the seam " + (f"fails {gates}" if gates else "passes")
        case "seam_accepted":
            return f"take {body['take']} is kept"
        case "task_reopened":
            return f"take {body['take']} is rendered next: {body['reason']}"
        case "keyframes_remade" if task_id in body["takes"]:
            return f"take {body['takes'][task_id]} is rendered next, with seed {body['seed']}"
        case "keyframe_replaced" if task_id in body["takes"]:
            return f"take {body['takes'][task_id]} is rendered next: what it is made from was replaced"
        case "keyframe_replaced":
            return f"a picture stands for its frame {body['position']}" + (
                "" if body["media"] else " no more"
            )
        case "job_reopened":
            return f"take {body['takes'][task_id]} is rendered next: somebody asked for it"
    return event.type


def _attempt(body: Mapping[str, Any]) -> str:
    return f"attempt {attempt_number(body['attempt_id'])}"
