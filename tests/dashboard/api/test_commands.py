"""The commands that talk to a farm that is up, against one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from farm.cli.main import app
from farm.cli.remote_commands import parse_frames
from farm.errors import InvalidInput, NotFound

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def run(farm: Any, serve: Any) -> Run:
    """Runs a command against the farm."""
    at = ("--farm", await serve(farm.app), "--token", farm.token)

    async def run(*arguments: str, wanted: type[Exception] | None = None) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *at])
        assert type(result.exception) is (wanted or type(None)), result.output
        return result

    return run


async def test_a_job_is_rendered_again_in_part_and_deleted(farm: Any, photo: Path, run: Run) -> None:
    job_id = await farm.finished_job(photo)
    said = await run("rerender", job_id, "--frames", "0:5")
    assert f"{job_id} renders s0-0 again" in said.output
    await farm.until_ended(job_id)
    assert f"{job_id} is deleted" in (await run("delete", job_id)).output
    assert json.loads((await run("jobs", "--json")).output) == []
    await run("delete", job_id, wanted=NotFound)


async def test_workers_are_drained_and_enabled(farm: Any, run: Run) -> None:
    workers = farm.coordinator.ledger.state.workers
    assert "farm enable near" in (await run("drain", "near")).output
    await farm.until(lambda: not workers)
    table = (await run("nodes")).output
    assert table.count("drained") >= 2
    await run("enable", "near/cpu1")
    await farm.until(lambda: list(workers) == ["near/cpu1"])
    await run("enable", "near")
    await farm.until(lambda: len(workers) == 2)
    (node,) = json.loads((await run("nodes", "--json")).output)
    assert [worker["status"] for worker in node["workers"]] == ["idle", "idle"]
    await run("drain", "attic", wanted=NotFound)


async def test_a_job_that_stands_still_says_why_and_where_it_stands_in_the_queue(
    farm: Any, photo: Path, run: Run
) -> None:
    await run("drain", "near")
    await farm.until(lambda: not farm.coordinator.ledger.state.workers)
    first, second = [(await farm.submit(photo, seed=seed)).json()["id"] for seed in range(2)]

    async def row(job_id: str) -> str:
        return next(line for line in (await run("jobs")).output.splitlines() if job_id in line)

    for job_id, place in ((first, 1), (second, 2)):
        assert f" waiting ({place}) " in await row(job_id)
    said = (await run("jobs")).output.splitlines()[-1]
    why = "near/cpu0, near/cpu1 could take it and are all drained; `farm enable near --farm http://"
    assert said.startswith(f"{second}, {first} waiting: {why}")
    said = (await run("priority", second, "80")).output
    assert f"{second} has priority 80; place 1 in the queue" in said
    while "waiting (2)" not in await row(first):  # a row is made anew four times a second
        await asyncio.sleep(0.05)
    assert "waiting, place 1 in the queue" in (await run("report", second)).output
    (told,) = [job for job in json.loads((await run("jobs", "--json")).output) if job["id"] == second]
    assert (told["queue_position"], told["priority"], told["status"]) == (1, 80, "running")
    await run("priority", second, "101", wanted=InvalidInput)
    await run("cancel", second)
    await run("priority", second, "5", wanted=InvalidInput)


@pytest.mark.parametrize("text", ["", "24", "48:24", "24:24", "a:b", "-1:3", "1:2:3", "1:" + "9" * 30])
def test_frames_that_are_no_range_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_frames(text)
    assert refused.value.param == "frames"


def test_a_range_of_frames_is_read() -> None:
    assert parse_frames("24:48") == (24, 48)
