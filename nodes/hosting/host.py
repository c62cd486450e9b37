"""Putting a farm together on this machine: Ray, coordinator, journal and storage, up and down again."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from farm.capabilities import EngineSpec, Worker
from farm.errors import CannotRun
from farm.planning import Plan, plan_over, refusal
from farm.request import JobRequest, MediaInfo
from farm.running import Coordinator, Storage
from farm.state import JobCancelled, Ledger, locked, replayed
from farm.threads import to_its_end
from nodes.engines import spec_of
from nodes.machine import new_session_folder, new_token, ray_environment
from nodes.media import normalise

#: A local farm's workers must all be there by then.
WORKERS_TIMEOUT_S = 90.0


def take_in(paths: Sequence[Path], folder: Path) -> tuple[MediaInfo, ...]:
    """Check and normalise a user's files into ``folder``, each decoded in a child process."""
    return tuple(normalise(path, folder) for path in paths)


def planned(request: JobRequest, workers: Iterable[Worker]) -> Plan:
    """The plan of a request, refused before anything is started where these workers could not hold it."""
    return plan_over(request, spec_of(request.model), workers)


def check_placement(plan: Plan, workers: Iterable[Worker]) -> None:
    """
    Raises:
        CannotRun: no worker can hold a window of this plan; what one could hold is said.
    """
    refused = refusal(plan, spec_of(plan.model), workers)
    if refused:
        raise CannotRun(refused, param="size")


@contextmanager
def _ray_folder() -> Iterator[Path]:
    """Ray's own files, gone with it."""
    session = new_session_folder()
    try:
        yield session.ray
    finally:
        session.remove()


async def _start(start_ray: Callable[..., None], workers: Sequence[Worker], temp_dir: Path) -> None:
    """Start this machine's Ray.

    Raises:
        CannotRun: Ray failed in a way of its own (no space for its files, too long a path, no memory).
    """
    try:
        await to_its_end(start_ray, workers, temp_dir)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CannotRun(f"Ray did not start here: {reason}; `farm doctor` looks the machine over") from error


@asynccontextmanager
async def local_farm(state: Path, workers: Sequence[Worker]) -> AsyncIterator[Coordinator]:
    """A farm of this machine that ends with the block and leaves nothing running.

    Jobs that an earlier process left unfinished are set aside; ``Coordinator.retry`` continues one.
    """
    os.environ.update(ray_environment(new_token(), workers))
    # Imported now: Ray reads the environment when it is.
    from nodes.ray import RayCluster, disconnect, start_local, take_back_signals

    with locked(state), replayed(state) as ledger, _ray_folder() as temp_dir:
        try:
            await _start(start_local, workers, temp_dir)
            take_back_signals()
            async with coordinating(state, RayCluster(), ledger=ledger) as coordinator:
                for job in coordinator.ledger.state.jobs.values():
                    if job.status == "running":
                        coordinator.ledger.record(JobCancelled(job_id=job.id))
                yield coordinator
        finally:
            await to_its_end(disconnect)


@asynccontextmanager
async def coordinating(
    state: Path,
    cluster: Any,
    specs: Callable[[str], EngineSpec] = spec_of,
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
