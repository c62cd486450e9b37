"""How events change the farm's state.

``refusal`` says why an event cannot happen (the fence against late and duplicate results);
``apply`` makes it happen. Replaying a journal through ``apply`` gives the same state again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from farm.request import MediaInfo
from farm.state.events import (
    AttemptFailed,
    AttemptSucceeded,
    Event,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobPrioritized,
    JobPublished,
    JobReopened,
    JobRetried,
    JobSubmitted,
    KeyframeReplaced,
    KeyframesReady,
    KeyframesRemade,
    LicenceAccepted,
    NodeAdmitted,
    NodeRemoved,
    RemovalsFinished,
    ResultRefused,
    ReviewApproved,
    ReviewEvent,
    SeamAccepted,
    SeamMeasured,
    TaskAssigned,
    TaskEvent,
    TaskReopened,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
)
from farm.state.index import happened
from farm.state.rerender import reopen
from farm.state.review import goes_on, remake, review_refusal
from farm.state.state import (
    NOTHING,
    Attempt,
    Failure,
    Job,
    Seam,
    State,
    Task,
    blob_hashes,
    input_hashes,
    new_job,
)
from farm.state.transitions import FINAL, JOB_TRANSITIONS, TASK_TRANSITIONS
from farm.state.workers import NodeState, WorkerState


def refusal(state: State, event: Event) -> str | None:
    """Why this event may not happen now, or None when it may."""
    if isinstance(event, TaskEvent):
        return _task_refusal(state, event)
    match event:
        case NodeAdmitted() | LicenceAccepted() | RemovalsFinished():
            return None
        case NodeRemoved(node=node):
            if any(worker.worker.node == node for worker in state.workers.values()):
                return f"workers of node {node} are here"
            return None if node in state.nodes else f"no node {node}"
        case WorkerJoined(worker=worker):
            return f"worker {worker.id} is here" if worker.id in state.workers else None
        case WorkerLeft(worker_id=worker_id):
            here = worker_id in state.workers or worker_id in state.starting
            return None if here else f"no worker {worker_id}"
        case WorkerDraining(worker_id=worker_id, leaving=False) if worker_id in state.drained:
            return f"worker {worker_id} is drained"
        case WorkerEnabled(worker_id=worker_id) if worker_id in state.starting:
            return f"worker {worker_id} is starting"
        case WorkerDraining(worker_id=worker_id) | WorkerEnabled(worker_id=worker_id):
            known = any(worker_id in some for some in (state.workers, state.drained, state.starting))
            return None if known else f"no worker {worker_id}"
        case JobSubmitted(job_id=job_id):
            return f"job {job_id} exists" if job_id in state.jobs else None
    job = state.jobs.get(event.job_id)
    if job is None:
        return f"no job {event.job_id}"
    match event:
        case JobDeleted():
            ended = job.status in FINAL and not job.num_running
            return None if ended else f"job {job.id} is {job.status}: it cannot be deleted"
        case JobPrioritized():
            running = job.status == "running"
            return None if running else f"job {job.id} is {job.status}: {event.type} does not follow"
        case JobPublished() | JobFailed() | JobCancelled() | JobRetried() | JobReopened():
            if (job.status, event.type) not in JOB_TRANSITIONS:
                return f"job {job.id} is {job.status}: {event.type} does not follow"
            if event.type == "job_retried" and job.status == "running" and job.num_running:
                return f"job {job.id} is running: {event.type} does not follow"
            return _why_not_reopened(job, event) if event.type == "job_reopened" else None
        case _:
            return review_refusal(job, event)


def _task_refusal(state: State, event: TaskEvent) -> str | None:
    job = state.jobs.get(event.job_id)
    if isinstance(event, ResultRefused) or job is None:
        return None if isinstance(event, ResultRefused) else f"no job {event.job_id}"
    task = job.tasks.get(event.task_id)
    if task is None:
        return f"no task {event.task_id} in job {job.id}"
    match event:
        case SeamAccepted(take=take):
            measured = task.id in job.seams and take in job.seams[task.id].measured
            return None if measured else f"take {take} of the seam before {task.id} was not measured"
        case TaskAssigned() | TaskReopened():
            legal = (task.status, event.type) in TASK_TRANSITIONS
            return None if legal else f"task {task.id} is {task.status}: {event.type} does not follow"
        case AttemptSucceeded() | AttemptFailed():
            attempt = task.attempt(event.attempt_id)
            if attempt is None:
                return f"attempt {event.attempt_id} was never given task {task.id}"
            if not attempt.running:
                return f"attempt {event.attempt_id} no longer owns task {task.id}: it is {attempt.outcome}"
            # The second copy of a task that is done can only be taken back.
            if event.type == "attempt_succeeded" and task.status != "running":
                return f"task {task.id} is {task.status}: {event.type} does not follow"
    return None


def apply(state: State, event: Event, at: float, monotonic_s: float | None = None) -> None:
    """Make an event happen. Call ``refusal`` first: an event that may not happen corrupts the state.

    Args:
        state: Is changed.
        event: What happens.
        at: Seconds since the epoch, for people: the journal keeps it.
        monotonic_s: Of a clock that nobody sets, by which what is waited for is counted. A replay has none
            and needs none: nothing that runs outlives it.
    """
    monotonic_s = at if monotonic_s is None else monotonic_s
    if isinstance(event, TaskEvent):
        job = state.jobs[event.job_id]
        _apply_to_task(state, job, job.tasks[event.task_id], event, at, monotonic_s)
    else:
        _apply_rare(state, event, at)
    happened(state, event)


def _apply_rare(state: State, event: Event, at: float) -> None:
    match event:
        case NodeAdmitted(node=node):
            admitted = state.nodes.setdefault(node, NodeState())
            admitted.key_ids |= {event.key_id} if event.key_id else set()
            admitted.removed = False
        case NodeRemoved(node=node):
            removed = state.nodes[node]
            removed.key_ids.clear()
            removed.num_removals += 1
            removed.removed = True
            for off in (state.drained, state.starting):
                for worker_id in [w.id for w in off.values() if w.node == node]:
                    del off[worker_id]
        case LicenceAccepted(licence=licence):
            state.accepted_licences.add(licence)
        case RemovalsFinished():
            state.dropped_blobs.clear()
        case WorkerJoined():
            # A drained one came up again, with its machine or the coordinator: it has to go once more.
            was_drained = state.drained.pop(event.worker.id, None) is not None
            state.starting.pop(event.worker.id, None)
            state.workers[event.worker.id] = WorkerState(event.worker, draining=was_drained)
        case WorkerDraining():
            _drain(state, event)
        case WorkerEnabled():
            if event.worker_id in state.drained:
                state.starting[event.worker_id] = state.drained.pop(event.worker_id)
            else:
                worker = state.workers[event.worker_id]
                worker.draining = worker.leaving = False
        case WorkerLeft():
            state.starting.pop(event.worker_id, None)
            left = state.workers.pop(event.worker_id, None)
            if left and left.draining and not left.leaving:
                state.drained[event.worker_id] = left.worker
        case JobSubmitted():
            job = new_job(event, at)
            job.attempts_before = state.deleted.pop(job.id, 0)
            state.jobs[job.id] = job
            _use(state, input_hashes(job))
        case JobPrioritized():
            job = state.jobs[event.job_id]
            job.request = job.request.model_copy(update={"priority": event.priority})
        case JobDeleted():
            deleted = state.jobs.pop(event.job_id)
            most = max(task.num_attempts for task in deleted.tasks.values())
            state.deleted[deleted.id] = deleted.attempts_before + most
            _forget(state, blob_hashes(deleted))
        case JobPublished() | JobFailed() | JobCancelled() | JobRetried() | JobReopened():
            _apply_to_job(state, event, at)
        case KeyframesReady() | KeyframesRemade() | KeyframeReplaced() | ReviewApproved():
            _apply_to_review(state, state.jobs[event.job_id], event)


def _use(state: State, hashes: Collection[str]) -> None:
    for sha256 in hashes:
        state.blob_uses[sha256] += 1
        state.dropped_blobs.discard(sha256)


def _forget(state: State, hashes: Iterable[str]) -> None:
    uses = state.blob_uses
    for sha256 in hashes:
        uses[sha256] -= 1
        if not uses[sha256]:
            del uses[sha256]
            state.dropped_blobs.add(sha256)


def _drain(state: State, event: WorkerDraining) -> None:
    worker = state.workers.get(event.worker_id)
    if worker is not None:
        worker.draining, worker.leaving = True, event.leaving
        return
    gone = (state.starting if event.worker_id in state.starting else state.drained).pop(event.worker_id)
    if not event.leaving:
        state.drained[event.worker_id] = gone


def _why_not_reopened(job: Job, event: JobReopened) -> str | None:
    for task_id in event.takes:
        if task_id not in job.tasks:
            return f"no task {task_id} in job {job.id}"
        status = job.tasks[task_id].status
        if (status, event.type) not in TASK_TRANSITIONS:
            return f"task {task_id} is {status}: {event.type} does not follow"
    return None


def _apply_to_job(
    state: State, event: JobPublished | JobFailed | JobCancelled | JobRetried | JobReopened, at: float
) -> None:
    job = state.jobs[event.job_id]
    ended = job.status in FINAL
    job.status = JOB_TRANSITIONS[job.status, event.type]
    job.finished_at = None if job.status == "running" else at
    if ended or isinstance(event, JobRetried):
        job.reason = ""
        job.ready_failed.clear()
        for task in job.tasks.values():
            task.failures.clear()
    match event:
        case JobPublished():
            job.published = event
            state.profiles.learn_joining(job.plan, event.stitch_s)
        case JobFailed():
            job.reason = event.reason
        case JobReopened():
            reopen(job, event.takes)


def _apply_to_review(state: State, job: Job, event: ReviewEvent) -> None:
    match event:
        case KeyframesRemade():
            _show(state, job, (event.task_id, event.position), None)
            remake(job, event.takes, event.seed)
        case KeyframeReplaced():
            _show(state, job, (event.task_id, event.position), event.media)
            remake(job, event.takes)
        case KeyframesReady() | ReviewApproved():
            goes_on(job, event)


def _show(state: State, job: Job, place: tuple[str, int], media: MediaInfo | None) -> None:
    """A picture stands for a keyframe, or none any more."""
    replaced = job.pictures.pop(place, None)
    _forget(state, (replaced.sha256,) if replaced else ())
    if media is not None:
        job.pictures[place] = media
        _use(state, [media.sha256])


def _apply_to_task(
    state: State, job: Job, task: Task, event: TaskEvent, at: float, monotonic_s: float
) -> None:
    match event:
        case TaskAssigned():
            _assign(state, job, task, event, at, monotonic_s)
        case AttemptSucceeded():
            attempt = _end_attempt(state, job, task, event.attempt_id, "succeeded", at)
            attempt.wall_s, attempt.load_s = event.wall_s, event.load_s or 0.0
            attempt.peak_bytes = event.peak_bytes
            task.status = "done"
            replaced = task.artifacts.get(task.take)
            _forget(state, replaced.hashes if replaced else ())
            task.artifacts[task.take] = event.artifact
            _use(state, event.artifact.hashes)
            job.num_done += 1
            worker = state.workers.get(attempt.worker_id)
            if worker is not None:
                kind = worker.worker.kind
                state.profiles.learn_success(
                    job.pace(task, kind),
                    attempt.worker_id,
                    attempt.rung,
                    # Packing and sending keep no worker from its next task.
                    render_s=event.wall_s - event.load_s - event.phases_s.get("transfer", 0.0),
                    load_s=event.load_s,
                    card=worker.worker.device_name if kind == "cuda" else "",
                )
            for dependent_id in job.dependents.get(task.id, ()):
                dependent = job.tasks[dependent_id]
                dependent.waits_for = dependent.waits_for - {task.id} or NOTHING
                if dependent.status == "waiting":
                    job.queue(dependent)
        case AttemptFailed():
            attempt = _end_attempt(state, job, task, event.attempt_id, event.kind, at)
            attempt.message = event.message
            if event.kind not in ("cancelled", "coordinator_restart"):
                task.failures.append(Failure(attempt.worker_id, event.kind, event.message))
                if task.status == "ready":  # opened again while another copy still ran
                    job.ready_failed.add(task.order)
            if event.kind == "oom":
                worker = state.workers.get(attempt.worker_id)
                if worker is not None:
                    held = worker.worker.vram_bytes
                    state.profiles.learn_oom(job.plan, task.segment, attempt.rung, worker.worker.kind, held)
            if task.status == "running" and not task.running_attempts:
                job.queue(task)
        case ResultRefused():
            job.num_refused += 1
        case SeamMeasured():
            job.seams.setdefault(task.id, Seam()).measured[event.take] = event
            job.seam_changed(task.id)
        case SeamAccepted():
            job.seams.setdefault(task.id, Seam()).accepted_take = event.take
            job.seam_changed(task.id)
        case TaskReopened():
            task.take = event.take
            task.failures.clear()
            job.num_done -= 1
            task.waits_for = job.undone(task.segment.depends_on)
            job.queue(task)
            for dependent_id in job.dependents.get(task.id, ()):
                job.wait_again(job.tasks[dependent_id], task.id)


def _assign(state: State, job: Job, task: Task, event: TaskAssigned, at: float, monotonic_s: float) -> None:
    if task.status == "ready":
        job.dequeue(task)
    task.status = "running"
    task.begin(
        Attempt(
            id=event.attempt_id,
            worker_id=event.worker_id,
            rung=event.rung,
            need_bytes=event.need_bytes,
            predicted_s=event.predicted_s,
            why=event.why,
            take=task.take,
            started_at=at,
            given_at=monotonic_s,
            heard_at=monotonic_s,
        )
    )
    job.num_running += 1
    job.running_tasks.add(task.id)
    worker = state.workers.get(event.worker_id)
    if worker is not None:
        task.attempts[-1].price_per_hour = worker.worker.price_per_hour
        worker.attempts[event.attempt_id] = (job.id, task.id)
        model = job.pace(task, worker.worker.kind).model
        if task.segment.level != "text" or worker.warm_model != model:  # of prompts, its encoder alone
            worker.warm_model = None if task.segment.level == "text" else model


def _end_attempt(state: State, job: Job, task: Task, attempt_id: str, outcome: str, at: float) -> Attempt:
    attempt = task.attempt(attempt_id)
    assert attempt is not None, "refusal() lets no other pass"
    attempt.outcome = outcome
    attempt.ended_at = at
    job.num_running -= 1
    if not task.running_attempts:
        job.running_tasks.discard(task.id)
    # How long a coordinator was away is no time that a worker worked.
    if attempt.price_per_hour is None:
        job.cost = None
    elif job.cost is not None and outcome != "coordinator_restart":
        # A clock that was set back pays nobody.
        job.cost += attempt.price_per_hour * max(0.0, at - attempt.started_at) / 3600
    if worker := state.workers.get(attempt.worker_id):
        worker.attempts.pop(attempt_id, None)
    return attempt
