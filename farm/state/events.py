"""Everything that can happen, one class an event. The journal is a list of these and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from farm.capabilities import Rung, Worker
from farm.planning import Phase, Plan
from farm.request import JobRequest, MediaInfo
from farm.values import Value, share_names

FailureKind = Literal[
    "error",  # the engine raised
    "invalid_output",  # wrong count, size, not finite, black
    "lost",  # the worker died under the attempt
    "stalled",  # no sign of life for longer than the phase allows
    "oom",  # the card could not hold it: the need is raised, nobody is blamed
    "cannot_start",  # the worker refused: over its budget, model missing
    "cancelled",  # taken back by the coordinator
    "coordinator_restart",  # in flight when the coordinator went away
]


#: What a window between two given frames can fail by (``stitching/fill``).
FillGate = Literal["fade", "keyframe_early", "static_fill", "colour_at_ends"]
_Measure = Annotated[float, Field(ge=0, lt=1e6)]


class Fill(Value):
    """How a window gets from one given frame to the other, as its worker measured it; 0 is best."""

    fade: _Measure
    hold_fraction: _Measure
    still_fraction: _Measure
    end_step: _Measure
    failed_gates: tuple[FillGate, ...] = ()


class Artifact(Value):
    """A finished segment in storage: lossless video, and what the next segment starts from."""

    sha256: str
    size_bytes: int
    num_frames: int
    #: Hash of the raw frames: equal frames, equal hash, however they were stored.
    frames_sha256: str
    handover_sha256: str | None = None
    #: Of a window between two given frames; None: it is none, or nobody measured it.
    fill: Fill | None = None

    def model_post_init(self, context: Any, /) -> None:
        share_names(self)

    @property
    def hashes(self) -> tuple[str, ...]:
        """Its content in the storage."""
        return (self.sha256,) if self.handover_sha256 is None else (self.sha256, self.handover_sha256)


class NodeAdmitted(Value):
    """A machine was given what it needs to join under this name."""

    type: Literal["node_admitted"] = "node_admitted"
    node: str
    #: Id of the key it showed, which it still has; "": a token that was good for once.
    key_id: str = ""


class NodeRemoved(Value):
    """A machine was taken out for cause: what it was given opens nothing any more."""

    type: Literal["node_removed"] = "node_removed"
    node: str


class LicenceAccepted(Value):
    """Whoever runs the farm has agreed to a licence that restricts what models are used for."""

    type: Literal["licence_accepted"] = "licence_accepted"
    #: Its name.
    licence: str
    #: The model it was accepted for; others under it are free too.
    model: str
    accepted_by: str = ""


class RemovalsFinished(Value):
    """None of the content that no job has any more is in the storage: it need not be remembered."""

    type: Literal["removals_finished"] = "removals_finished"


class WorkerJoined(Value):
    type: Literal["worker_joined"] = "worker_joined"
    worker: Worker


class WorkerDraining(Value):
    """The worker finishes what it has, gets nothing new and then ends; it stays listed unless it leaves."""

    type: Literal["worker_draining"] = "worker_draining"
    worker_id: str
    #: Its machine goes away: nothing of it is kept.
    leaving: bool = False


class WorkerEnabled(Value):
    """A drain is taken back: a worker that still drains works on, one that is drained starts again."""

    type: Literal["worker_enabled"] = "worker_enabled"
    worker_id: str


class WorkerLeft(Value):
    type: Literal["worker_left"] = "worker_left"
    worker_id: str
    reason: str


class JobSubmitted(Value):
    type: Literal["job_submitted"] = "job_submitted"
    job_id: str
    request: JobRequest
    plan: Plan
    #: Name of who asked for it; empty where nobody has to say.
    submitted_by: str = ""
    #: Which principal that was: names are not unique.
    submitted_by_id: str = ""
    #: The job whose video this one is made from.
    remixed_from: str | None = None


class TaskAssigned(Value):
    type: Literal["task_assigned"] = "task_assigned"
    job_id: str
    task_id: str
    attempt_id: str
    worker_id: str
    rung: Rung
    need_bytes: int
    predicted_s: float
    #: Why this worker, for people.
    why: str


class AttemptSucceeded(Value):
    type: Literal["attempt_succeeded"] = "attempt_succeeded"
    job_id: str
    task_id: str
    attempt_id: str
    artifact: Artifact
    wall_s: float
    #: Of ``wall_s``, bringing the model onto the device.
    load_s: float
    #: Most memory the worker's process held; None where it cannot be read.
    peak_bytes: int | None
    #: Of ``wall_s``, each phase; empty where an older farm has written it.
    phases_s: dict[Phase, float] = Field(default_factory=dict)


class AttemptFailed(Value):
    type: Literal["attempt_failed"] = "attempt_failed"
    job_id: str
    task_id: str
    attempt_id: str
    kind: FailureKind
    message: str


class ResultRefused(Value):
    """A late or duplicate result of an attempt that no longer owns its task."""

    type: Literal["result_refused"] = "result_refused"
    job_id: str
    task_id: str
    attempt_id: str
    reason: str


class SeamMeasured(Value):
    """One take of a segment was joined to the one before. Gates and figures of the join."""

    type: Literal["seam_measured"] = "seam_measured"
    job_id: str
    #: The later segment of the seam, and which take of it.
    task_id: str
    take: int
    report: dict[str, Any]
    passed: bool


class TaskReopened(Value):
    """A finished segment is rendered again (a failed seam), with other noise."""

    type: Literal["task_reopened"] = "task_reopened"
    job_id: str
    task_id: str
    take: int
    reason: str


class SeamAccepted(Value):
    type: Literal["seam_accepted"] = "seam_accepted"
    job_id: str
    task_id: str
    take: int


class JobPublished(Value):
    type: Literal["job_published"] = "job_published"
    job_id: str
    num_frames: int
    frames_sha256: str
    size_bytes: int
    stitch_s: float
    #: Of the video's bytes; None where an older farm has published it.
    sha256: str | None = None


class JobFailed(Value):
    type: Literal["job_failed"] = "job_failed"
    job_id: str
    reason: str


class JobCancelled(Value):
    type: Literal["job_cancelled"] = "job_cancelled"
    job_id: str


class JobPrioritized(Value):
    """A running job is served sooner, or later, than the others."""

    type: Literal["job_prioritized"] = "job_prioritized"
    job_id: str
    #: 0 to 100, higher first.
    priority: int


class JobRetried(Value):
    """Failures are forgiven, what is done is kept."""

    type: Literal["job_retried"] = "job_retried"
    job_id: str


class JobReopened(Value):
    """Rendered segments are rendered again; the published video stays until the new one is whole.

    Without any the video is only joined again.
    """

    type: Literal["job_reopened"] = "job_reopened"
    job_id: str
    #: By finished segment, which take of it is rendered next.
    takes: dict[str, int]
    #: Where nobody asked for it.
    reason: str = ""


class KeyframesRemade(Value):
    """A keyframe of a job that waits for its review is made again, and what comes of the same segments."""

    type: Literal["keyframes_remade"] = "keyframes_remade"
    job_id: str
    #: Where the keyframe is found that was asked for. Was it replaced, the picture goes.
    task_id: str
    position: int
    #: By segment, which take of it is rendered next.
    takes: dict[str, int]
    #: Of those takes, instead of the job's.
    seed: int


class KeyframeReplaced(Value):
    """A picture stands for a keyframe of a job that waits for its review."""

    type: Literal["keyframe_replaced"] = "keyframe_replaced"
    job_id: str
    task_id: str
    position: int
    #: Its ``path`` is its name alone; None: what was rendered counts again.
    media: MediaInfo | None
    #: By segment that is made from the keyframe, which take of it is rendered next.
    takes: dict[str, int]


class KeyframesReady(Value):
    """A job waits for its user: all of its keyframes are there, for the first time or again."""

    type: Literal["keyframes_ready"] = "keyframes_ready"
    job_id: str


class ReviewApproved(Value):
    """The keyframes are as they should be: the windows may be rendered."""

    type: Literal["review_approved"] = "review_approved"
    job_id: str


ReviewEvent: TypeAlias = KeyframesReady | KeyframesRemade | KeyframeReplaced | ReviewApproved
#: Of one task; nearly all that happens is one of these.
TaskEvent: TypeAlias = (
    TaskAssigned
    | AttemptSucceeded
    | AttemptFailed
    | ResultRefused
    | SeamMeasured
    | SeamAccepted
    | TaskReopened
)


class JobDeleted(Value):
    """An ended job leaves the farm; its files go with it."""

    type: Literal["job_deleted"] = "job_deleted"
    job_id: str


Event = Annotated[
    NodeAdmitted
    | NodeRemoved
    | LicenceAccepted
    | RemovalsFinished
    | WorkerJoined
    | WorkerDraining
    | WorkerEnabled
    | WorkerLeft
    | JobSubmitted
    | TaskAssigned
    | AttemptSucceeded
    | AttemptFailed
    | ResultRefused
    | SeamMeasured
    | TaskReopened
    | SeamAccepted
    | JobPublished
    | JobFailed
    | JobCancelled
    | JobPrioritized
    | JobRetried
    | JobReopened
    | KeyframesReady
    | KeyframesRemade
    | KeyframeReplaced
    | ReviewApproved
    | JobDeleted,
    Field(discriminator="type"),
]

event_adapter: TypeAdapter[Event] = TypeAdapter(Event)
