"""A farm from Python: submit, follow, wait, frames, report, sweep; sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from farm.errors import CannotRun, InvalidInput, JobFailed, NotAllowed, NotFound
from reelfarm import AsyncFarm, Farm, Options, Progress
from tests.dashboard.conftest import TOKEN
from tests.dashboard.conftest import Farm as Served

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]  # serves a whole farm on a socket
Result = TypeVar("Result")
SMALL: Options = {"model": "procedural", "num_frames": 24, "width": 32, "height": 32, "fps": 8}


async def use(call: Callable[[], Result]) -> Result:
    """In a thread, for the farm that answers works in this one."""
    return await asyncio.to_thread(call)


async def test_a_job_is_submitted_followed_and_waited_for(farm_url: str, photo: Path, tmp_path: Path) -> None:
    def made() -> None:
        with Farm(farm_url, key=TOKEN) as farm:
            job = farm.submit(photo, "zoom in", **SMALL, seed=7)
            told = list(job.follow())
            assert [one.fraction for one in told] == sorted(one.fraction for one in told)
            assert told[-1] == Progress(1.0, told[-1].segments, told[-1].segments, "")
            video = job.wait(tmp_path / "made" / "v.mp4")
            assert (job.status, video.job_id, video.seed) == ("succeeded", job.id, 7)
            assert video.path == tmp_path / "made" / "v.mp4"
            assert video.path.read_bytes()[4:8] == b"ftyp"
            assert (video.num_frames, video.fps, video.width, video.height) == (24, 8.0, 32, 32)
            frames = video.frames()
            assert (frames.shape, frames.dtype) == ((24, 32, 32, 3), np.uint8)
            assert job.report()["id"] == video.report["id"] == job.id
            assert farm.jobs()[0].id == farm.job(job.id).id == job.id
            assert video.save(video.path) == tmp_path / "made" / "v-2.mp4"
            with pytest.raises(InvalidInput, match=r"expected a name that ends in \.mp4"):
                video.save(tmp_path / "v.avi")

    await use(made)


async def test_a_sweep_starts_a_job_for_each_seed(farm_url: str, photo: Path) -> None:
    def made() -> list[int]:
        with Farm(farm_url, key=TOKEN) as farm:
            jobs = farm.sweep(photo, "pan left", seeds=range(2), preview=True, **SMALL)
            return [job.wait().seed for job in jobs]

    assert await use(made) == [0, 1]


async def test_the_same_works_in_asyncio(farm_url: str, photo: Path, tmp_path: Path) -> None:
    async with AsyncFarm(await use(lambda: Farm(farm_url, key=TOKEN))) as farm:
        quote = (await farm.plan(photo, "pan left", **SMALL))["quote"]
        assert quote["num_frames"] == 24
        job = await farm.submit(photo, "pan left", **SMALL)
        told = [one async for one in job.follow()]
        assert told[-1].fraction == 1.0
        video = await job.wait(tmp_path / "v.mp4")
        assert (await asyncio.to_thread(video.frames)).shape == (24, 32, 32, 3)
        assert (await job.summary())["status"] == "succeeded"
        one, other = await farm.sweep([photo, photo], ["zoom in", "zoom out"], seeds=(3, 4), **SMALL)
        assert [(await each.wait()).seed for each in (one, other)] == [3, 4]
        assert {each.id for each in await farm.jobs()} >= {job.id, one.id, other.id}


async def test_whoever_stops_following_leaves_the_job_alone(
    farm_url: str, shared_farm: Served, photo: Path
) -> None:
    async with AsyncFarm(await use(lambda: Farm(farm_url, key=TOKEN))) as farm:
        job = await farm.submit(photo, "pan left", **SMALL)
        following = asyncio.ensure_future(job.wait())
        await asyncio.sleep(0)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        await shared_farm.until_ended(job.id)
        assert (await job.summary())["status"] == "succeeded"


async def test_a_job_that_is_stopped_says_how_it_goes_on(
    farm_url: str, shared_farm: Served, photo: Path
) -> None:
    def stopped() -> None:
        with Farm(farm_url, key=TOKEN) as farm:
            job = farm.submit(photo, **{**SMALL, "num_frames": 400})
            job.cancel()
            with pytest.raises(JobFailed, match=f"{job.id} is cancelled: `farm retry {job.id}` continues it"):
                job.wait()
            job.retry()
            job.cancel()
            job.delete()
            with pytest.raises(NotFound):
                farm.job(job.id)

    await use(stopped)


async def test_what_is_wrong_is_said_in_one_line(farm_url: str, photo: Path, tmp_path: Path) -> None:
    def refused() -> None:
        with Farm(farm_url, key=TOKEN) as farm:
            for options, why in (
                ({"model": "procedural", "lenght": 3}, "lenght is no option; there are audio, clip, "),
                ({"seconds": 3, "num_frames": 5}, "frames and seconds are both given"),
                ({"preset": "fast"}, "preset is 'fast', expected one of "),
                ({"weights": "model.ckpt"}, "model.ckpt"),
            ):
                with pytest.raises(InvalidInput, match=why):
                    farm.submit(photo, **options)  # type: ignore[typeddict-item]
            with pytest.raises(InvalidInput, match=r"none\.png cannot be read"):
                farm.submit(tmp_path / "none.png")
        with Farm(farm_url, key="rf_wrong") as stranger, pytest.raises(NotAllowed):
            stranger.jobs()
        with pytest.raises(
            CannotRun, match=r"no farm is up here; start one with `farm up` or Farm\.start\(\)"
        ):
            Farm(state=tmp_path)

    await use(refused)
