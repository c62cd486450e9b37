"""What a worker is told: one attempt at one task, and the files it is rendered from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from farm.planning import FrameRun, Segment
from farm.request import MediaInfo, VideoReading
from farm.running.cluster import Blob, InputVideo, Order, Role, SegmentFrame
from farm.running.storage import Storage
from farm.scheduling import Assignment
from farm.state import Artifact, Job


def order_for(storage: Storage, job: Job, assignment: Assignment, attempt_id: str) -> Order:
    """The order of an attempt, for the task's present take."""
    task = job.tasks[assignment.task_id]
    sources = list(_frames(storage, job, task.segment.sources))
    known = list(_frames(storage, job, task.segment.known))
    beside = dict(_beside(storage, job, task.segment))
    return Order(
        attempt_id=attempt_id,
        worker_id=assignment.worker_id,
        task=job.plan.render_task(task.segment, take=task.take, seed=task.seed),
        rung=assignment.rung,
        need_bytes=assignment.need_bytes,
        inputs={
            **dict(_inputs(storage, job, task.segment)),
            **{frame.segment: blob for frame, blob in (*sources, *known)},
            **beside,
        },
        segment_frames=tuple(frame for frame, _ in sources),
        known_frames=tuple(frame for frame, _ in known),
        input_video=_video(job, task.segment, job.plan.shots[task.segment.shot].media),
        mask_video=_video(job, task.segment, job.plan.mask) if "mask" in beside else None,
        references=tuple(name for name in beside if name != "mask"),
    )


def segment_blob(storage: Storage, artifact: Artifact) -> Blob:
    """A finished segment's frames."""
    return Blob(
        sha256=artifact.sha256,
        path=storage.path(artifact.sha256),
        frames_sha256=artifact.frames_sha256,
    )


def _beside(storage: Storage, job: Job, segment: Segment) -> Iterator[tuple[str, Blob]]:
    """The mask and the references, where a segment is rendered by the model that takes them."""
    plan = job.plan
    if segment.level == "text" or (plan.draft and segment.drafted and plan.draft.model != plan.model):
        return
    given = {f"reference-{i}": media for i, media in enumerate(plan.references)}
    for name, media in {**({"mask": plan.mask} if plan.mask else {}), **given}.items():
        yield name, Blob(sha256=media.sha256, path=storage.path(media.sha256))


def _video(job: Job, segment: Segment, media: MediaInfo | None) -> InputVideo | None:
    if media is None or media.kind != "video" or media.fps is None or segment.level == "text":
        return None
    if media.reading is None:  # planned when frames were counted, whatever the rate that was asked for
        return InputVideo(reading=VideoReading(counted=True), source_fps=media.fps, fps=media.fps)
    return InputVideo(reading=media.reading, source_fps=media.fps, fps=job.plan.fps)


def _inputs(storage: Storage, job: Job, segment: Segment) -> Iterator[tuple[Role | str, Blob]]:
    """The content a segment is rendered from, but for the frames that others have rendered.

    It starts from the picture that stands for the frame it would start from.
    """

    def blob(sha256: str) -> Blob:
        return Blob(sha256=sha256, path=storage.path(sha256))

    if segment.level == "text":
        return
    if segment.text_from:
        yield "text", blob(_artifact(job, segment.text_from).sha256)
    shot = job.plan.shots[segment.shot]
    picture = _handed_picture(job, segment)
    source = picture or (None if shot.media is None else shot.media.sha256)
    if source is not None:
        yield "video" if shot.is_over_video else "image", blob(source)
    if shot.last_media and segment.frame_indices[-1] >= shot.end - 1:
        yield "last_image", blob(shot.last_media.sha256)
    if picture:
        return  # what was handed over there shows something else
    if segment.handover_from:
        yield "handover", blob(_artifact(job, segment.handover_from).handover_sha256 or "")
    if segment.anchor_from:
        yield "anchor", blob(_artifact(job, segment.anchor_from).handover_sha256 or "")


def _handed_picture(job: Job, segment: Segment) -> str | None:
    """SHA-256 of the picture that stands for the frame this segment starts from, refined or as drafted."""
    if segment.handover_from is None:
        return None
    for (replaced, position), media in job.pictures.items():
        other = job.tasks[replaced].segment
        if other.shot == segment.shot and other.frame_indices[position] == segment.start:
            return media.sha256
    return None


def _artifact(job: Job, task_id: str) -> Artifact:
    """The result of a segment that another depends on."""
    artifact = job.tasks[task_id].artifact
    assert artifact is not None, f"{task_id} is not rendered"
    return artifact


def _frames(storage: Storage, job: Job, runs: Iterable[FrameRun]) -> Iterator[tuple[SegmentFrame, Blob]]:
    """These frames, each with what it is found in: the segment, or a picture that stands for it alone."""
    for run in runs:
        indices = job.tasks[run.segment].segment.frame_indices
        rendered = segment_blob(storage, _artifact(job, run.segment))
        for position in range(run.first, run.end):
            frame = SegmentFrame(segment=run.segment, position=position, frame_index=indices[position])
            picture = job.pictures.get((run.segment, position))
            if picture is None:
                yield frame, rendered
            else:
                alone = {"segment": f"{run.segment}@{position}", "position": None}
                blob = Blob(sha256=picture.sha256, path=storage.path(picture.sha256))
                yield frame.model_copy(update=alone), blob
