"""The one loop that acts: hears the cluster, records events, carries out what the pure parts decide."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from farm.capabilities import SpecOf, Worker
from farm.errors import InvalidInput
from farm.planning import Plan, plan_with
from farm.request import JobRequest
from farm.running.blobs import Blobs
from farm.running.cluster import Cluster, Failed, Finished, Message, Models, Progress, WorkerDown, WorkerUp
from farm.running.draining import Draining
from farm.running.joining import Joiners
from farm.running.orders import order_for
from farm.running.reopening import Reopening
from farm.running.results import Results
from farm.running.stalls import is_quiet, watch_for_stalls
from farm.running.storage import Storage, stored_bytes
from farm.scheduling import MAX_ASSIGNMENTS, Assignment, StopJob, after_failure, ends_on, schedule
from farm.state import (
    Attempt,
    AttemptFailed,
    FailureKind,
    Found,
    Job,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobSubmitted,
    Ledger,
    ResultRefused,
    Task,
    TaskAssigned,
    Telemetry,
    WorkerJoined,
    WorkerLeft,
    WorkerState,
    attempt_ids,
    blob_hashes,
    heard,
    noticed,
    told_models,
)
from farm.threads import in_turns

log = logging.getLogger(__name__)


class Coordinator:
    """Owns the ledger: every change of state goes through ``ledger.record``.

    ``spec_of`` maps a model's name, and its weights, to its spec; it raises NotFound for an unknown one.
    """

    def __init__(self, *, cluster: Cluster, ledger: Ledger, storage: Storage, spec_of: SpecOf) -> None:
        self.cluster = cluster
        self.ledger = ledger
        self.storage = storage
        self.spec_of = spec_of
        self.blobs = Blobs(storage, ledger)
        self.clock = ledger.clock
        self._draining = Draining(cluster, ledger, self._spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._results = Results(ledger, storage, self.blobs, self)
        self.reopening = Reopening(ledger, storage, self)
        self.joiners = Joiners(
            cluster, ledger, storage, self.reopening, dispatch=self.dispatch, stop_job=self.stop
        )

    # What users do.

    def submit(
        self,
        request: JobRequest,
        *,
        coming: Sequence[Worker] = (),
        plan: Plan | None = None,
        job_id: str | None = None,
        submitted_by: str = "",
        submitted_by_id: str = "",
        remixed_from: str | None = None,
    ) -> str:
        """Plan a job, keep its inputs and start it. Returns the job's id.

        Args:
            request: What is to be made.
            coming: Workers that will be here, whether or not they are yet.
            plan: What ``plan`` has made of the request; None: it is made now.
            job_id: Its id, ``job-`` and 12 hex digits, which no job has; None: a new one.
            submitted_by: Name of who asked for it.
            submitted_by_id: Id of who asked for it.
            remixed_from: Id of the job whose video it is made from.

        Raises:
            InvalidInput, CannotRun, NotFound: as the planner says; nothing was started.
        """
        plan = plan or self.plan(request, coming=coming)
        self.storage.check_space(stored_bytes(plan))
        for media in request.files:
            self.storage.put_file(media.path, media.sha256)
        job_id = job_id or f"job-{secrets.token_hex(6)}"
        self.ledger.record(
            JobSubmitted(
                job_id=job_id,
                request=request,
                plan=plan,
                submitted_by=submitted_by,
                submitted_by_id=submitted_by_id,
                remixed_from=remixed_from,
            )
        )
        self.begin(self.ledger.state.jobs[job_id])
        return job_id

    def plan(self, request: JobRequest, *, coming: Sequence[Worker] = ()) -> Plan:
        """The plan a submit would follow, made for the workers that are here or on their way. May be called
        in a thread: a long video takes a while."""
        here = {w.worker.id: w for w in list(self.ledger.state.workers.values()) if not w.draining}
        states = {worker.id: WorkerState(worker) for worker in coming} | here
        ends = ends_on(states.values(), self.ledger.state.profiles)
        return plan_with(request, self.spec_of, [w.worker for w in states.values()], ends)

    def cancel(self, job_id: str) -> None:
        job = self.ledger.job(job_id)
        if job.status != "running":
            raise InvalidInput(f"job {job_id} is {job.status}; only a running job can be cancelled")
        self.ledger.record(JobCancelled(job_id=job_id))
        self.withdraw(job.tasks.values(), "job cancelled")
        self.dispatch()

    def retry(self, job_id: str) -> None:
        """Continue a job that failed, was cancelled or waits: failures are forgiven, what is done is kept.

        Raises:
            InvalidInput: it has succeeded, a worker is at it, or there is nothing to forgive.
        """
        self.reopening.retry(job_id)

    def rerender(self, job_id: str, start: int, end: int) -> list[str]:
        """Render the finished segments of frames [start, end) again, with other noise.

        What starts from one of them is too. The job runs again; its video stays until the new one is whole.
        Returns the ids of the segments.

        Raises:
            InvalidInput: no such frames, or none of them is rendered.
            CannotRun: the disk has no room for them.
        """
        return self.reopening.rerender(job_id, start, end)

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended, and remove its files but for those other jobs use.

        Raises:
            InvalidInput: it is running.
        """
        job = self.ledger.job(job_id)
        if job.status == "running":
            raise InvalidInput(f"job {job_id} is running; cancel it first")
        self.withdraw(job.tasks.values(), "job deleted")
        self.ledger.record(JobDeleted(job_id=job_id))
        self._spawn(self._remove(job, self.joiners.stop(job_id)))

    def drain(self, worker_id: str, *, leaving: bool = False) -> None:
        """Let a worker finish what it has and end. It stays listed, unless its machine is leaving.

        Raises:
            NotFound: there is no such worker.
        """
        self._draining.drain(worker_id, leaving=leaving)

    def enable(self, worker_id: str) -> None:
        """Take a drain back: the worker works on, or comes back where it has ended.

        Raises:
            NotFound: there is no such worker.
        """
        if self._draining.enable(worker_id):
            self.dispatch()

    def has_node(self, node: str) -> bool:
        """Whether a machine of this name is in the farm, though all of its workers may be drained."""
        state = self.ledger.state
        off = (*state.drained.values(), *state.starting.values())
        return any(w.worker.node == node for w in state.workers.values()) or any(
            worker.node == node and self.cluster.has_place(worker.id) for worker in off
        )

    # The loop.

    async def run(self) -> None:
        """Work until cancelled. Ends with an error only when the journal cannot be written."""
        broken = asyncio.ensure_future(self.ledger.broken())
        listening = asyncio.ensure_future(self._listen())
        watching = asyncio.ensure_future(watch_for_stalls(self.cluster, self.ledger, self))
        try:
            done, _ = await asyncio.wait({listening, watching, broken}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for running in (listening, watching, broken, *self._tasks):
                running.cancel()
            await self.joiners.close()
            await asyncio.gather(listening, watching, broken, *self._tasks, return_exceptions=True)

    def begin_recovered(self) -> None:
        """Go on with the jobs that ``recover`` found running, and with the removals it left half done."""
        for job in self.ledger.state.jobs.values():
            if job.status == "running":
                self.begin(job)
        self.reopening.join_lost_videos()
        self._spawn(self.blobs.finish_removals())
        self._spawn(self.joiners.complete_records())

    async def _listen(self) -> None:
        async for message in in_turns(self.cluster.messages()):
            with self.ledger.together():
                self._absorb(message)
                if not is_quiet(message):
                    self.dispatch()

    def _absorb(self, message: Message) -> None:
        match message:
            case WorkerUp(worker=worker):
                if worker.id in self.ledger.state.workers:
                    self.worker_down(worker.id, "came back as a fresh process")
                self.ledger.record(WorkerJoined(worker=worker))
                self._draining.let_go_if_drained(worker.id)
            case WorkerDown(worker_id=worker_id, reason=reason, kind=kind):
                self.worker_down(worker_id, reason, kind)
            case Progress(attempt_id=attempt_id, phase=phase):
                done = message.done / message.total if phase == "denoise" else None
                heard(self.ledger.state, attempt_id, phase, done, self.ledger.monotonic())
            case Telemetry() if noticed(self.ledger.state, message, self.clock()):
                self.dispatch()
            case Models(worker_id=worker_id, held=held):
                told_models(self.ledger.state, worker_id, {each.model: each.size_bytes for each in held})
            case Finished():
                if self.owned(message.attempt_id):
                    self._spawn(self._results.keep(message))
                else:
                    self._spawn(self._results.keep_log(message.attempt_id, message.log))
            case Failed(attempt_id=attempt_id, kind=kind, message=text):
                self._spawn(self._results.keep_log(attempt_id, message.log))
                found = self.ledger.state.find(attempt_id)
                echo = kind == "cancelled" and found and not found[2].running  # of our own taking back
                if not echo and (owned := self.owned(attempt_id)):
                    if kind == "error":
                        self._spawn(self._failed(attempt_id, text))
                    else:
                        self._fail(*owned, kind, text)

    def dispatch(self) -> None:
        """Hand the idle workers what the schedule decides."""
        with self.ledger.together():
            while assignments := schedule(self.ledger.state, self.ledger.monotonic()):
                for assignment in assignments:
                    self._start(assignment)
                if len(assignments) < MAX_ASSIGNMENTS:
                    return

    def _start(self, assignment: Assignment) -> None:
        job = self.ledger.state.jobs[assignment.job_id]
        task = job.tasks[assignment.task_id]
        attempt_id = job.attempt_id(task)
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
        log.info(
            "%s goes to %s: %s",
            attempt_id,
            assignment.worker_id,
            assignment.why,
            extra=attempt_ids(attempt_id) | {"worker_id": assignment.worker_id},
        )
        order = order_for(self.storage, job, assignment, attempt_id)
        self.ledger.once_written(partial(self.cluster.start, order))

    # What comes back.

    def owned(self, attempt_id: str) -> Found | None:
        """The fence: an attempt that may still change its task, or None. A late word is counted."""
        found = self.ledger.state.find(attempt_id)
        if found is None:
            return None
        job, task, attempt = found
        if attempt.running:
            return found
        reason = f"it is {attempt.outcome}"
        log.info("refused a late result of %s: %s", attempt_id, reason, extra=attempt_ids(attempt_id))
        self.ledger.record(
            ResultRefused(job_id=job.id, task_id=task.id, attempt_id=attempt_id, reason=reason)
        )
        return None

    def succeeded(self, task: Task, attempt: Attempt) -> None:
        """What follows a result that counts."""
        worker = attempt.worker_id
        ids = attempt_ids(attempt.id) | {"worker_id": worker}
        log.info("%s is rendered by %s in %.1f s", attempt.id, worker, attempt.wall_s, extra=ids)
        for other in task.running_attempts:
            self.ledger.once_written(partial(self.cluster.cancel, other.id))
            self._end_attempt(other, "cancelled", "another copy was first")
        self._draining.let_go_if_drained(worker)
        self.dispatch()

    def give_up(self, attempt_id: str, reason: str) -> None:
        """Stop a job whose result cannot be stored."""
        if owned := self.owned(attempt_id):
            self._end_attempt(owned[2], "cancelled", reason)
            self.stop(owned[0], reason)

    def lose(self, attempt_id: str, reason: str) -> None:
        if owned := self.owned(attempt_id):
            self._fail(*owned, "lost", reason)
            self.dispatch()

    async def _failed(self, attempt_id: str, message: str) -> None:
        """What follows an error on a worker; nobody is to blame where an input was lost."""
        found = self.ledger.state.find(attempt_id)
        lost = await self.reopening.lost_inputs(found[0], found[1]) if found else []
        found = self.ledger.state.find(attempt_id)
        if found is None or not found[2].running:
            return
        if lost:
            self._end_attempt(found[2], "cancelled", message)
            for task in lost:
                self.reopening.lost(found[0], task, task.take, "its file is missing or damaged")
        else:
            self._fail(*found, "error", message)
        self.dispatch()

    def _fail(self, job: Job, task: Task, attempt: Attempt, kind: FailureKind, message: str) -> None:
        ids = attempt_ids(attempt.id) | {"worker_id": attempt.worker_id}
        log.warning("%s failed (%s): %s", attempt.id, kind, message, extra=ids)
        self._end_attempt(attempt, kind, message)
        if job.status != "running":
            return
        decision = after_failure(self.ledger.state, job, task)
        if isinstance(decision, StopJob) and not task.running_attempts:
            self.stop(job, decision.reason)

    def worker_down(self, worker_id: str, reason: str, kind: FailureKind = "lost") -> None:
        state = self.ledger.state
        worker = state.workers.get(worker_id)
        if worker is None:
            if worker_id in state.starting:
                self.ledger.record(WorkerLeft(worker_id=worker_id, reason=reason))
            return
        lost = [found for attempt_id in worker.attempts if (found := state.find(attempt_id))]
        self.ledger.record(WorkerLeft(worker_id=worker_id, reason=reason))
        for job, task, attempt in lost:
            self._fail(job, task, attempt, kind, f"worker {worker_id} {reason}")

    def _end_attempt(self, attempt: Attempt, kind: FailureKind, message: str) -> None:
        self.ledger.record(AttemptFailed(**attempt_ids(attempt.id), kind=kind, message=message))
        self._draining.let_go_if_drained(attempt.worker_id)

    def stop(self, job: Job, reason: str) -> None:
        """End a job with the reason; what is done is kept."""
        self.ledger.record(JobFailed(job_id=job.id, reason=reason))
        self.withdraw(job.tasks.values(), "job failed")
        self.dispatch()

    def withdraw(self, tasks: Iterable[Task], reason: str) -> None:
        """Take back what runs of these tasks."""
        for task in tasks:
            for attempt in task.running_attempts:
                self.ledger.once_written(partial(self.cluster.cancel, attempt.id))
                self._end_attempt(attempt, "cancelled", reason)

    async def _remove(self, job: Job, joiners: Collection[asyncio.Task[None]]) -> None:
        """Remove a deleted job's files once its joiners have let go of them."""
        if joiners:
            await asyncio.wait(joiners)
        await self.blobs.remove_job(job.id, blob_hashes(job))

    def begin(self, job: Job) -> None:
        self.joiners.begin(job)
        self.dispatch()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
