"""Whatever users do to a farm at work, in whatever order: its journal gives its state again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from farm.errors import FarmError
from farm.planning.render_task import RenderTask
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from farm.state.state import State, blob_hashes
from nodes.engines.engine import Report

WORKERS = ("a/0", "a/1", "b/0")
#: (what chance is seeded with, on which workers)
FARMS = [(0, WORKERS), (1, WORKERS), (2, WORKERS), (0, ("a/0",))]


def replayed(path: Path) -> State:
    ledger = Ledger(Journal(path))
    ledger.replay()
    ledger.journal.close()
    return ledger.state


def actions(
    farm: Any, workers: Sequence[str], rng: random.Random, submit: Callable[[], str]
) -> list[Callable[[], object]]:
    """What could be done now, by whom it may concern."""
    do: list[Callable[[], object]] = [submit]
    worker_id = rng.choice(workers)
    do += [
        lambda: farm.coordinator.drain(worker_id, leaving=rng.random() < 0.2),
        lambda: farm.coordinator.enable(worker_id),
        lambda: farm.coordinator.enable(rng.choice(workers)),
        lambda: back(farm, worker_id),
    ]
    jobs = farm.ledger.state.jobs
    if jobs:
        job = jobs[rng.choice(list(jobs))]
        start = rng.randrange(job.plan.num_frames)
        end = rng.choice((start + 1, job.plan.num_frames))
        do += [
            lambda: farm.coordinator.cancel(job.id),
            lambda: farm.coordinator.retry(job.id),
            lambda: farm.coordinator.delete(job.id),
            lambda: farm.coordinator.rerender(job.id, start, end),
            lambda: farm.coordinator.rerender(job.id, 0, job.plan.num_frames),
        ]
    return do


def listed(state: State, worker_id: str) -> bool:
    return any(worker_id in some for some in (state.workers, state.drained, state.starting))


def back(farm: Any, worker_id: str) -> None:
    """The machine comes back, if it has left."""
    if not listed(farm.ledger.state, worker_id):
        farm.cluster.enable(worker_id)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "workers"), FARMS)
async def test_the_journal_of_a_farm_at_work_gives_its_state_again(
    run_farm: Any,
    photo: Any,
    job_request: Any,
    trouble: Any,
    tmp_path: Path,
    seed: int,
    workers: tuple[str, ...],
) -> None:
    rng = random.Random(seed)

    def fail_now_and_then(worker: str, task: RenderTask, report: Report) -> None:
        if rng.random() < 0.05:
            raise ValueError("a bad day")

    path = tmp_path / "state" / "journal.sqlite"
    inputs = [photo(number) for number in range(2)]

    for _ in range(2):  # the second time over what the first has left
        async with run_farm(*workers, engine=trouble(fail_now_and_then)) as farm:
            modes = [
                {"num_frames": 8},
                {"num_frames": 18},
                {"num_frames": 18, "mode": "chain"},
                {"num_frames": 13, "model": "procedural-hard"},
            ]

            def submit(farm: Any = farm, modes: Any = modes) -> str:
                job_id: str = farm.coordinator.submit(job_request(rng.choice(inputs), **rng.choice(modes)))
                return job_id

            for _ in range(30):
                with suppress(FarmError):
                    rng.choice(actions(farm, workers, rng, submit))()
                await asyncio.sleep(rng.choice((0.0, 0.001, 0.05)))
                if rng.random() < 0.1:
                    assert replayed(path) == farm.ledger.state
            for worker_id in workers:
                back(farm, worker_id)
                await farm.until(lambda w=worker_id: listed(farm.ledger.state, w))
                farm.coordinator.enable(worker_id)
            for job_id in list(farm.ledger.state.jobs):
                if farm.ledger.job(job_id).status in ("failed", "cancelled"):
                    farm.coordinator.retry(job_id)
            for job_id in list(farm.ledger.state.jobs):
                job = await farm.ended(job_id)
                assert job.status in ("succeeded", "failed"), job.reason
                if job.status == "succeeded":
                    assert len(farm.video(job)) == job.plan.num_frames
                    assert job.num_done == len(job.tasks)
            await farm.until(lambda: not farm.coordinator._tasks and not farm.coordinator.joiners.open)
            state = farm.ledger.state
            assert replayed(path) == state
            stored = {file.name for file in farm.storage.root.glob("blobs/*/*")}
            assert stored == {sha256 for job in state.jobs.values() for sha256 in blob_hashes(job)}
            assert {p.name for p in (farm.storage.root / "jobs").iterdir()} == set(state.jobs)
