"""A farm put together on this machine, as far as it comes without Ray."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from farm.state import FolderInUse, locked
from nodes.hosting.host import in_turn, local_farm

WORKER = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)


@pytest.mark.ray  # as far as it comes
async def test_a_ray_that_does_not_start_is_one_line_and_the_state_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What comes first on the path is what the driver's process imports.
    fake = tmp_path / "fake"
    (fake / "ray").mkdir(parents=True)
    (fake / "ray" / "__init__.py").write_text("raise OSError('AF_UNIX path length cannot exceed 107 bytes')")
    monkeypatch.setattr(sys, "path", [str(fake), *sys.path])
    for _ in range(2):
        with pytest.raises(CannotRun) as refused:
            async with local_farm(tmp_path / "state", [WORKER]):
                pass
        assert refused.value.message == (
            "Ray did not start here: OSError: AF_UNIX path length cannot exceed 107 bytes; "
            "`farm doctor` looks the machine over"
        )


async def test_a_second_render_waits_until_the_first_has_given_the_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nodes.hosting.host.TURN_INTERVAL_S", 0.0)
    with ExitStack() as second:
        with locked(tmp_path, "render"):
            waiting = asyncio.ensure_future(in_turn(tmp_path, second))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        assert capsys.readouterr().err.count("waiting: farm render (process") == 1
        with pytest.raises(FolderInUse), locked(tmp_path, "render"):
            pass


async def test_a_render_does_not_wait_for_a_farm_that_stays_up(tmp_path: Path) -> None:
    with locked(tmp_path, "up"), ExitStack() as stack, pytest.raises(FolderInUse, match="`farm submit"):
        await in_turn(tmp_path, stack)
