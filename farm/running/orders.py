"""What a worker is told: one attempt at one task, and the files it is rendered from."""

from __future__ import annotations

from collections.abc import Iterator

from farm.planning import Segment
from farm.running.cluster import Blob, Order, Role, SegmentFrame
from farm.running.storage import Storage
from farm.scheduling import Assignment
from farm.state import Artifact, Job


def order_for(storage: Storage, job: Job, assignment: Assignment, attempt_id: str) -> Order:
    """The order of an attempt, for the task's present take."""
    task = job.tasks[assignment.task_id]
    return Order(
        attempt_id=attempt_id,
        worker_id=assignment.worker_id,
        task=job.plan.render_task(task.segment, take=task.take),
        rung=assignment.rung,
        need_bytes=assignment.need_bytes,
        inputs={
            role: Blob(sha256=sha256, path=storage.path(sha256))
            for role, sha256 in _inputs(job, task.segment).items()
        },
        segment_frames=tuple(_segment_frames(job, task.segment)),
    )


def _inputs(job: Job, segment: Segment) -> dict[Role | str, str]:
    """The content a segment is rendered from."""
    shot = job.plan.shots[segment.shot]
    inputs: dict[Role | str, str] = {"video" if shot.media.kind == "video" else "image": shot.media.sha256}
    if shot.last_media:
        inputs["last_image"] = shot.last_media.sha256
    if segment.handover_from:
        inputs["handover"] = _artifact(job, segment.handover_from).handover_sha256 or ""
    if segment.anchor_from:
        inputs["anchor"] = _artifact(job, segment.anchor_from).handover_sha256 or ""
    for run in segment.sources:
        inputs[run.segment] = _artifact(job, run.segment).sha256
    return inputs


def _artifact(job: Job, task_id: str) -> Artifact:
    """The result of a segment that another depends on."""
    artifact = job.tasks[task_id].artifact
    assert artifact is not None, f"{task_id} is not rendered"
    return artifact


def _segment_frames(job: Job, segment: Segment) -> Iterator[SegmentFrame]:
    for run in segment.sources:
        indices = job.tasks[run.segment].segment.frame_indices
        for position in range(run.first, run.end):
            yield SegmentFrame(segment=run.segment, position=position, frame_index=indices[position])
