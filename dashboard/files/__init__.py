"""What is served from disk: a job's files, ranges of them, pictures made of them, the journal's past.

Reading enters; whatever changes a job does not.
"""

from __future__ import annotations

from dashboard.files.artifacts import MEDIA_TYPES, ArtifactName, Artifacts, ArtifactSummary
from dashboard.files.file_response import open_file
from dashboard.files.journal_reads import TaskEvent, WorkersSeen, task_events
from dashboard.files.large_json import LargeAnswers, large_json
from dashboard.files.picture_cache import PictureCache

__all__ = [
    "MEDIA_TYPES",
    "ArtifactName",
    "ArtifactSummary",
    "Artifacts",
    "LargeAnswers",
    "PictureCache",
    "TaskEvent",
    "WorkersSeen",
    "large_json",
    "open_file",
    "task_events",
]
