"""One job on this machine alone: everything is started for it, and nothing is left running."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from farm.capabilities import Worker
from farm.complaints import complaint
from farm.errors import CannotRun, InvalidInput, JobFailed
from farm.outputs import Outputs, put
from farm.reporting import console, job_report, workers_seen
from farm.request import JobRequest, ReviewChange, check_numbers
from farm.running import SHEET_NAME, VIDEO_NAME, Coordinator, Storage, stored_bytes
from farm.state import Job, past, usual_mode
from nodes.hosting.host import check_placement, local_farm, planned, take_in, workers_up
from nodes.hosting.licences import check_licences
from nodes.hosting.review_here import changed, looked_at, terminal
from nodes.machine import scratch_folder

#: Between looks at how far the running attempts are.
PROGRESS_INTERVAL_S = 0.25


def described(
    inputs: Sequence[Path],
    options: dict[str, Any],
    folder: Path,
    on_look: Callable[[str, int, float | None], None],
) -> JobRequest:
    """A request over these files, checked and normalised into ``folder``.

    on_look: told how far the look at a file is, by its name; what it raises ends it.

    Raises:
        InvalidInput: a file or an option is wrong.
    """
    check_numbers(options)
    taken = dict(options)
    for name in ("audio", "mask"):
        if taken.get(name) is not None:
            (taken[name],) = take_in([taken[name]], folder, on_look)
    taken["references"] = take_in(taken.get("references", ()), folder, on_look)
    clip = taken.pop("clip", False)
    try:
        return JobRequest(inputs=take_in(inputs, folder, on_look, clip=clip), **taken)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidInput(f"{name} is {first['input']!r}: {complaint(first)}", param=name) from error


#: A job's report, and where its video and sheet are; None: it waits for its user.
Rendered: TypeAlias = tuple[dict[str, Any], Outputs | None]


async def render_here(
    inputs: Sequence[Path], options: dict[str, Any], workers: Sequence[Worker], state: Path, target: Outputs
) -> Rendered:
    """Render a video; returns its report, and where it and its sheet are.

    Raises:
        FarmError: with nothing left behind; a job that had begun can be continued with ``retry_here``.
    """
    mode = usual_mode()
    check_licences(options, state)
    with scratch_folder() as folder:
        request = await _looked_at(inputs, options, folder)
        made = planned(request, workers)
        Storage(state).check_space(stored_bytes(made))
        console.print_notes(made)
        async with _farm(state, workers) as coordinator:
            job_id = coordinator.submit(request, coming=workers, plan=made)
            return await _watched(coordinator, job_id, target, mode)


async def _looked_at(inputs: Sequence[Path], options: dict[str, Any], folder: Path) -> JobRequest:
    """``described`` with its progress drawn; cancelled, the look ends before this does."""
    stopped = threading.Event()
    with console.LookView() as view:

        def on_look(name: str, num_frames: int, share: float | None) -> None:
            if stopped.is_set():
                raise InvalidInput("the look at the inputs was stopped", param="inputs")
            view.told(name, num_frames, share)

        looking = asyncio.ensure_future(asyncio.to_thread(described, inputs, options, folder, on_look))
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait([looking])
            raise


async def retry_here(job_id: str, workers: Sequence[Worker], state: Path, target: Outputs) -> Rendered:
    """Continue a job that failed, was cancelled or lost its process; returns what ``render_here`` does.

    Raises:
        FarmError: there is no such job, or nothing of it is left to do here; Ray was not started.
    """
    mode = usual_mode()
    with past(state) as ledger:
        job = ledger.job(job_id)
        if job.status == "succeeded":
            raise InvalidInput(f"job {job_id} is done; `farm report {job_id}` tells of it", param="job_id")
        check_placement(job.plan, workers)
    async with _farm(state, workers) as coordinator:
        _taken_up(coordinator, job_id)
        return await _watched(coordinator, job_id, target, mode)


def _taken_up(coordinator: Coordinator, job_id: str) -> None:
    """Go on with a job that was set aside, or that waits for its user."""
    job = coordinator.ledger.job(job_id)
    if job.awaits_review:
        coordinator.begin(job)
    else:
        coordinator.retry(job_id)


@asynccontextmanager
async def _farm(state: Path, workers: Sequence[Worker]) -> AsyncIterator[Coordinator]:
    with console.err.status("starting Ray"):
        farm = local_farm(state, workers)
        coordinator = await farm.__aenter__()
        try:
            await workers_up(coordinator, 1)
        except BaseException:
            await farm.__aexit__(None, None, None)
            raise
    try:
        yield coordinator
    finally:
        await farm.__aexit__(None, None, None)


async def review_here(
    job_id: str,
    changes: Sequence[ReviewChange],
    workers: Sequence[Worker],
    state: Path,
    target: Outputs,
) -> Rendered:
    """Carry out what was decided of a job's keyframes, and go on with it; returns what ``render_here`` does.

    Raises:
        FarmError: there is no such job, it waits for no review, or it cannot be done.
    """
    mode = usual_mode()
    with past(state) as ledger:
        check_placement(ledger.job(job_id).plan, workers)
    async with _farm(state, workers) as coordinator:
        _taken_up(coordinator, job_id)
        for change in changes:
            await changed(coordinator, job_id, change)
        return await _watched(coordinator, job_id, target, mode)


async def _watched(coordinator: Coordinator, job_id: str, target: Outputs, mode: int) -> Rendered:
    job = coordinator.ledger.job(job_id)
    view, seen = console.JobView(), 0
    folder = target.video.with_name(f"{target.video.stem}-keyframes")
    try:
        while job.awaits_review or job.status == "running" or not seen:
            if job.awaits_review and not await looked_at(coordinator, job, folder, terminal()):
                return job_report(job, workers_seen(coordinator.ledger.journal)), None
            seen = await _drawn(coordinator, job, view, seen)
    except asyncio.CancelledError:
        if job.status == "running":
            coordinator.cancel(job_id)
        console.say(f"stopped; what is done is kept: `{_again(job_id, target)}` continues it", console.err)
        raise
    if job.status != "succeeded":
        raise JobFailed(f"{job.reason}; what is done is kept: `{_again(job_id, target)}` tries again")
    folder = coordinator.storage.job_folder(job_id)
    done = delivered(folder, target, mode)
    return job_report(job, workers_seen(coordinator.ledger.journal)), done


async def _drawn(coordinator: Coordinator, job: Job, view: console.JobView, after: int) -> int:
    """Show what happens to a job past an event, until it has ended or waits for its user; the last event."""
    with view:
        drawing = asyncio.ensure_future(_draw_steps(job, view))
        try:
            for worker in coordinator.ledger.state.workers.values():
                view.worker(worker.worker)
            async for seq, at, event in coordinator.ledger.follow(job.id, after=after):
                after = seq
                view.event(at, event)
                if job.awaits_review and seq >= job.last_seq:
                    break
        finally:
            drawing.cancel()
    return after


def _again(job_id: str, target: Outputs) -> str:
    return f"farm retry {job_id} {target.as_options}"


async def _draw_steps(job: Job, view: console.JobView) -> None:
    while True:
        for task in job.tasks.values():
            for attempt in task.running_attempts:
                view.step(attempt.id, attempt.phase, attempt.done_fraction)
        await asyncio.sleep(PROGRESS_INTERVAL_S)


def delivered(folder: Path, target: Outputs, mode: int) -> Outputs:
    """Copy a job's video and contact sheet out of its folder; where they are. Raises as ``deliver`` does."""
    video = deliver(folder / VIDEO_NAME, target.video, mode, replace=target.replaces)
    try:
        sheet = deliver(folder / SHEET_NAME, target.sheet, mode)
    except CannotRun as error:
        raise CannotRun(f"{error.message}; the video is there: {video}") from error
    return target.model_copy(update={"video": video, "sheet": sheet})


def deliver(source: Path, target: Path, mode: int, *, replace: bool = False) -> Path:
    """Copy a finished file to where the user wants it, whole or not at all, with that mode.

    Returns where it is: without ``replace`` a file that is there stays, and the name is numbered.

    Raises:
        CannotRun: it cannot be written there; the message says where it is kept.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".writing-{target.name}")
        temporary = Path(name)
        os.close(handle)
        shutil.copyfile(source, temporary)
        temporary.chmod(mode)
        return put(temporary, target, replace=replace)
    except OSError as error:
        raise CannotRun(f"{target} cannot be written ({error.strerror}); it is kept as {source}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
