"""``render``: a video on the farm that is up, or else on this machine alone."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import Unpack

from farm.client import find_farm
from farm.errors import CannotRun
from farm.keeping import settle_folders
from farm.outputs import outputs
from farm.running import VIDEO_NAME, Storage
from farm.state import default_state_folder, in_use, locked, usual_mode
from reelfarm.farm import Farm, Job
from reelfarm.options import Inputs, Options, job_options, paths_of
from reelfarm.video import Video

_Result = TypeVar("_Result")


def render(
    inputs: Inputs = (),
    prompt: str | Sequence[str] = "",
    *,
    path: str | os.PathLike[str] | None = None,
    replace: bool = False,
    workers: str | None = None,
    vram_limit: str | None = None,
    state: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Video:
    """Render a video and wait for it.

    Where a farm is up on this machine it does; else everything is started here, as by ``farm render``, and
    nothing is left running. How far it is is told on standard error where that is a terminal.

    Args:
        inputs: An image, several images (a storyboard), or a video to restyle: paths; none: the prompt
            alone, for a model that takes ``text_alone``.
        prompt: What should be seen: one for all inputs, or one for each.
        path: Where to save it, an .mp4; None: it stays with its job, and ``Video.save`` saves it.
        replace: A file at ``path`` is replaced; an input never.
        workers: CPU workers with these memory budgets, such as "12GiB,8GiB", of this machine alone, though a
            farm is up; None: the cards, or the CPU.
        vram_limit: What every worker of this machine is capped at, such as "8GiB", or each: "8GiB,11GiB".
        state: State folder; None: ``$REELFARM_STATE``, or the usual one.
        options: See ``help(reelfarm.Options)``.

    Raises:
        InvalidInput: a file or an option is wrong; the message says which, and what to do.
        CannotRun: it does not fit here; the message names settings that fit.
        JobFailed: it stopped; what is done is kept, and the message says how it goes on.
    """
    wanted = Wanted(
        paths=paths_of(inputs),
        options=job_options(prompt, options),
        path=None if path is None else Path(path),
        replace=replace,
        workers=workers,
        vram_limit=vram_limit,
        state=default_state_folder() if state is None else Path(state),
    )
    farm = wanted.farm()
    if farm is None:
        return awaited(wanted.rendered_here)
    return wanted.begun_on(farm).wait(wanted.path, replace=replace)


@dataclass(frozen=True)
class Wanted:
    """One call of ``render``."""

    paths: list[Path]
    options: dict[str, Any]
    path: Path | None
    replace: bool
    workers: str | None
    vram_limit: str | None
    state: Path

    def farm(self) -> Farm | None:
        """The one that is up and is to do it; None: this machine alone."""
        if self.workers is not None or self.vram_limit is not None or find_farm(state=self.state) is None:
            return None
        return Farm(state=self.state)

    def begun_on(self, farm: Farm) -> Job:
        """Start it there; where it will be saved is tried before."""
        if self.path is not None:
            outputs(self.path, self._files(), force=self.replace)
        return farm.begin(self.paths, self.options)

    def _files(self) -> list[Path]:
        beside = filter(None, (self.options["audio"], self.options["mask"]))
        return [*self.paths, *beside, *self.options["references"]]

    async def rendered_here(self) -> Video:
        """Render it on this machine alone."""
        from nodes.hosting import deliver, render_here
        from nodes.machine import workers_here

        mode = usual_mode()
        found = await asyncio.to_thread(workers_here, self.workers, self.vram_limit)
        used = in_use(self.state)
        if (self.state / "jobs").is_dir() and not (used and used.by == "render"):
            with locked(self.state, "storage"):
                settle_folders(self.state, None)
        with tempfile.TemporaryDirectory() as folder:
            target = outputs(self.path or Path(folder) / "video.mp4", self._files(), force=self.replace)
            report, done = await render_here(self.paths, self.options, found, self.state, target)
        job_id = report["id"]
        if done is None:
            raise CannotRun(f"{job_id} waits for you after its keyframes; `farm review {job_id}` shows them")
        stored = Storage(self.state).job_path(job_id) / VIDEO_NAME

        def put(place: Path, replace: bool) -> Path:
            return deliver(stored, place, mode, replace=replace)

        return Video(job_id, report, None if self.path is None else done.video.absolute(), put)


def awaited(work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run to its end; in a thread of its own where this one runs an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work()).result()
