"""One farm of this machine: a short job that brings the model to every worker, then the timed one."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.capabilities import Worker
from farm.reporting import Span, idle_s, idle_share, worker_spans
from farm.running import Coordinator
from farm.state import (
    AttemptFailed,
    AttemptSucceeded,
    JobPublished,
    JobSubmitted,
    TaskAssigned,
    WorkerJoined,
)
from nodes.hosting import described
from nodes.hosting.host import local_farm, workers_up

#: Short jobs until every worker has the model; whoever was passed over then loads it in the timed one.
MAX_WARM_UPS = 3


@dataclass(frozen=True)
class Case:
    """A farm and what it renders."""

    name: str
    workers: tuple[Worker, ...]
    #: Input and options (see ``JobRequest``) of the timed job, and of the short one before it.
    timed: tuple[Path, Mapping[str, Any]]
    short: tuple[Path, Mapping[str, Any]]
    #: This worker's process is ended when half of the timed job is rendered.
    killed: str | None = None


@dataclass(frozen=True)
class Run:
    """A case that ran: JSON-safe figures, and what the workers did."""

    found: dict[str, Any]
    spans: Mapping[str, Sequence[Span]]


async def run(case: Case, state: Path) -> Run:
    """Raises FarmError when the farm does not come up; a job that fails is told in the figures."""
    begun = time.time()
    (state / "taken").mkdir(parents=True)
    async with local_farm(state, case.workers) as coordinator:
        await workers_up(coordinator, len(case.workers))
        ready = {
            event.worker.id: at - begun
            for _, at, event in coordinator.ledger.journal.events()
            if isinstance(event, WorkerJoined)
        }
        cold = [await _job(coordinator, state, case.short, number) for number in range(1)]
        while len(cold) < MAX_WARM_UPS and any(
            worker.warm_model is None for worker in coordinator.ledger.state.workers.values()
        ):
            cold.append(await _job(coordinator, state, case.short, len(cold)))
        warm = await _job(coordinator, state, case.timed, 100, killed=case.killed)
    found = {
        "case": case.name,
        "workers": {w.id: {"device": w.device_name, "vram_bytes": w.vram_bytes} for w in case.workers},
        "farm_start_to_ready_s": ready,
        "cold": first_steps([job.found for job in cold]),
        "cold_wall_s": [job.found["wall_s"] for job in cold],
        **warm.found,
    }
    return Run(found, warm.spans)


async def _job(
    coordinator: Coordinator,
    state: Path,
    asked: tuple[Path, Mapping[str, Any]],
    seed: int,
    *,
    killed: str | None = None,
) -> Run:
    """A job to its end."""
    path, options = asked
    request = await asyncio.to_thread(
        described, [path], {**options, "seed": seed}, state / "taken", lambda *_: None
    )
    before = (time.process_time(), _children_s(), time.time())
    job_id = coordinator.submit(request)
    async for _ in coordinator.ledger.follow(job_id):
        job = coordinator.ledger.state.jobs[job_id]
        if killed is not None and job.num_done >= len(job.tasks) // 2:
            coordinator.cluster.kill(killed)
            killed = None
    cpu_s = {"coordinator_cpu_s": time.process_time() - before[0]}
    events = list(coordinator.ledger.journal.events())
    spans = worker_spans(events, job_id)
    own = [(at, event) for _, at, event in events if getattr(event, "job_id", None) == job_id]
    await asyncio.gather(*coordinator.joiners.open.get(job_id, ()))
    cpu_s["joiner_cpu_s"] = _children_s() - before[1]
    return Run(figures(own, spans) | {"status": job.status, "reason": job.reason, **cpu_s}, spans)


def figures(own: Sequence[tuple[float, Any]], spans: Mapping[str, Sequence[Span]]) -> dict[str, Any]:
    """Of a job's (time, event)s: wall time, attempts with their phases, idle seconds with their causes."""
    begin, submitted = next((at, event) for at, event in own if isinstance(event, JobSubmitted))
    segments = {segment.id: segment for segment in submitted.plan.segments}
    rows: dict[str, dict[str, Any]] = {}
    for at, event in own:
        if isinstance(event, TaskAssigned):
            segment = segments[event.task_id]
            rows[event.attempt_id] = {
                "task": event.task_id,
                "level": segment.level,
                "num_frames": segment.num_frames,
                "worker": event.worker_id,
                "rung": event.rung,
                "why": event.why,
                "predicted_s": event.predicted_s,
                "given_s": at - begin,
                "outcome": "running",
            }
        elif isinstance(event, AttemptSucceeded | AttemptFailed) and event.attempt_id in rows:
            row = rows[event.attempt_id]
            row["ended_s"] = at - begin
            row["outcome"] = "succeeded" if isinstance(event, AttemptSucceeded) else event.kind
            if isinstance(event, AttemptSucceeded):
                row |= {"wall_s": event.wall_s, "load_s": event.load_s, "peak_bytes": event.peak_bytes}
                row["phases_s"] = dict(event.phases_s)
    ends = [row["ended_s"] for row in rows.values() if row["outcome"] == "succeeded"]
    published = next((at - begin for at, event in own if isinstance(event, JobPublished)), None)
    return {
        "wall_s": published or own[-1][0] - begin,
        "publish_s": published - max(ends) if published and ends else None,
        "idle_share": idle_share(spans),
        "idle_s": {worker_id: idle_s(each) for worker_id, each in spans.items()},
        "tasks": [
            {"id": s.id, "level": s.level, "num_frames": s.num_frames, "depends_on": list(s.depends_on)}
            for s in submitted.plan.segments
        ],
        "attempts": list(rows.values()),
    }


def first_steps(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By worker, from its first order to its first step, and what of that was loading."""
    found: dict[str, Any] = {}
    for row in (row for job in jobs for row in job["attempts"]):
        if row["outcome"] == "succeeded" and row["worker"] not in found and row["level"] != "text":
            phases = row["phases_s"]
            to_step = phases.get("load", 0.0) + phases.get("encode", 0.0)
            found[row["worker"]] = {"first_order_to_first_step_s": to_step, "phases_s": phases}
    return found


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
