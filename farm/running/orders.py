"""What a worker is told: one attempt at one task, and the files it is rendered from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from farm.planning import FrameRun, Segment
from farm.request import VideoReading
from farm.running.cluster import Blob, InputVideo, Order, Role, SegmentFrame
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
        inputs=dict(_inputs(storage, job, task.segment)),
        segment_frames=tuple(_segment_frames(job, task.segment.sources)),
        known_frames=tuple(_segment_frames(job, task.segment.known)),
        input_video=_input_video(job, task.segment),
    )


def segment_blob(storage: Storage, artifact: Artifact) -> Blob:
    """A finished segment's frames."""
    return Blob(
        sha256=artifact.sha256,
        path=storage.path(artifact.sha256),
        frames_sha256=artifact.frames_sha256,
    )


def _input_video(job: Job, segment: Segment) -> InputVideo | None:
    media = job.plan.shots[segment.shot].media
    if media.kind != "video" or media.fps is None or segment.level == "text":
        return None
    if media.reading is None:  # planned when frames were counted, whatever the rate that was asked for
        return InputVideo(reading=VideoReading(counted=True), source_fps=media.fps, fps=media.fps)
    return InputVideo(reading=media.reading, source_fps=media.fps, fps=job.plan.fps)


def _inputs(storage: Storage, job: Job, segment: Segment) -> Iterator[tuple[Role | str, Blob]]:
    """The content a segment is rendered from."""

    def blob(sha256: str) -> Blob:
        return Blob(sha256=sha256, path=storage.path(sha256))

    if segment.level == "text":
        return
    if segment.text_from:
        yield "text", blob(_artifact(job, segment.text_from).sha256)
    shot = job.plan.shots[segment.shot]
    yield "video" if shot.media.kind == "video" else "image", blob(shot.media.sha256)
    if shot.last_media and segment.frame_indices[-1] >= shot.end - 1:
        yield "last_image", blob(shot.last_media.sha256)
    if segment.handover_from:
        yield "handover", blob(_artifact(job, segment.handover_from).handover_sha256 or "")
    if segment.anchor_from:
        yield "anchor", blob(_artifact(job, segment.anchor_from).handover_sha256 or "")
    for run in (*segment.sources, *segment.known):
        yield run.segment, segment_blob(storage, _artifact(job, run.segment))


def _artifact(job: Job, task_id: str) -> Artifact:
    """The result of a segment that another depends on."""
    artifact = job.tasks[task_id].artifact
    assert artifact is not None, f"{task_id} is not rendered"
    return artifact


def _segment_frames(job: Job, runs: Iterable[FrameRun]) -> Iterator[SegmentFrame]:
    for run in runs:
        indices = job.tasks[run.segment].segment.frame_indices
        for position in range(run.first, run.end):
            yield SegmentFrame(segment=run.segment, position=position, frame_index=indices[position])
