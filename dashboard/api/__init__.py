"""``/api/v1``: routes of jobs, segments, nodes, models, files, uploads and the storage.

Routers enter, each a function of what it needs, with the shapes they alone show.
"""

from __future__ import annotations

from dashboard.api.artifacts import artifacts_router
from dashboard.api.job_summaries import JobSummaries
from dashboard.api.jobs import jobs_router
from dashboard.api.keyframes import keyframes_router
from dashboard.api.models import models_router, openai_models_router
from dashboard.api.nodes import nodes_router
from dashboard.api.segments import segments_router
from dashboard.api.storage import storage_router
from dashboard.api.uploads import uploads_router

__all__ = [
    "JobSummaries",
    "artifacts_router",
    "jobs_router",
    "keyframes_router",
    "models_router",
    "nodes_router",
    "openai_models_router",
    "segments_router",
    "storage_router",
    "uploads_router",
]
