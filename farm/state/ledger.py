"""State and journal together: the one place where an event becomes fact."""

from __future__ import annotations

import asyncio
import gc
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from farm.errors import CannotRun, InvalidInput, NotFound
from farm.state.changes import apply, refusal
from farm.state.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    JobDeleted,
    JobSubmitted,
    TaskReopened,
    WorkerLeft,
)
from farm.state.journal import Journal
from farm.state.rerender import lost_results
from farm.state.snapshot import decoded, restore
from farm.state.state import Job, State
from farm.state.state_folder import JOURNAL_NAME

#: Segments of a job that the garbage collector would feel.
LARGE_JOB = 1000
#: And so many results.
MANY_RESULTS = 20_000
#: (sequence number, time, event)
Recorded = tuple[int, float, Event]


class Ledger:
    """The farm's state, changed only by ``record``, and whoever wants to hear of it.

    Two clocks: ``clock`` in seconds since the epoch tells people when something happened, and the journal
    keeps it; ``monotonic`` measures what is waited for. The first is set, by people and time servers; so
    nothing is decided by it.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State()
        self.journal = journal
        self.clock = clock
        self.monotonic = monotonic
        #: Sequence number of the newest event; 0 before the first.
        self.last_seq = 0
        #: Those that must hear every event: up to which of a number have they read?
        self.readers: list[Callable[[int], Awaitable[int]]] = []
        self._watchers: set[asyncio.Queue[Recorded]] = set()
        self._failure: CannotRun | None = None
        self._failed = asyncio.Event()
        self._num_results = 0
        #: What follows once the events that are recorded together are written; None: each is written at once.
        self._to_follow: list[Callable[[], None]] | None = None

    def record(self, event: Event) -> None:
        """Check, journal, apply, tell.

        Raises:
            RuntimeError: the event may not happen now (a fault of the caller, who checks first).
            CannotRun: the journal cannot be written; ``broken`` ends with it too.
        """
        refused = refusal(self.state, event)
        if refused:
            raise RuntimeError(refused)
        at = self.clock()
        try:
            seq = self.journal.append(event, at)
        except CannotRun as error:
            self._fails(error)
            raise
        self._apply(seq, at, event, self.monotonic())
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((seq, at, event))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is recorded herein is written in one go at its end: all of it, or nothing where the
        coordinator is killed before. So what acts on it outside waits (``once_written``). May be nested.

        Raises:
            CannotRun: as ``record``; the state is then ahead of the journal, and the farm has to end.
        """
        if self._to_follow is not None:
            yield
            return
        following: list[Callable[[], None]] = []
        self._to_follow = following
        self.journal.begin()
        try:
            yield
        finally:
            self._to_follow = None
            try:
                self.journal.end()
            except CannotRun as error:
                self._fails(error)
                raise
            for act in following:
                act()

    def once_written(self, act: Callable[[], None]) -> None:
        """Act as soon as everything recorded so far is written."""
        if self._to_follow is None:
            act()
        else:
            self._to_follow.append(act)

    def _fails(self, error: CannotRun) -> None:
        self._failure = error
        self._failed.set()

    def replay(self, until: int | None = None) -> None:
        """Rebuild the state from the journal's snapshot and the events behind it, without writing.

        ``until``: the newest event that counts; not before the snapshot.

        Raises:
            CannotRun: the snapshot or an event is damaged; says which, and why.
        """
        with self.journal.one_moment():
            self._restore()
            self._follow(until)

    def _follow(self, until: int | None) -> None:
        for seq, at, event in self.journal.events(after=self.last_seq, until=until):
            try:
                self._apply(seq, at, event)
            except (LookupError, ValueError, AssertionError, AttributeError) as error:
                cause = f"a {event.type} cannot follow what is before it: {type(error).__name__} {error}"
                raise self.journal.damaged(seq, cause.strip()) from error

    def _restore(self) -> None:
        if not self.journal.snapshot_seq:
            return
        try:
            restore(
                self.state, map(decoded, self.journal.parts()), lambda job: self._submission(job.first_seq)
            )
        except (LookupError, ValueError, AssertionError, AttributeError, zlib.error) as error:
            raise self.journal.damaged_snapshot(f"{type(error).__name__} {error}") from error
        self.last_seq = self.journal.snapshot_seq
        _keep(sum(len(job.tasks) for job in self.state.jobs.values()))

    def _submission(self, seq: int) -> JobSubmitted:
        for _, _, event in self.journal.events(after=seq - 1, until=seq):
            if isinstance(event, JobSubmitted):
                return event
        raise LookupError(f"event {seq} submits no job")

    def _apply(self, seq: int, at: float, event: Event, monotonic_s: float | None = None) -> None:
        apply(self.state, event, at, monotonic_s)
        self.last_seq = seq
        job = self.state.jobs.get(getattr(event, "job_id", ""))
        if job is not None:
            job.last_seq = seq
            if isinstance(event, JobSubmitted):
                job.first_seq = seq
                _keep(len(event.plan.segments))
            elif isinstance(event, AttemptSucceeded):
                self._num_results += 1
                if self._num_results % MANY_RESULTS == 0:
                    gc.collect()  # what is in a circle and unreachable goes now, or never
                    gc.freeze()

    def recover(self, stored: Callable[[Artifact], bool]) -> None:
        """Take back what was in flight when the last coordinator went away, once it is replayed."""
        for worker_id in (*self.state.workers, *self.state.starting):
            self.record(WorkerLeft(worker_id=worker_id, reason="coordinator restarted"))
        for job in self.state.jobs.values():
            for task in job.tasks.values():
                for attempt in task.running_attempts:
                    self.record(
                        AttemptFailed(
                            job_id=job.id,
                            task_id=task.id,
                            attempt_id=attempt.id,
                            kind="coordinator_restart",
                            message="coordinator restarted",
                        )
                    )
            for task, take in lost_results(job, stored) if job.status == "running" else ():
                reason = "its file is gone from the storage"
                self.record(TaskReopened(job_id=job.id, task_id=task.id, take=take, reason=reason))

    def job(self, job_id: str) -> Job:
        job = self.state.jobs.get(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id}; `farm jobs` lists them", param="job_id")
        return job

    async def read_up_to(self, seq: int) -> int:
        """Up to which event, ``seq`` at most, everybody has read who must hear every one."""
        for reader in self.readers:
            seq = await reader(seq)
        return max(seq, 0)

    @contextmanager
    def watch(self, newest: int = 0) -> Iterator[asyncio.Queue[Recorded]]:
        """Every event from now on; of those that are not taken, only so many of the newest (0: all)."""
        queue: asyncio.Queue[Recorded] = asyncio.Queue(newest)
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    async def follow(self, job_id: str, *, after: int = 0) -> AsyncIterator[Recorded]:
        """A job's events past ``after``, those to come included, until the job has ended or is deleted.

        Those of an earlier job of this id, deleted since, are not among them.
        """
        job = self.job(job_id)
        after = max(after, job.first_seq - 1)
        with self.watch() as queue:
            for seq, at, event in self.journal.events(job_id=job_id, after=after):
                after = seq
                yield seq, at, event
            while job.status == "running" or not queue.empty():
                seq, at, event = await queue.get()
                if seq > after and getattr(event, "job_id", None) == job_id:
                    yield seq, at, event
                    if isinstance(event, JobDeleted):
                        return

    async def broken(self) -> None:
        """Ends, with the error, when the journal could not be written."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure


def _keep(num_segments: int) -> None:
    """Have the garbage collector never look through a large job, which takes a second for a million segments.

    It is in no circle, and goes as soon as nobody holds it. So do its results, a batch at a time.
    """
    if num_segments >= LARGE_JOB:
        gc.freeze()


@contextmanager
def past(folder: Path) -> Iterator[Ledger]:
    """What the journal of a state folder tells, for reading; the farm may be up or not.

    Raises:
        InvalidInput: there is no journal.
    """
    path = folder / JOURNAL_NAME
    if not path.exists():
        raise InvalidInput(f"there is no farm in {folder}; name its folder with --state", param="state")
    with replayed(folder) as ledger:
        yield ledger


@contextmanager
def replayed(folder: Path) -> Iterator[Ledger]:
    """The ledger of a state folder, with its history replayed.

    Raises:
        CannotRun: the journal cannot be opened, or is damaged.
    """
    with closing(Journal(folder / JOURNAL_NAME)) as journal:
        ledger = Ledger(journal)
        ledger.replay()
        yield ledger
