"""What happens on the farm, to everybody who watches: the feed, its stream, looks between events.

Whatever is worked out once and sent to all enters; what one caller asks for is answered in ``api``.
"""

from __future__ import annotations

from dashboard.live.event_stream import StoredEvent, stored_events
from dashboard.live.feed import HEADERS, MAX_SEQ, Feed, events_router
from dashboard.live.job_stream import job_events
from dashboard.live.worker_summaries import (
    NodeSummary,
    WorkerSummary,
    node_summaries,
    node_summary,
    summaries_of,
    worker_ids,
    worker_summary_by_id,
    workers_by_node,
)

__all__ = [
    "HEADERS",
    "MAX_SEQ",
    "Feed",
    "NodeSummary",
    "StoredEvent",
    "WorkerSummary",
    "events_router",
    "job_events",
    "node_summaries",
    "node_summary",
    "stored_events",
    "summaries_of",
    "worker_ids",
    "worker_summary_by_id",
    "workers_by_node",
]
