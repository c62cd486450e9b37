"""What people are shown of a job: plain, JSON-safe values. Reads the state; writes ``Job.forecast`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from typing_extensions import TypedDict

from farm.capabilities import Mode, Worker
from farm.planning import Segment
from farm.reporting.attempts import earlier_attempts, num_failures, worker_totals
from farm.reporting.keyframes import ReviewStatus, review_status
from farm.request import MediaInfo
from farm.scheduling import after_seam, eta_s, waiting, why_not_retried
from farm.state import Attempt, Job, JobStatus, Journal, Seam, State, Task, WorkerJoined

#: Columns of ``timeline``.
_SEGMENT_COLUMNS = (
    *("id", "shot", "level", "start", "end", "head"),
    *("status", "take", "worker", "assigned_at", "ended_at", "done_fraction"),
)
_ATTEMPT_COLUMNS = ("id", "segment", "worker", "take", "started_at", "ended_at", "outcome")
#: Seconds for which a predicted end is shown before it is worked out again from every segment that is left.
FORECAST_LASTS_S = 1.0
#: On a large farm longer, for each worker and job: it takes time for each worker, and every job has one.
FORECAST_LASTS_FOR_EACH_S = 5e-5


class SegmentCounts(TypedDict):
    total: int
    done: int
    running: int


class SeamCounts(TypedDict):
    measured: int
    #: Of those: the kept take, or the newest, did not pass its gates.
    failed: int


class JobSummary(TypedDict):
    """One job in a line. Times in seconds since the epoch."""

    id: str
    status: JobStatus
    #: Why it failed; empty otherwise.
    reason: str
    #: Why nothing of a running job runs now; empty when something does, or when no state was given.
    waiting_for: str
    #: Its place among the jobs that wait, from 1; None when it does not wait.
    queue_position: int | None
    #: Of its segments in the queue, 0 to 100, higher first.
    priority: int
    #: Whether a retry would do anything: it failed, was cancelled, or waits for what a retry may change.
    can_retry: bool
    #: Of its keyframes, before its windows are rendered; None: nobody asked for that.
    review: ReviewStatus | None
    model: str
    mode: Mode
    #: The first one.
    prompt: str
    width: int
    height: int
    #: Of the finished video.
    fps: float
    num_frames: int
    #: What segments, seams and keyframes count: frames before any is interpolated.
    rendered_fps: float
    rendered_frames: int
    segments: SegmentCounts
    #: Share of the segments that is rendered, running ones by their steps, 0 to 1.
    progress: float
    #: Predicted seconds to the finished video; None when it has ended, waits for its user to look at its
    #: keyframes, or nothing can be said.
    eta_s: float | None
    submitted_at: float
    finished_at: float | None
    #: Name of who submitted it; empty when there was no name.
    submitted_by: str
    #: The job it was made from.
    remixed_from: str | None
    #: Late and duplicate results that were not let in.
    refused_results: int
    seams: SeamCounts
    #: Of all attempts that ended, in the currency of the workers' prices; None where a worker had no price.
    cost: float | None
    #: Sequence number of its newest event.
    last_event_id: int


def job_summary(job: Job, state: State | None, now: float) -> JobSummary:
    """The job in one line. ``state`` adds why it waits and when, seen from ``now``, it will be done."""
    plan = job.plan
    begun = job.num_done or job.cost
    return {
        "id": job.id,
        "status": job.status,
        "reason": job.reason,
        **waits(state, job),
        "priority": job.request.priority,
        "can_retry": state is not None and why_not_retried(state, job) is None,
        "review": review_status(job),
        "model": plan.model,
        "mode": plan.mode,
        "prompt": plan.shots[0].prompt,
        "width": plan.width,
        "height": plan.height,
        "fps": float(plan.delivered.fps),
        "num_frames": plan.delivered.num_frames,
        "rendered_fps": float(plan.fps),
        "rendered_frames": plan.num_frames,
        "segments": {"total": len(job.tasks), "done": job.num_done, "running": len(_running(job))},
        "progress": progress(job),
        "eta_s": _eta_s(state, job, now) if state else None,
        "submitted_at": job.submitted_at,
        "finished_at": job.finished_at,
        "submitted_by": job.submitted_by,
        "remixed_from": job.remixed_from,
        "refused_results": job.num_refused,
        "seams": {"measured": len(job.measured_seams), "failed": len(job.failed_seams)},
        "cost": job.cost if begun else None,
        "last_event_id": job.last_seq,
    }


def _eta_s(state: State, job: Job, now: float) -> float | None:
    if job.status != "running":
        return None
    lasts_s = max(FORECAST_LASTS_S, FORECAST_LASTS_FOR_EACH_S * len(state.workers) * len(state.jobs))
    if job.forecast is None or not 0 <= now - job.forecast[0] < lasts_s:
        left_s = eta_s(state, job, now)
        job.forecast = (now, None if left_s is None else now + left_s)
    done_at = job.forecast[1]
    return None if done_at is None else round(max(done_at - now, 0.0), 1)


def progress(job: Job) -> float:
    """Share of the segments that is rendered, running ones by the steps of their furthest attempt."""
    begun = sum(_furthest(task).done_fraction for task in _running(job))
    return round((job.num_done + begun) / len(job.tasks), 4)


def _running(job: Job) -> list[Task]:
    tasks = (job.tasks[task_id] for task_id in job.running_tasks)
    return [task for task in tasks if task.status == "running"]


def _furthest(task: Task) -> Attempt:
    """Of a running task's attempts, the one with the most steps done."""
    return max(task.running_attempts, key=lambda a: a.done_fraction)


def workers_seen(journal: Journal) -> dict[str, Worker]:
    """Every worker that ever joined, by id, as it last joined."""
    return {e.worker.id: e.worker for _, _, e in journal.events() if isinstance(e, WorkerJoined)}


def job_report(job: Job, workers: Mapping[str, Worker], state: State | None = None) -> dict[str, Any]:
    """Everything about one job: settings, shots, segments with their attempts, seams, totals.

    ``workers`` (see ``workers_seen``) says what the workers were; one that is not in it is shown without.
    ``state`` adds what it waits for.
    """
    parts = report_parts(job, workers, state)
    return {name: list(part) if isinstance(part, Iterator) else part for name, part in parts.items()}


def report_parts(job: Job, workers: Mapping[str, Worker], state: State | None = None) -> dict[str, Any]:
    """``job_report`` whose long lists, segments and seams, are iterators: made as they are taken."""
    plan = job.plan
    return {
        **job_summary(job, None, 0.0),
        **waits(state, job),
        "settings": plan.model_dump(
            mode="json",
            exclude=dict.fromkeys(("shots", "segments", "on", "notes", "mask", "references"), True)
            | {"draft": {"on": True, "text_on": True}},
        ),
        "notes": list(plan.notes),
        "mask": _media(plan.mask) if plan.mask else None,
        "references": [_media(picture) for picture in plan.references],
        "shots": [
            {
                **shot.model_dump(mode="json", exclude={"media", "last_media"}),
                "media": _media(shot.media) if shot.media else None,
                "last_media": _media(shot.last_media) if shot.last_media else None,
            }
            for shot in plan.shots
        ],
        "segments": (segment_detail(job, job.tasks[s.id], workers) for s in plan.segments),
        "seams": _seams(job),
        "workers": worker_totals(job, workers),
        "totals": _totals(job),
    }


class Waits(TypedDict):
    """As in ``JobSummary``."""

    waiting_for: str
    queue_position: int | None


def waits(state: State | None, job: Job) -> Waits:
    """What a job waits for, and its place in the queue."""
    found = waiting(state, job) if state else None
    if found is None:
        return {"waiting_for": "", "queue_position": None}
    return {"waiting_for": found.reason, "queue_position": found.position}


def waits_words(summary: Mapping[str, Any]) -> str:
    """What a job waits for, for people; empty when it does not wait. ``summary``: a ``JobSummary``."""
    reason: str = summary["waiting_for"]
    position = summary["queue_position"]
    return f"place {position} in the queue: {reason}" if reason and position is not None else reason


def _media(media: MediaInfo) -> dict[str, Any]:
    return media.model_dump(mode="json", exclude={"path"})


def _kept_attempt(job: Job, task: Task) -> Attempt | None:
    """The attempt whose frames are in the video."""
    take = job.kept_take(task)
    return next((a for a in task.attempts if a.outcome == "succeeded" and a.take == take), None)


def segment_detail(job: Job, task: Task, workers: Mapping[str, Worker]) -> dict[str, Any]:
    """One segment: its frames, the attempt whose result is kept, and every attempt."""
    segment, kept = task.segment, _kept_attempt(job, task)
    worker = workers.get(kept.worker_id) if kept else None
    artifact = task.artifacts.get(job.kept_take(task))
    fill = artifact.fill if artifact else None
    return {
        "id": task.id,
        "shot": segment.shot,
        "level": segment.level,
        "start": segment.start,
        "end": segment.end,
        "num_frames": segment.num_frames,
        "head": segment.head,
        "tail": segment.tail,
        "depends_on": list(segment.depends_on),
        "status": task.status,
        "take": job.kept_take(task),
        "takes": len(task.artifacts),
        "worker_id": kept.worker_id if kept else None,
        "why": kept.why if kept else "",
        "rung": kept.rung if kept else None,
        "need_bytes": kept.need_bytes if kept else None,
        "vram_bytes": worker.vram_bytes if worker else None,
        "predicted_s": kept.predicted_s if kept else None,
        "wall_s": kept.wall_s if kept else None,
        "peak_bytes": kept.peak_bytes if kept else None,
        "fill": fill.model_dump(mode="json") if fill else None,
        "failed_attempts": num_failures(task),
        "earlier_attempts": earlier_attempts(task),
        "attempts": [
            {
                "id": attempt.id,
                "worker_id": attempt.worker_id,
                "rung": attempt.rung,
                "take": attempt.take,
                "started_at": attempt.started_at,
                "ended_at": attempt.ended_at,
                "wall_s": attempt.wall_s,
                "load_s": attempt.load_s,
                "outcome": attempt.outcome,
                "message": attempt.message,
            }
            for attempt in task.attempts
        ],
    }


def seam_list(job: Job) -> list[dict[str, Any]]:
    """Every seam that was measured, in order."""
    return list(_seams(job))


def _seams(job: Job) -> Iterator[dict[str, Any]]:
    for earlier, later in pairwise(job.plan.final_segments):
        if later.id in job.measured_seams:
            yield _seam(earlier, later, job.seams[later.id])


def _seam(earlier: Segment, later: Segment, seam: Seam) -> dict[str, Any]:
    kept = max(seam.measured) if seam.accepted_take is None else seam.accepted_take
    decision = "not decided yet"
    if seam.accepted_take is not None:
        decision = after_seam(seam, may_rerender=False).reason or "gates passed"
    return {
        "after": earlier.id,
        "before": later.id,
        "start": later.start,
        "overlap": later.head,
        "accepted_take": seam.accepted_take,
        "passed": seam.passed,
        "failed_gates": seam.measured[kept].report["failed_gates"],
        "decision": decision,
        "report": seam.measured[kept].report,
        "takes": [
            {"take": take, "passed": measured.passed, "failed_gates": measured.report["failed_gates"]}
            for take, measured in sorted(seam.measured.items())
        ],
    }


def timeline(job: Job, now: float) -> dict[str, Any]:
    """Who rendered what and when, in columns: segments in plan order, attempts in the order they began.

    ``worker`` counts in ``workers``, -1 where none has it; times in seconds since the epoch, None where
    unknown. A segment's are those of the attempt that is kept, or else of the running one that is furthest.
    ``now`` is given back, for clocks that differ.
    """
    numbers: dict[str, int] = {}
    segments: dict[str, list[Any]] = {name: [] for name in _SEGMENT_COLUMNS}
    attempts: list[tuple[Any, ...]] = []
    for number, task in enumerate(job.tasks.values()):
        segment = task.segment
        shown = _kept_attempt(job, task) if task.status == "done" else None
        if task.status == "running":
            shown = _furthest(task)
        for attempt in task.attempts:
            worker = numbers.setdefault(attempt.worker_id, len(numbers))
            times = (attempt.started_at, attempt.ended_at)
            attempts.append((attempt.id, number, worker, attempt.take, *times, attempt.outcome))
        row = (
            task.id,
            segment.shot,
            segment.level,
            segment.start,
            segment.end,
            segment.head,
            task.status,
            job.kept_take(task),
            numbers[shown.worker_id] if shown else -1,
            shown.started_at if shown else None,
            shown.ended_at if shown else None,
            1.0 if task.status == "done" else round(shown.done_fraction, 4) if shown else 0.0,
        )
        for column, value in zip(segments.values(), row, strict=True):
            column.append(value)
    attempts.sort(key=lambda row: row[_ATTEMPT_COLUMNS.index("started_at")])
    return {
        "now": now,
        "workers": list(numbers),
        "segments": segments,
        "attempts": {name: [row[i] for row in attempts] for i, name in enumerate(_ATTEMPT_COLUMNS)},
    }


def _totals(job: Job) -> dict[str, Any]:
    published = job.published
    return {
        "wall_s": None if job.finished_at is None else job.finished_at - job.submitted_at,
        "critical_path_s": _critical_path_s(job),
        "stitch_s": published.stitch_s if published else None,
        "size_bytes": published.size_bytes if published else None,
        "frames_sha256": published.frames_sha256 if published else None,
        "refused_results": job.num_refused,
    }


def _critical_path_s(job: Job) -> float:
    """Seconds of the longest run of segments that had to follow each other: no farm is faster than that."""
    ends: dict[str, float] = {}
    for segment in job.plan.segments:
        kept = _kept_attempt(job, job.tasks[segment.id])
        own = kept.wall_s or 0.0 if kept else 0.0
        ends[segment.id] = own + max((ends[d] for d in segment.depends_on), default=0.0)
    return max(ends.values())
