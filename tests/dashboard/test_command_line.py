"""The command against a farm that is up, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from farm.cli.main import app
from farm.planning import Plan
from tests.dashboard.conftest import Farm

Command = Callable[..., Awaitable[Result]]
SMALL = ("--model", "procedural", "--frames", "24", "--size", "64x64", "--fps", "8")


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
    assert lines[0] == "video  24 frames (3.0 s) 64x64 at 8 fps"
    assert "near/cpu0" in lines[2]
    assert "`farm submit --farm http" in lines[4]
    made = Plan.model_validate_json((await on_farm(*asked, "--json")).stdout)
    table = (await on_farm(*asked, "--segments")).stdout
    assert all(segment.id in table for segment in made.segments)
    refused = await on_farm(*asked, "--workers", "1GiB", status=1)
    assert "--farm is another" in str(refused.exception)
