"""``render`` with and without a farm, and a farm that is started for as long as a block lasts."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import reelfarm
from farm.capabilities import Worker
from farm.endpoint import Endpoint, remove_endpoint, write_endpoint
from farm.errors import CannotRun, InvalidInput
from farm.request import JobRequest
from farm.running import Coordinator
from nodes.hosting.host import coordinating
from nodes.work.local_cluster import LocalCluster
from reelfarm import Farm, Options, render, render_async
from reelfarm.options import job_options
from tests.dashboard.conftest import TOKEN
from tests.dashboard.conftest import Farm as Served

pytestmark = pytest.mark.slow  # serves a whole farm on a socket

SMALL: Options = {"model": "procedural", "num_frames": 16, "width": 32, "height": 32, "fps": 8}


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rendered here is rendered by threads of this process."""

    @asynccontextmanager
    async def farm(state: Path, workers: Sequence[Worker]) -> AsyncIterator[Coordinator]:
        async with coordinating(state, LocalCluster(workers)) as coordinator:
            yield coordinator

    monkeypatch.setattr(importlib.import_module("nodes.hosting.render_here"), "_farm", farm)


@pytest.mark.usefixtures("without_ray")
def test_without_a_farm_a_video_is_made_here_and_nothing_is_left_but_its_job(
    photo: Path, tmp_path: Path
) -> None:
    here = {"state": tmp_path / "state", "workers": "1GiB"}
    video = render(photo, "zoom in", **here, **SMALL)
    assert (video.path, video.num_frames, video.report["status"]) == (None, 16, "succeeded")
    assert video.frames().shape == (16, 32, 32, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"state"}
    assert video.save(tmp_path / "v.mp4") == tmp_path / "v.mp4"
    with pytest.raises(InvalidInput, match=r"v\.mp4 exists; choose another name"):
        render(photo, "zoom in", path=tmp_path / "v.mp4", **here, **SMALL)
    again = render(photo, "zoom in", path=tmp_path / "v.mp4", replace=True, **here, **SMALL)
    assert again.path == tmp_path / "v.mp4"
    assert again.report["totals"]["frames_sha256"] == video.report["totals"]["frames_sha256"]


@pytest.mark.usefixtures("without_ray")
async def test_a_notebook_that_runs_a_loop_may_render_either_way(photo: Path, tmp_path: Path) -> None:
    one = render(photo, "pan left", state=tmp_path / "one", workers="1GiB", **SMALL)
    other = await render_async(photo, "pan left", state=tmp_path / "other", workers="1GiB", **SMALL)
    assert one.report["totals"]["frames_sha256"] == other.report["totals"]["frames_sha256"]


@pytest.mark.asyncio(loop_scope="module")
async def test_where_a_farm_is_up_it_renders(
    farm_url: str, shared_farm: Served, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    endpoint = Endpoint(url=farm_url, token=TOKEN)
    write_endpoint(shared_farm.state_dir, endpoint)
    try:
        asked = {"state": shared_farm.state_dir, "path": tmp_path / "v.mp4"}
        video = await asyncio.to_thread(lambda: render(photo, "zoom in", **asked, **SMALL))
        assert video.job_id in shared_farm.coordinator.ledger.state.jobs
        assert (tmp_path / "v.mp4").is_file()
        other = await render_async(photo, "zoom in", state=shared_farm.state_dir, **SMALL)
        assert other.job_id in shared_farm.coordinator.ledger.state.jobs
    finally:
        remove_endpoint(shared_farm.state_dir, endpoint)


def says(path: Path, script: str) -> str:
    """A program in place of Python, which says what ``farm up`` would."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_a_farm_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo warning >&2; echo 'error: a farm is up in /s already' >&2; exit 3"
    monkeypatch.setattr(sys, "executable", says(tmp_path / "python", script))
    with pytest.raises(CannotRun, match=r"^a farm is up in /s already$"):
        Farm.start()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_farm_that_was_started_ends_with_its_block(
    farm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    endpoint = Endpoint(url=farm_url, token=TOKEN)
    write_endpoint(tmp_path, endpoint)
    script = f'echo "$@" > {tmp_path}/asked; printf \'{{\\n  "url": "{farm_url}"\\n}}\\n\'; exec sleep 100'
    monkeypatch.setattr(sys, "executable", says(tmp_path / "python", script))

    def used() -> int | None:
        with Farm.start(workers="1GiB", state=tmp_path) as farm:
            assert farm.url == farm_url
            assert farm.nodes()
            process = farm._process
            assert process is not None
        return process.returncode

    assert await asyncio.to_thread(used) == -signal.SIGTERM
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:6] == ["-P", "-m", "farm", "up", "--json", "--port"]
    assert asked[7:] == ["--workers", "1GiB", "--state", str(tmp_path)]


def test_every_field_of_a_request_is_an_option_and_explained() -> None:
    fields = {*JobRequest.model_fields, "preset", "clip"} - {"inputs", "prompts"}
    assert set(Options.__annotations__) == fields
    assert [name for name in fields if name not in (inspect.getdoc(Options) or "")] == []
    assert job_options("zoom in", {})["model"] == "tiny_wan"
    assert job_options(["a", "b"], {"preset": "restyle", "seed": 3})["strength"] == 0.85


def test_help_explains_everything_that_the_door_offers() -> None:
    for name in reelfarm.__all__:
        each = getattr(reelfarm, name)
        if inspect.isclass(each) or inspect.isfunction(each):
            assert inspect.getdoc(each), name
            for method, found in inspect.getmembers(each, inspect.isfunction):
                if not method.startswith("_") and found.__module__.startswith("reelfarm"):
                    assert inspect.getdoc(found), f"{name}.{method}"
