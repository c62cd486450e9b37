"""What has happened: events, the state they make, and the journal that keeps them.

Events, how they are applied and what follows from them alone enter; what to do next is decided elsewhere.
"""

from __future__ import annotations

from farm.state.changes import apply, refusal
from farm.state.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    FailureKind,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobPublished,
    JobReopened,
    JobRetried,
    JobSubmitted,
    ResultRefused,
    SeamAccepted,
    SeamMeasured,
    TaskAssigned,
    TaskReopened,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
    event_adapter,
)
from farm.state.journal import Journal, Row, job_rows
from farm.state.ledger import Ledger, Recorded, past, replayed
from farm.state.profiles import Profiles, frames_to_join
from farm.state.rerender import lost_results, to_rerender
from farm.state.state import Attempt, Found, Job, Seam, State, Task, WorkerState, attempt_ids, blob_hashes
from farm.state.state_folder import (
    JOURNAL_NAME,
    LOCK_NAME,
    default_state_folder,
    locked,
    make_private,
    usual_mode,
    write_private,
)
from farm.state.telemetry import TELEMETRY_INTERVAL_S, Telemetry
from farm.state.transitions import JobStatus, TaskStatus

__all__ = [
    "JOURNAL_NAME",
    "LOCK_NAME",
    "TELEMETRY_INTERVAL_S",
    "Artifact",
    "Attempt",
    "AttemptFailed",
    "AttemptSucceeded",
    "Event",
    "FailureKind",
    "Found",
    "Job",
    "JobCancelled",
    "JobDeleted",
    "JobFailed",
    "JobPublished",
    "JobReopened",
    "JobRetried",
    "JobStatus",
    "JobSubmitted",
    "Journal",
    "Ledger",
    "Profiles",
    "Recorded",
    "ResultRefused",
    "Row",
    "Seam",
    "SeamAccepted",
    "SeamMeasured",
    "State",
    "Task",
    "TaskAssigned",
    "TaskReopened",
    "TaskStatus",
    "Telemetry",
    "WorkerDraining",
    "WorkerEnabled",
    "WorkerJoined",
    "WorkerLeft",
    "WorkerState",
    "apply",
    "attempt_ids",
    "blob_hashes",
    "default_state_folder",
    "event_adapter",
    "frames_to_join",
    "job_rows",
    "locked",
    "lost_results",
    "make_private",
    "past",
    "refusal",
    "replayed",
    "to_rerender",
    "usual_mode",
    "write_private",
]
