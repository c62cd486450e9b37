"""Figures for Prometheus: what happened since the server began, and how things stand when it asks.

Counters and histograms follow the ledger; gauges are read from the state. A worker's figure that is not known
is left out, never zero.
"""

from __future__ import annotations

import logging
import time
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Any, get_args

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.http import Route, answers
from dashboard.live import Feed
from dashboard.webhooks import Webhooks
from farm.state import (
    Attempt,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    Job,
    JobDeleted,
    JobReopened,
    JobRetried,
    JobStatus,
    KeyframesRemade,
    Ledger,
    ResultRefused,
    ReviewApproved,
    SeamMeasured,
    State,
    Task,
    TaskAssigned,
    TaskReopened,
)

log = logging.getLogger(__name__)

JOB_STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)
#: Ends of an attempt that are nobody's failure.
_WITHDRAWN = ("cancelled", "coordinator_restart")
#: Figures of a seam's report. Ratios are to the clips' own transitions, ``lab_step`` is in CIE Lab units.
SEAM_MEASURES = ("mae_ratio", "warp_error_ratio", "flow_jerk_ratio", "lab_step")
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_RATIOS = (0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5)
_ANSWER_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """A registry of its own: nothing else of the process is told."""

    def __init__(self, ledger: Ledger, feed: Feed, webhooks: Webhooks) -> None:
        self._ledger = ledger
        self.registry = CollectorRegistry()
        self.registry.register(_Standing(ledger, feed, webhooks))
        self._segments = Counter(
            "reelfarm_segments",
            "Attempts at segments that ended, by how: succeeded, failed, withdrawn; and segments reopened.",
            ("outcome", "model"),
            registry=self.registry,
        )
        self._segment_s = Histogram(
            "reelfarm_segment_seconds",
            "Seconds a segment took on its worker, loading included.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue_wait_s = Histogram(
            "reelfarm_queue_wait_seconds",
            "Seconds between a segment's becoming ready and its assignment.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._failures = Counter(
            "reelfarm_attempt_failures", "Attempts that failed, by kind.", ("kind",), registry=self.registry
        )
        self._refused = Counter(
            "reelfarm_results_refused", "Late and duplicate results.", registry=self.registry
        )
        self._seam_score = Histogram(
            "reelfarm_seam_score",
            "Measured seams: 1 is as smooth as the clips themselves, and for lab_step just visible.",
            ("measure",),
            buckets=_RATIOS,
            registry=self.registry,
        )
        self._seams_failed = Counter(
            "reelfarm_seams_failed", "Measured seams that failed a gate.", registry=self.registry
        )
        self._requests = Counter(
            "reelfarm_http_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._answer_s = Histogram(
            "reelfarm_http_answer_seconds",
            "Seconds until an answer began.",
            ("route",),
            buckets=_ANSWER_SECONDS,
            registry=self.registry,
        )
        #: When jobs that had ended were taken up again: until then nothing waited.
        self._resumed_at: dict[str, float] = {}

    async def run(self) -> None:
        """Follow the ledger until cancelled."""
        with self._ledger.watch() as happened:
            while True:
                _, at, event = await happened.get()
                try:
                    self.note(at, event)
                except Exception:
                    log.exception("%s is missing in the metrics", event.type)

    def note(self, at: float, event: Event) -> None:
        """Count one event; the state has it already."""
        match event:
            case TaskAssigned():
                self._note_assigned(at, event)
            case AttemptSucceeded():
                model = self._model(event.job_id)
                self._segments.labels("succeeded", model).inc()
                self._segment_s.labels(model).observe(event.wall_s)
            case AttemptFailed():
                outcome = "withdrawn" if event.kind in _WITHDRAWN else "failed"
                self._segments.labels(outcome, self._model(event.job_id)).inc()
                if outcome == "failed":
                    self._failures.labels(event.kind).inc()
            case TaskReopened():
                self._segments.labels("reopened", self._model(event.job_id)).inc()
            case ResultRefused():
                self._refused.inc()
            case SeamMeasured():
                for measure in SEAM_MEASURES:
                    if isinstance(value := event.report.get(measure), int | float):
                        self._seam_score.labels(measure).observe(value)
                if not event.passed:
                    self._seams_failed.inc()
            case JobRetried() | JobReopened() | KeyframesRemade() | ReviewApproved():
                self._resumed_at[event.job_id] = at
            case JobDeleted():
                self._resumed_at.pop(event.job_id, None)

    def note_request(self, method: str, route: str, status: int, answer_s: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._answer_s.labels(route).observe(answer_s)

    def _model(self, job_id: str) -> str:
        job = self._ledger.state.jobs.get(job_id)
        return "deleted" if job is None else job.plan.model

    def _note_assigned(self, at: float, event: TaskAssigned) -> None:
        job = self._ledger.state.jobs.get(event.job_id)
        if job is None:
            return
        task = job.tasks[event.task_id]
        attempt = task.attempt(event.attempt_id)
        if attempt is None:
            return
        since = ready_since(job, task, attempt, self._resumed_at.get(job.id, 0.0))
        if since is not None:
            self._queue_wait_s.observe(max(0.0, at - since))


def ready_since(job: Job, task: Task, attempt: Attempt, resumed_at: float) -> float | None:
    """When the task began to wait for this attempt; None for a second copy, which nothing waited for."""
    earlier = task.attempts[: task.attempts.index(attempt)]
    if any(a.ended_at is None or a.ended_at > attempt.started_at for a in earlier):
        return None
    needed = (a for d in task.segment.depends_on for a in job.tasks[d].attempts if a.outcome == "succeeded")
    ends = (a.ended_at for a in (*earlier, *needed) if a.ended_at is not None)
    return max(job.submitted_at, resumed_at, *(end for end in ends if end <= attempt.started_at))


class _Standing(Collector):
    """Gauges, read when somebody asks."""

    def __init__(self, ledger: Ledger, feed: Feed, webhooks: Webhooks) -> None:
        self._ledger = ledger
        self._feed = feed
        self._webhooks = webhooks

    def collect(self) -> Iterator[GaugeMetricFamily]:
        state = self._ledger.state
        jobs = GaugeMetricFamily("reelfarm_jobs", "Jobs, by status.", labels=("status",))
        found = Tally(job.status for job in state.jobs.values())
        for status in JOB_STATUSES:
            jobs.add_metric((status,), found[status])
        yield jobs
        running = [job for job in state.jobs.values() if job.status == "running"]
        segments = GaugeMetricFamily(
            "reelfarm_segments_open", "Segments of running jobs, by status.", labels=("status",)
        )
        num_ready, num_running = (
            sum(len(j.ready) for j in running),
            sum(len(j.running_tasks) for j in running),
        )
        num_left = sum(len(j.tasks) - j.num_done for j in running)
        segments.add_metric(("ready",), num_ready)
        segments.add_metric(("running",), num_running)
        segments.add_metric(("waiting",), max(0, num_left - num_ready - num_running))
        yield segments
        yield from _of_workers(state)
        yield _plain("reelfarm_last_event", "Sequence number of the newest event.", self._ledger.last_seq)
        yield _plain("reelfarm_event_subscribers", "Who follows the farm's events.", self._feed.num_watchers)
        webhooks = self._webhooks.store.all()
        failing = sum(1 for webhook in webhooks if webhook.attempts or webhook.disabled_because)
        yield _plain("reelfarm_webhooks", "Webhooks.", len(webhooks))
        yield _plain("reelfarm_webhooks_failing", "Webhooks whose receiver does not answer.", failing)


def _plain(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _of_workers(state: State) -> Iterator[GaugeMetricFamily]:
    own = ("worker", "kind")
    families = {
        name: GaugeMetricFamily(f"reelfarm_worker_{name}", text, labels=own)
        for name, text in (
            ("vram_bytes", "What a task may hold on the worker."),
            ("vram_used_bytes", "Held on the whole card, other programs included."),
            ("memory_used_bytes", "Resident memory of the worker's process."),
            ("busy", "1 while it renders."),
            ("draining", "1 while it finishes what it has, to go."),
            ("load_ratio", "Load of the card, or of the worker's cores, 0 to 1."),
            ("temperature_celsius", "Of its device."),
            ("power_watts", "Drawn by its device."),
        )
    }
    for worker_id, worker in sorted(state.workers.items()):
        labels = (worker_id, worker.worker.kind)
        seen: Any = worker.telemetry
        values = {
            "vram_bytes": worker.worker.vram_bytes,
            "busy": int(bool(worker.attempts)),
            "draining": int(worker.draining),
            "vram_used_bytes": seen and seen.vram_used_bytes,
            "memory_used_bytes": seen and seen.memory_used_bytes,
            "load_ratio": seen and seen.load,
            "temperature_celsius": seen and seen.temperature_c,
            "power_watts": seen and seen.power_w,
        }
        for name, value in values.items():
            if value is not None:
                families[name].add_metric(labels, value)
    yield from families.values()
    workers = GaugeMetricFamily("reelfarm_workers", "Workers, by whether they may work.", labels=("status",))
    workers.add_metric(("here",), len(state.workers))
    workers.add_metric(("drained",), len(state.drained))
    workers.add_metric(("starting",), len(state.starting))
    yield workers


class CountRequests:
    """Middleware around everything: counts answers by the route that gave them, whatever the address was."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                answer_s = time.perf_counter() - started
                self._metrics.note_request(_known(scope["method"]), route, message["status"], answer_s)
            await send(message)

        await self._app(scope, receive, counted)


def _known(method: str) -> str:
    """A method of HTTP, or "other": nobody outside chooses a label."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"


def metrics_router(metrics: Metrics) -> APIRouter:
    """The route Prometheus asks."""
    router = APIRouter(tags=["health"], route_class=Route)

    @router.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses=answers(
            'reelfarm_jobs{status="running"} 2.0\n',
            said="Prometheus text format.",
            media_type="text/plain",
        ),
    )
    async def figures() -> Response:
        """Jobs, segments, workers, seams and requests in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_PLAIN_1_0_0})

    return router
