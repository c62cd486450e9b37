"""The command against a farm that is up, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from farm.cli.main import app
from farm.planning import Plan
from tests.dashboard.conftest import Farm

pytestmark = pytest.mark.slow  # serves a whole farm on a socket

Command = Callable[..., Awaitable[Result]]
SMALL = ("--model", "procedural", "--frames", "24", "--size", "32x32", "--fps", "8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_farm(shared_farm: Farm, serving: Any) -> AsyncIterator[Command]:
    """``await on_farm("jobs", "--json")``: what the command tells of the shared farm."""
    async with serving(shared_farm.app) as url:

        async def run(*arguments: str, status: int = 0) -> Result:
            at = ("--farm", url, "--token", shared_farm.token)
            result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *at])
            assert result.exit_code == status, result.output or result.exception
            return result

        yield run


@pytest.mark.asyncio(loop_scope="module")
async def test_a_plan_is_made_for_the_farm_that_is_up(
    on_farm: Command, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("plan", str(photo), *SMALL)
    lines = (await on_farm(*asked)).stdout.splitlines()
    assert lines[0] == "video  24 frames (3.0 s) 32x32 at 8 fps"
    assert "near/cpu0" in lines[2]
    assert "`farm submit --farm http" in lines[4]
    made = Plan.model_validate_json((await on_farm(*asked, "--json")).stdout)
    table = (await on_farm(*asked, "--segments")).stdout
    assert all(segment.id in table for segment in made.segments)
    refused = await on_farm(*asked, "--workers", "1GiB", status=1)
    assert "--farm is another" in str(refused.exception)


@pytest.mark.asyncio(loop_scope="module")
async def test_with_json_a_command_prints_one_value(on_farm: Command, photo: Path, tmp_path: Path) -> None:
    async def told(*arguments: str) -> Any:
        return json.loads((await on_farm(*arguments, "--json")).stdout)

    job = await told("submit", str(photo), *SMALL)
    ended = await told("watch", job["id"], "-o", str(tmp_path / "v.mp4"))
    assert (ended["id"], ended["status"]) == (job["id"], "succeeded")
    assert (ended["video"], ended["sheet"]) == (str(tmp_path / "v.mp4"), str(tmp_path / "v.png"))
    assert (await told("rerender", job["id"], "--frames", "0:5"))["segments"] == ["s0-0"]
    assert (await told("watch", job["id"]))["status"] == "succeeded"
    assert await told("delete", job["id"]) == {"deleted": [job["id"]]}
    watched = await told("submit", str(photo), *SMALL, "--watch")
    assert watched["totals"]["wall_s"] > 0
    assert (await told("login"))["url"].startswith("http://127.0.0.1:")
    assert set(await told("join-token")) == {"token"}
    assert await told("drain", "near/cpu1") == {"name": "near/cpu1", "draining": True}
    assert await told("enable", "near/cpu1") == {"name": "near/cpu1", "draining": False}
    key = await told("keys", "create", "me", "--scope", "read")
    assert await told("keys", "revoke", key["id"]) == {"id": key["id"], "revoked": True}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_video_that_is_fetched_is_told_by_its_whole_path(
    on_farm: Command, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (await on_farm("submit", str(photo), *SMALL, "--watch", "-o", "v.mp4")).stdout.splitlines()
    job_id = lines[0]
    assert lines[1].startswith(f"video: {tmp_path / 'v.mp4'} (24 frames, 3.0 s, made in ")
    assert lines[2] == f"contact sheet: {tmp_path / 'v.png'}"
    assert lines[3].startswith(f"job {job_id}; ")
    assert f"`farm report {job_id} --farm http://" in lines[3]


@pytest.mark.asyncio(loop_scope="module")
async def test_old_jobs_of_a_farm_that_is_up_are_named_and_go_when_they_are_asked_to(
    on_farm: Command, shared_farm: Farm, photo: Path
) -> None:
    job_id = await shared_farm.finished_job(photo)
    jobs = shared_farm.coordinator.ledger.state.jobs
    jobs[job_id].finished_at = 1.0
    young = set(jobs) - {job_id}
    named = await on_farm("storage", "--older-than", "30d")
    assert f"{job_id}: ended more than 30d ago; --delete removes them" in named.stdout
    assert job_id in jobs
    asked = ("storage", "--older-than", "30d", "--delete")
    assert "asks first" in str((await on_farm(*asked, status=1)).exception)
    gone = json.loads((await on_farm(*asked, "--yes", "--json")).stdout)
    assert gone["older_jobs"] == [job_id]
    assert gone["folder"].startswith("http://")
    assert set(jobs) == young


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("token", "says"),
    [
        ((), "wants a key; give one with --token (key= in Python) or in REELFARM_TOKEN: `farm keys create"),
        (("--token", "rf_wrong"), "does not know this key, or it has ended; give another: `farm keys create"),
    ],
)
async def test_a_key_that_is_missing_or_wrong_is_told_in_the_words_of_the_command(
    shared_farm: Farm, serving: Any, token: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REELFARM_TOKEN", raising=False)
    async with serving(shared_farm.app) as url:
        refused = await asyncio.to_thread(CliRunner().invoke, app, ["jobs", "--farm", url, *token])
    assert f"the farm at {url} {says}" in str(refused.exception)
    assert "Bearer" not in str(refused.exception)
