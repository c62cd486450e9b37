"""Looking at a job's keyframes on this machine: as files, at a terminal, and what is decided carried out."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from farm.errors import FarmError
from farm.outputs import put_picture
from farm.reporting import console, keyframe_details, made_again_words
from farm.request import (
    HOW,
    MAX_SIDE,
    Approve,
    Leave,
    Remake,
    Replace,
    ReviewChange,
    TakeBack,
    parse_review,
)
from farm.running import Coordinator, Storage, approve_keyframes, remake_keyframe, replace_keyframe
from farm.state import Job
from nodes.hosting.host import take_in
from nodes.machine import scratch_folder
from nodes.media import pictures

#: Asks a person for a line; "" is the end of what they type.
Ask: TypeAlias = Callable[[str], Awaitable[str]]


def save_keyframes(storage: Storage, job: Job, folder: Path) -> None:
    """Put the pictures of a job's keyframes into a folder, for a person to look at.

    Raises:
        CannotRun: it cannot be written.
    """
    details = keyframe_details(job)
    for keyframe, detail in zip(job.keyframes, details, strict=True):
        sha256 = detail["sha256"]
        if sha256 is not None:
            position = 0 if detail["replaced"] else keyframe.position
            shown = pictures.picture(storage.path(sha256), position, MAX_SIDE)
            put_picture(folder, keyframe.number, sha256, shown)


async def changed(coordinator: Coordinator, job_id: str, change: ReviewChange) -> None:
    """Carry out what was decided, and say what else is changed with it.

    Raises:
        FarmError: it cannot be; nothing was changed.
    """
    job = coordinator.ledger.job(job_id)
    match change:
        case Remake(number=number, seed=seed):
            details = keyframe_details(job)
            await remake_keyframe(coordinator, job_id, number, seed)
            console.say(made_again_words(details[number - 1]), console.err)
        case Replace(number=number, path=path):
            with scratch_folder() as folder:
                (media,) = await asyncio.to_thread(take_in, [path], folder)
                notes = await replace_keyframe(coordinator, job_id, number, media)
            console.say("; ".join((f"keyframe {number} is {path.name} now", *notes)), console.err)
        case TakeBack(number=number):
            await replace_keyframe(coordinator, job_id, number, None)
            console.say(f"keyframe {number} is what was rendered again", console.err)
        case Approve():
            approve_keyframes(coordinator, job_id)


async def looked_at(coordinator: Coordinator, job: Job, folder: Path, ask: Ask | None) -> bool:
    """Show a job's keyframes, and let a person at a terminal decide; whether there is more to do for it here.

    Without a terminal it is said what can be typed instead.
    """
    await asyncio.to_thread(save_keyframes, coordinator.storage, job, folder)
    console.print_keyframes(keyframe_details(job), console.err)
    console.say(f"the pictures are in {folder}", console.err)
    while ask is not None:
        line = await ask(f"{HOW}: ")
        try:
            wanted = parse_review(line) if line else Leave()
            if isinstance(wanted, Leave):
                break
            await changed(coordinator, job.id, wanted)
        except FarmError as error:
            console.print_error(error.message)
            continue
        if job.held and job.awaits_review:  # replaced, and nothing is made from it before the windows
            continue
        return True
    console.say(
        f"{job.id} waits for you: `farm review {job.id} --approve` renders the video, "
        f"`farm review {job.id} --remake 1` makes a keyframe again, `--replace 1=photo.jpg` replaces it",
        console.err,
    )
    return False


def terminal() -> Ask | None:
    """Asks at the terminal this process has, if it has one."""
    return _typed if sys.stdin.isatty() and sys.stderr.isatty() else None


async def _typed(prompt: str) -> str:
    console.err.print(prompt, end="", markup=False)
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), there.set)
    try:
        await there.wait()  # and can be cancelled, which reading in a thread cannot
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return os.read(sys.stdin.fileno(), 4096).decode(errors="replace")
