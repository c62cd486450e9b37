"""What people are told: reports and summaries, lines in a terminal, logs.

Functions that read the state and write text or JSON-safe values enter; nothing here changes a job.
"""

from __future__ import annotations

from farm.reporting import console
from farm.reporting.attempts import EarlierSummary
from farm.reporting.jobs import made_lines, print_jobs
from farm.reporting.keyframes import (
    KeyframeDetail,
    ReviewStatus,
    keyframe_details,
    made_again_words,
    review_status,
)
from farm.reporting.logs import LogFormat, log_events, logging_to
from farm.reporting.models import (
    ModelReport,
    ShapeOf,
    machines_with_models,
    model_reports,
    no_shapes,
    report_json,
    runnable_lines,
)
from farm.reporting.plans import print_plan, print_segments
from farm.reporting.report import (
    JobSummary,
    job_report,
    job_summary,
    progress,
    report_parts,
    seam_list,
    segment_detail,
    timeline,
    waits,
    waits_words,
    workers_seen,
)
from farm.reporting.worker_time import Span, add_idle, idle_s, idle_share, worker_spans

__all__ = [
    "EarlierSummary",
    "JobSummary",
    "KeyframeDetail",
    "LogFormat",
    "ModelReport",
    "ReviewStatus",
    "ShapeOf",
    "Span",
    "add_idle",
    "console",
    "idle_s",
    "idle_share",
    "job_report",
    "job_summary",
    "keyframe_details",
    "log_events",
    "logging_to",
    "machines_with_models",
    "made_again_words",
    "made_lines",
    "model_reports",
    "no_shapes",
    "print_jobs",
    "print_plan",
    "print_segments",
    "progress",
    "report_json",
    "report_parts",
    "review_status",
    "runnable_lines",
    "seam_list",
    "segment_detail",
    "timeline",
    "waits",
    "waits_words",
    "worker_spans",
    "workers_seen",
]
