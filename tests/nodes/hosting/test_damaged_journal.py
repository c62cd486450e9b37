"""A farm whose journal is damaged says so before it starts anything."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from farm.machines.cluster_file import ClusterFile
from farm.state.events import WorkerLeft
from farm.state.journal import Journal
from nodes.hosting.host import local_farm
from nodes.hosting.keep_up import keep_up
from nodes.ray.cluster import RayCluster


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder; starting Ray fails the test."""

    def start_nothing(*_: object) -> Any:
        raise AssertionError("Ray is started")

    monkeypatch.setattr(RayCluster, "open", start_nothing)
    monkeypatch.setattr(sys.modules["nodes.hosting.keep_up"], "ensure_head", start_nothing)
    journal = Journal(tmp_path / "journal.sqlite")
    for _ in range(3):
        journal.append(WorkerLeft(worker_id="a/0", reason="died"), at=0.0)
    journal.close()
    with sqlite3.connect(journal.path) as database:
        database.execute("UPDATE events SET body = x'00ff' WHERE seq = 2")
    return tmp_path


async def test_a_farm_that_stays_up_says_so_and_starts_no_ray(damaged: Path) -> None:
    with pytest.raises(CannotRun, match=r"event 2 of the journal .* is damaged"):
        await keep_up(ClusterFile(), [], damaged, None, None)  # type: ignore[arg-type]


async def test_a_farm_of_one_job_says_so_and_starts_no_ray(damaged: Path) -> None:
    worker = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
    with pytest.raises(CannotRun, match=r"event 2 of the journal .* is damaged"):
        async with local_farm(damaged, [worker]):
            pass
