"""Real worker processes: what they tell of their device, and how they go and come back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.request.job import JobRequest
from nodes.hosting.host import local_farm, take_in, workers_up

pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
WORKERS = [
    Worker(id=f"here/cpu{n}", node="here", kind="cpu", device_name="CPU", vram_bytes=4 * GIB) for n in (0, 1)
]


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    for _ in range(round(timeout_s / 0.05)):
        if found := condition():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {timeout_s:.0f} s")


def worker_processes() -> list[psutil.Process]:
    """The worker processes below this one."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if " ".join(child.cmdline()).startswith("ray::_Worker")
    ]


def test_workers_tell_of_their_process_and_one_that_was_drained_comes_back(tmp_path: Path) -> None:
    # In a process of its own: Ray reads its token once in a process, and another test may have had it do so.
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


async def drain_and_enable(folder: Path) -> None:
    async with local_farm(folder / "state", WORKERS) as farm:
        await workers_up(farm, 2)
        state = farm.ledger.state
        first, second = (w.id for w in WORKERS)

        def told(worker_id: str) -> Any:
            return worker_id in state.workers and state.workers[worker_id].telemetry

        for worker_id in (first, second):
            sample = await until(lambda w=worker_id: told(w), f"telemetry of {worker_id}")
            assert sample.worker_id == worker_id
            assert sample.memory_used_bytes in range(10 * 10**6, 4 * GIB)
            assert (sample.vram_used_bytes, sample.power_w) == (None, None)
        # A busy worker goes on telling, and its process is seen to work.
        request = JobRequest(
            inputs=take_in([PHOTO], folder), model="procedural-mild", prompts=("pan right",),
            width=256, height=256, num_frames=60, fps=Fraction(8),
        )  # fmt: skip
        job_id = farm.submit(request)
        busy = await until(
            lambda: next((w for w in state.workers.values() if w.telemetry.load > 0.1), None),
            "a worker under load",
        )
        assert 0.1 < busy.telemetry.load <= 1.0
        async for _ in farm.ledger.follow(job_id):
            pass
        assert farm.ledger.job(job_id).status == "succeeded"

        before = {process.pid for process in worker_processes()}
        farm.drain(second)
        await until(lambda: second not in state.workers, "the drained worker's end")
        assert list(state.drained) == [second]
        await asyncio.sleep(1.5)  # three looks at who could work
        assert second not in state.workers
        assert len(worker_processes()) == 1
        farm.enable(second)
        await until(lambda: second in state.workers, "the enabled worker")
        await until(lambda: told(second), "telemetry of the enabled worker")
        assert len({process.pid for process in worker_processes()} - before) == 1


if __name__ == "__main__":
    asyncio.run(drain_and_enable(Path(sys.argv[1])))
