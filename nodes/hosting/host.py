"""Putting a farm together on this machine: Ray, coordinator, journal and storage, up and down again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from farm.capabilities import SpecOf, Worker
from farm.errors import CannotRun
from farm.planning import Plan, plan_with, refusal
from farm.reporting import console
from farm.request import JobRequest, MediaInfo
from farm.running import Coordinator, Storage
from farm.scheduling import ends_on
from farm.state import FolderInUse, JobCancelled, Ledger, WorkerState, locked, replayed
from nodes.engines import spec_of
from nodes.interpolation import check_chosen
from nodes.machine import SessionFolder, new_session_folder, new_token, ray_environment
from nodes.media import normalise
from nodes.ray import Launch, RayCluster, Start
from nodes.work import StitchProcess

LOOPBACK = "127.0.0.1"
#: What Ray's driver says, in the state folder.
DRIVER_LOG_NAME = "ray-driver.log"
#: A local farm's workers must all be there by then.
WORKERS_TIMEOUT_S = 90.0
#: Between looks at whether another render has given the folder back.
TURN_INTERVAL_S = 0.5


def take_in(
    paths: Sequence[Path],
    folder: Path,
    on_look: Callable[[str, int, float | None], None] | None = None,
    *,
    clip: bool = False,
) -> tuple[MediaInfo, ...]:
    """Check and normalise a user's files into ``folder``, each decoded in a child process.

    on_look: told how far the look at a file is, by its name; what it raises ends it.
    clip: an animated picture is a video; else its first picture is taken.
    """
    return tuple(
        normalise(path, folder, on_look and partial(on_look, path.name), clip=clip) for path in paths
    )


def planned(request: JobRequest, workers: Iterable[Worker]) -> Plan:
    """The plan of a request, refused before anything is started where these workers could not hold it."""
    workers = list(workers)
    return plan_with(request, spec_of, workers, ends_on(map(WorkerState, workers)))


def check_placement(plan: Plan, workers: Iterable[Worker]) -> None:
    """
    Raises:
        CannotRun: no worker can hold a window of this plan; what one could hold is said.
    """
    refused = refusal(plan, spec_of(plan.model, plan.weights), workers)
    if refused:
        raise CannotRun(refused, param="size")


class _LocalRay:
    """A Ray of this machine alone, started by its driver and gone with it."""

    def __init__(self, state: Path, workers: Sequence[Worker]) -> None:
        self._state = state
        self._workers = workers
        self._folder: SessionFolder | None = None

    async def launch(self, afresh: bool) -> Launch:
        """In a new folder each time: whatever was left of another Ray's is in nobody's way."""
        self.forget()
        self._folder = new_session_folder()
        return Launch(
            start=Start(worker_ids=tuple(worker.id for worker in self._workers), temp_dir=self._folder.ray),
            environment=ray_environment(new_token(), self._workers, LOOPBACK),
            log_path=self._state / DRIVER_LOG_NAME,
        )

    def forget(self) -> None:
        """Remove Ray's own files."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


@asynccontextmanager
async def local_farm(state: Path, workers: Sequence[Worker]) -> AsyncIterator[Coordinator]:
    """A farm of this machine that ends with the block and leaves nothing running.

    Jobs that an earlier process left unfinished are set aside, but for those that wait for their user;
    ``Coordinator.retry`` continues one.

    Raises:
        CannotRun: Ray does not start, or another farm than a render works in the folder.
        InvalidInput: what this machine's owner chose to interpolate by cannot be used.
    """
    check_chosen()
    with ExitStack() as stack:
        await in_turn(state, stack)
        ledger = stack.enter_context(replayed(state))
        ray = _LocalRay(state, workers)
        try:
            cluster = await RayCluster.open(LOOPBACK, ray.launch, StitchProcess.open)
            async with coordinating(state, cluster, ledger=ledger) as coordinator:
                for job in coordinator.ledger.state.jobs.values():
                    if job.status == "running" and not job.awaits_review:
                        coordinator.ledger.record(JobCancelled(job_id=job.id))
                yield coordinator
        finally:
            ray.forget()


async def in_turn(state: Path, stack: ExitStack) -> None:
    """Hold the folder until ``stack`` closes, once a render that works in it is done."""
    told = False
    while True:
        try:
            stack.enter_context(locked(state, "render"))
            return
        except FolderInUse as used:
            if used.by != "render":
                raise
            if not told:
                console.say(f"waiting: {used.message}", console.err)
            told = True
        await asyncio.sleep(TURN_INTERVAL_S)


@asynccontextmanager
async def coordinating(
    state: Path,
    cluster: Any,
    specs: SpecOf = spec_of,
    *,
    ledger: Ledger | None = None,
) -> AsyncIterator[Coordinator]:
    """A coordinator with its history replayed, working until the block ends.

    Args:
        ledger: where the history was replayed already; whoever did that closes its journal.

    Raises:
        CannotRun: the journal cannot be read, or could not be written any more; the block was cancelled.
    """
    if ledger is None:
        with replayed(state) as ledger:
            async with coordinating(state, cluster, specs, ledger=ledger) as coordinator:
                yield coordinator
        return
    storage = Storage(state)
    shutil.rmtree(state / "incoming", ignore_errors=True)
    (state / "incoming").mkdir(mode=0o700)
    coordinator = Coordinator(cluster=cluster, ledger=ledger, storage=storage, spec_of=specs)
    ledger.recover(storage.holds)
    block = asyncio.current_task()
    running = asyncio.ensure_future(coordinator.run())
    running.add_done_callback(lambda ended: None if ended.cancelled() or block is None else block.cancel())
    try:
        yield coordinator
    except asyncio.CancelledError:
        if running.done() and not running.cancelled():
            running.result()
        raise
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, CannotRun):
            await running
        await cluster.close()


async def workers_up(coordinator: Coordinator, count: int) -> None:
    """Wait until that many workers have joined."""

    async def joined() -> None:
        with coordinator.ledger.watch() as queue:
            while len(coordinator.ledger.state.workers) < count:
                await queue.get()

    try:
        await asyncio.wait_for(joined(), WORKERS_TIMEOUT_S)
    except TimeoutError:
        here = len(coordinator.ledger.state.workers)
        raise CannotRun(f"{here} of {count} workers came up in {WORKERS_TIMEOUT_S:.0f} s") from None
