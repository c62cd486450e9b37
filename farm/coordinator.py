"""The one loop that acts: hears the cluster, records events, carries out what the pure parts decide."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

from farm.capabilities import Worker
from farm.cluster import (
    Blob,
    Cluster,
    Failed,
    Finished,
    Message,
    Order,
    Progress,
    Role,
    SegmentFrame,
    WorkerDown,
    WorkerUp,
)
from farm.engine_spec import EngineSpec
from farm.errors import CannotRun, InvalidInput, NotFound
from farm.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    FailureKind,
    JobCancelled,
    JobFailed,
    JobRetried,
    JobSubmitted,
    ResultRefused,
    TaskAssigned,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
)
from farm.job import JobRequest
from farm.joining import join_job
from farm.ledger import Ledger
from farm.plan import Plan, Segment
from farm.retry import StopJob, after_failure, stall_limit_s
from farm.schedule import Assignment, schedule
from farm.state import Attempt, Job, Task
from farm.storage import Storage
from farm.suggest import plan_over

log = logging.getLogger(__name__)

#: Lossless frames in storage over raw ones, and windows over frames, on the safe side.
STORED_BYTES_PER_PIXEL = 3.0
STALL_CHECK_S = 1.0


class Coordinator:
    """Owns the ledger: every change of state goes through ``ledger.record``.

    ``spec_of`` maps a model name to its spec; it raises NotFound for an unknown one.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        ledger: Ledger,
        storage: Storage,
        spec_of: Callable[[str], EngineSpec],
    ) -> None:
        self.cluster = cluster
        self.ledger = ledger
        self.storage = storage
        self.spec_of = spec_of
        self.clock = ledger.clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._joiners: dict[str, asyncio.Task[None]] = {}

    # What users do.

    def submit(self, request: JobRequest, *, coming: Sequence[Worker] = ()) -> str:
        """Plan a job, keep its inputs and start it. Returns the job's id.

        Args:
            request: What is to be made.
            coming: Workers that will be here, whether or not they are yet.

        Raises:
            InvalidInput, CannotRun, NotFound: as the planner says; nothing was started.
        """
        plan = self.plan(request, coming=coming)
        self.storage.check_space(stored_bytes(plan))
        for media in request.inputs:
            self.storage.put_file(media.path, media.sha256)
        job_id = f"job-{secrets.token_hex(6)}"
        self.ledger.record(JobSubmitted(job_id=job_id, request=request, plan=plan))
        self._begin(self.ledger.state.jobs[job_id])
        return job_id

    def plan(self, request: JobRequest, *, coming: Sequence[Worker] = ()) -> Plan:
        """The plan a submit would follow, made for the workers that are here or on their way."""
        here = {w.worker.id: w.worker for w in self.ledger.state.workers.values() if not w.draining}
        workers = {worker.id: worker for worker in coming} | here
        return plan_over(request, self.spec_of(request.model), workers.values())

    def cancel(self, job_id: str) -> None:
        job = self.ledger.job(job_id)
        if job.status != "running":
            raise InvalidInput(f"job {job_id} is {job.status}; only a running job can be cancelled")
        self.ledger.record(JobCancelled(job_id=job_id))
        self._withdraw(job)

    def retry(self, job_id: str) -> None:
        """Continue a failed or cancelled job: failures are forgiven, what is done is kept."""
        job = self.ledger.job(job_id)
        if job.status not in ("failed", "cancelled"):
            raise InvalidInput(f"job {job_id} is {job.status}; only a failed or cancelled job can be retried")
        self.ledger.record(JobRetried(job_id=job_id))
        self._begin(job)

    def drain(self, worker_id: str) -> None:
        """Let a worker finish what it has and go."""
        worker = self.ledger.state.workers.get(worker_id)
        if worker is None:
            raise NotFound(f"there is no worker {worker_id}; `farm nodes` lists them", param="worker_id")
        if not worker.draining:
            self.ledger.record(WorkerDraining(worker_id=worker_id))
        if not worker.attempts:
            self._spawn(self.cluster.release(worker_id))

    # The loop.

    async def run(self) -> None:
        """Work until cancelled. Ends with an error only when the journal cannot be written."""
        broken = asyncio.ensure_future(self.ledger.broken())
        listening = asyncio.ensure_future(self._listen())
        watching = asyncio.ensure_future(self._watch_for_stalls())
        try:
            done, _ = await asyncio.wait({listening, watching, broken}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for running in (listening, watching, broken, *self._joiners.values(), *self._tasks):
                running.cancel()
            await asyncio.gather(
                listening, watching, broken, *self._joiners.values(), *self._tasks, return_exceptions=True
            )

    def begin_recovered(self) -> None:
        """Go on with the jobs that ``recover`` found running."""
        for job in self.ledger.state.jobs.values():
            if job.status == "running":
                self._begin(job)

    async def _listen(self) -> None:
        async for message in self.cluster.messages():
            self._absorb(message)
            self.dispatch()

    def _absorb(self, message: Message) -> None:
        match message:
            case WorkerUp(worker=worker):
                self._worker_down(worker.id, "came back as a fresh process")
                self.ledger.record(WorkerJoined(worker=worker))
            case WorkerDown(worker_id=worker_id, reason=reason):
                self._worker_down(worker_id, reason)
            case Progress():
                self._note_progress(message)
            case Finished():
                if self._owns(message.attempt_id):
                    self._spawn(self._keep(message))
            case Failed(attempt_id=attempt_id, kind=kind, message=text):
                job, task, attempt = self._find(attempt_id)
                echo = kind == "cancelled" and not attempt.running  # of our own taking back
                if not echo and self._owns(attempt_id):
                    self._fail(job, task, attempt, kind, text)

    def dispatch(self) -> None:
        """Hand the idle workers what the schedule decides."""
        for assignment in schedule(self.ledger.state, self.clock()):
            self._start(assignment)

    def _start(self, assignment: Assignment) -> None:
        job = self.ledger.state.jobs[assignment.job_id]
        task = job.tasks[assignment.task_id]
        attempt_id = f"{job.id}/{task.id}/{len(task.attempts) + 1}"
        self.ledger.record(
            TaskAssigned(
                job_id=job.id,
                task_id=task.id,
                attempt_id=attempt_id,
                worker_id=assignment.worker_id,
                rung=assignment.rung,
                need_bytes=assignment.need_bytes,
                predicted_s=assignment.predicted_s,
                why=assignment.why,
            )
        )
        self.cluster.start(
            Order(
                attempt_id=attempt_id,
                worker_id=assignment.worker_id,
                task=job.plan.render_task(task.segment, take=task.take),
                rung=assignment.rung,
                need_bytes=assignment.need_bytes,
                inputs=self._inputs(job, task.segment),
                segment_frames=tuple(_segment_frames(job, task.segment)),
            )
        )

    def _inputs(self, job: Job, segment: Segment) -> dict[Role | str, Blob]:
        """The files a segment is rendered from."""
        shot = job.plan.shots[segment.shot]
        inputs: dict[Role | str, str] = {
            "video" if shot.media.kind == "video" else "image": shot.media.sha256
        }
        if shot.last_media:
            inputs["last_image"] = shot.last_media.sha256
        if segment.handover_from:
            inputs["handover"] = _artifact(job, segment.handover_from).handover_sha256 or ""
        if segment.anchor_from:
            inputs["anchor"] = _artifact(job, segment.anchor_from).handover_sha256 or ""
        for run in segment.sources:
            inputs[run.segment] = _artifact(job, run.segment).sha256
        return {role: Blob(sha256=sha, path=self.storage.path(sha)) for role, sha in inputs.items()}

    # What comes back.

    def _find(self, attempt_id: str) -> tuple[Job, Task, Attempt]:
        job_id, task_id, _ = attempt_id.split("/")
        job = self.ledger.state.jobs[job_id]
        task = job.tasks[task_id]
        return job, task, next(a for a in task.attempts if a.id == attempt_id)

    def _owns(self, attempt_id: str) -> bool:
        """The fence: whether an attempt may still change its task. A late word is counted."""
        job, task, attempt = self._find(attempt_id)
        if attempt.running:
            return True
        reason = f"it is {attempt.outcome}"
        log.info("refused a late result of %s: %s", attempt_id, reason)
        self.ledger.record(
            ResultRefused(job_id=job.id, task_id=task.id, attempt_id=attempt_id, reason=reason)
        )
        return False

    def _note_progress(self, message: Progress) -> None:
        with suppress(KeyError, StopIteration, ValueError):
            _, _, attempt = self._find(message.attempt_id)
            attempt.phase = message.phase
            attempt.heard_at = self.clock()
            if message.phase == "denoise":
                attempt.done_fraction = message.done / message.total

    async def _keep(self, result: Finished) -> None:
        """Store a result, then let it count: a crash in between only repeats the attempt."""
        job, task, attempt = self._find(result.attempt_id)
        try:
            sha256 = await asyncio.to_thread(self.storage.put, result.content)
            handover = None
            if result.handover is not None:
                handover = await asyncio.to_thread(self.storage.put, result.handover)
        except CannotRun as error:
            if self._owns(result.attempt_id):
                self._end_attempt(job, task, attempt, "cancelled", error.message)
                self.stop(job, error.message)
            return
        if not self._owns(result.attempt_id):
            return
        self.ledger.record(
            AttemptSucceeded(
                job_id=job.id,
                task_id=task.id,
                attempt_id=attempt.id,
                artifact=Artifact(
                    sha256=sha256,
                    size_bytes=len(result.content),
                    num_frames=result.num_frames,
                    frames_sha256=result.frames_sha256,
                    handover_sha256=handover,
                ),
                wall_s=result.wall_s,
                load_s=result.load_s,
                peak_bytes=result.peak_bytes,
            )
        )
        for other in task.running_attempts:
            self.cluster.cancel(other.id)
            self._end_attempt(job, task, other, "cancelled", "another copy was first")
        self._let_go_if_drained(attempt.worker_id)
        self.dispatch()

    def _fail(self, job: Job, task: Task, attempt: Attempt, kind: FailureKind, message: str) -> None:
        log.warning("%s failed (%s): %s", attempt.id, kind, message)
        self._end_attempt(job, task, attempt, kind, message)
        if job.status != "running":
            return
        decision = after_failure(self.ledger.state, job, task)
        if isinstance(decision, StopJob) and not task.running_attempts:
            self.stop(job, decision.reason)

    def _worker_down(self, worker_id: str, reason: str, kind: FailureKind = "lost") -> None:
        worker = self.ledger.state.workers.get(worker_id)
        if worker is None:
            return
        lost = [self._find(attempt_id) for attempt_id in worker.attempts]
        self.ledger.record(WorkerLeft(worker_id=worker_id, reason=reason))
        for job, task, attempt in lost:
            self._fail(job, task, attempt, kind, f"worker {worker_id} {reason}")

    def _end_attempt(self, job: Job, task: Task, attempt: Attempt, kind: FailureKind, message: str) -> None:
        self.ledger.record(
            AttemptFailed(job_id=job.id, task_id=task.id, attempt_id=attempt.id, kind=kind, message=message)
        )
        self._let_go_if_drained(attempt.worker_id)

    def stop(self, job: Job, reason: str) -> None:
        """End a job with the reason; what is done is kept."""
        self.ledger.record(JobFailed(job_id=job.id, reason=reason))
        self._withdraw(job)

    def _withdraw(self, job: Job) -> None:
        """Take back what an ended job still has running."""
        for task in job.tasks.values():
            for attempt in task.running_attempts:
                self.cluster.cancel(attempt.id)
                self._end_attempt(job, task, attempt, "cancelled", f"job {job.status}")
        self.dispatch()

    def _let_go_if_drained(self, worker_id: str) -> None:
        worker = self.ledger.state.workers.get(worker_id)
        if worker and worker.draining and not worker.attempts:
            self._spawn(self.cluster.release(worker_id))

    async def _watch_for_stalls(self) -> None:
        while True:
            await asyncio.sleep(STALL_CHECK_S)
            now = self.clock()
            for worker in list(self.ledger.state.workers.values()):
                for _, _, attempt in [self._find(attempt_id) for attempt_id in worker.attempts]:
                    silent_s = now - attempt.heard_at
                    if attempt.running and silent_s > stall_limit_s(attempt.phase, attempt.predicted_s):
                        self.cluster.kill(worker.worker.id)
                        reason = f"was silent for {silent_s:.0f} s in {attempt.phase}"
                        self._worker_down(worker.worker.id, reason, "stalled")
            self.dispatch()

    def _begin(self, job: Job) -> None:
        previous = self._joiners.get(job.id)
        if previous:
            previous.cancel()
        self._joiners[job.id] = asyncio.ensure_future(self._join_after(previous, job))
        self.dispatch()

    async def _join_after(self, previous: asyncio.Task[None] | None, job: Job) -> None:
        """Join a job once its last joiner has let go of the files both write."""
        if previous:
            await asyncio.wait({previous})
        await join_job(self, job)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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


def stored_bytes(plan: Plan) -> int:
    """Upper bound of what a job's segments take in storage."""
    return round(sum(s.num_frames for s in plan.segments) * plan.width * plan.height * STORED_BYTES_PER_PIXEL)
