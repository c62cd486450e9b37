"""The same for asyncio: nothing here blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typing_extensions import Unpack

from farm.state import default_state_folder
from reelfarm.farm import Farm, Job, Progress
from reelfarm.here import Wanted
from reelfarm.options import Inputs, Options, job_options, paths_of
from reelfarm.video import Video


class AsyncJob:
    """As ``Job``; ``job`` is that one, for what takes no time."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.id = job.id

    def __repr__(self) -> str:
        return f"AsyncJob({self.id!r})"

    async def follow(self) -> AsyncIterator[Progress]:
        """How far it is, whenever that has changed, until it has ended."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Progress | BaseException | None] = asyncio.Queue()
        given_up = threading.Event()

        def tell(value: Progress | BaseException | None) -> None:
            if not given_up.is_set():
                loop.call_soon_threadsafe(told.put_nowait, value)

        def read() -> None:
            try:
                for progress in self.job.follow():
                    if given_up.is_set():
                        return
                    tell(progress)
                tell(None)
            except BaseException as error:
                tell(error)

        # A daemon: where nobody follows any more it waits for the job's next event, and no program for it.
        threading.Thread(target=read, daemon=True).start()
        try:
            while (value := await told.get()) is not None:
                if isinstance(value, BaseException):
                    raise value
                yield value
        finally:
            given_up.set()

    async def wait(self, path: str | os.PathLike[str] | None = None, *, replace: bool = False) -> Video:
        """As ``Job.wait``."""
        async for _ in self.follow():
            pass
        return await asyncio.to_thread(self.job.ended, path, replace=replace)

    async def summary(self) -> dict[str, Any]:
        """As ``Job.summary``."""
        return await asyncio.to_thread(self.job.summary)

    async def report(self) -> dict[str, Any]:
        """As ``Job.report``."""
        return await asyncio.to_thread(self.job.report)

    async def cancel(self) -> None:
        """As ``Job.cancel``."""
        await asyncio.to_thread(self.job.cancel)

    async def retry(self) -> None:
        """As ``Job.retry``."""
        await asyncio.to_thread(self.job.retry)

    async def delete(self) -> None:
        """As ``Job.delete``."""
        await asyncio.to_thread(self.job.delete)


class AsyncFarm:
    """As ``Farm``, and made of one: ``async with AsyncFarm(Farm("http://...")) as farm:``.

    None: the one that is up here.
    """

    def __init__(self, farm: Farm | None = None) -> None:
        self.farm = Farm() if farm is None else farm

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.farm.close)

    async def submit(
        self, inputs: Inputs = (), prompt: str | Sequence[str] = "", **options: Unpack[Options]
    ) -> AsyncJob:
        """As ``Farm.submit``."""
        return AsyncJob(await asyncio.to_thread(self.farm.submit, inputs, prompt, **options))

    async def plan(
        self, inputs: Inputs = (), prompt: str | Sequence[str] = "", **options: Unpack[Options]
    ) -> dict[str, Any]:
        """As ``Farm.plan``."""
        return await asyncio.to_thread(self.farm.plan, inputs, prompt, **options)

    async def sweep(
        self,
        inputs: Inputs = (),
        prompt: str | Sequence[str] = "",
        *,
        seeds: Iterable[int],
        **options: Unpack[Options],
    ) -> list[AsyncJob]:
        """As ``Farm.sweep``."""
        jobs = await asyncio.to_thread(self.farm.sweep, inputs, prompt, seeds=seeds, **options)
        return [AsyncJob(job) for job in jobs]

    async def job(self, job_id: str) -> AsyncJob:
        """As ``Farm.job``."""
        return AsyncJob(await asyncio.to_thread(self.farm.job, job_id))

    async def jobs(self) -> list[AsyncJob]:
        """As ``Farm.jobs``."""
        return [AsyncJob(job) for job in await asyncio.to_thread(self.farm.jobs)]


async def render_async(
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
    """As ``render``. Cancelled, what is done is kept."""
    wanted = Wanted(
        paths=paths_of(inputs),
        options=job_options(prompt, options),
        path=None if path is None else Path(path),
        replace=replace,
        workers=workers,
        vram_limit=vram_limit,
        state=default_state_folder() if state is None else Path(state),
    )
    farm = await asyncio.to_thread(wanted.farm)
    if farm is None:
        return await wanted.rendered_here()
    job = await asyncio.to_thread(wanted.begun_on, farm)
    return await AsyncJob(job).wait(wanted.path, replace=replace)
