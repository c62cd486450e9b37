"""What a job survives, and how it stops when it cannot: workers, engines, networks and disks that fail."""

from __future__ import annotations

import resource
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from farm.capabilities.worker import Worker
from farm.errors import InvalidInput
from farm.planning.render_task import RenderTask
from farm.running.cluster import Failed, Finished, Progress, WorkerDown
from farm.running.storage import Storage
from farm.state.events import (
    AttemptFailed,
    AttemptSucceeded,
    TaskReopened,
    WorkerLeft,
)
from nodes.engines.engine import Rendered, Report
from nodes.work.local_cluster import LocalCluster


async def test_a_worker_that_dies_in_the_middle_loses_its_segment_to_another(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    begun = threading.Event()

    def hang_on_the_victim(worker: str, task: RenderTask, report: Report) -> None:
        while worker == "victim/0":
            begun.set()
            report("denoise", 0, 1)
            time.sleep(0.002)

    async with run_farm("victim/0", "other/0", engine=trouble(hang_on_the_victim)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=18))
        await farm.until(begun.is_set)
        farm.cluster.kill("victim/0")
        job = await farm.ended(job_id)
        assert (job.status, job.published.num_frames) == ("succeeded", 18)
        (lost,) = farm.events(AttemptFailed)
        assert (lost.kind, lost.message) == ("lost", "worker victim/0 was killed")
        assert job.tasks[lost.task_id].attempts[-1].worker_id == "other/0"
        assert set(farm.ledger.state.workers) == {"other/0"}


async def test_a_result_that_is_damaged_on_its_way_is_lost_and_rendered_again(
    run_farm: Any, photo: Any, job_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive, damaged = LocalCluster._say, []

    def flip_a_bit_once(self: LocalCluster, message: Progress | Finished | Failed) -> None:
        if isinstance(message, Finished) and not damaged:
            damaged.append(message.attempt_id)
            content = bytearray(message.content)
            content[len(content) // 2] ^= 4
            message = replace(message, content=memoryview(content))
        arrive(self, message)

    monkeypatch.setattr(LocalCluster, "_say", flip_a_bit_once)
    async with run_farm("a/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=18)))
        assert job.status == "succeeded", job.reason
        (lost,) = farm.events(AttemptFailed)
        assert (lost.attempt_id, lost.kind) == (damaged[0], "lost")
        assert lost.message == "its result was damaged on the way here"
        assert not farm.events(TaskReopened), "it was never stored as if it were right"


async def test_a_dead_worker_that_was_idle_is_given_nothing(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0", "b/0") as farm:
        await farm.until(lambda: len(farm.ledger.state.workers) == 2)
        farm.cluster.kill("a/0")
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=18)))
        assert job.status == "succeeded", job.reason
        assert {e.worker_id for e in farm.events(WorkerLeft)} == {"a/0"}


async def test_what_fails_on_one_worker_is_tried_on_another(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    def fail_on_a(worker: str, task: RenderTask, report: Report) -> None:
        if worker == "a/0":
            raise ArithmeticError("a bad card")

    async with run_farm("a/0", "b/0", engine=trouble(fail_on_a)) as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=18)))
        assert job.status == "succeeded", job.reason
        failed = farm.events(AttemptFailed)
        assert {(e.kind, e.message) for e in failed} == {("error", "ArithmeticError: a bad card")}
        assert len({e.task_id for e in failed}) == len(failed), "no task went to the bad card twice"


async def test_black_frames_are_not_taken(run_farm: Any, photo: Any, job_request: Any, trouble: Any) -> None:
    def black_on_a(worker: str, task: RenderTask, report: Report) -> Rendered | None:
        black = np.zeros((task.num_frames, task.height, task.width, 3), np.uint8)
        return Rendered(frames=black) if worker == "a/0" else None

    async with run_farm("a/0", "b/0", engine=trouble(black_on_a)) as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        assert job.status == "succeeded", job.reason
        assert {e.kind for e in farm.events(AttemptFailed)} == {"invalid_output"}


async def test_three_failures_stop_the_job_and_a_retry_goes_on_with_what_is_done(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    broken, one_is_done = True, threading.Event()
    rendered: list[int] = []

    def fail_at_the_second(worker: str, task: RenderTask, report: Report) -> None:
        if broken and task.frame_indices[0] == 5:
            one_is_done.wait(60)
            raise ArithmeticError(f"no luck on {worker}")
        rendered.append(task.frame_indices[0])

    async with run_farm("a/0", "b/0", "c/0", "d/0", engine=trouble(fail_at_the_second)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=18))
        await farm.until(lambda: farm.events(AttemptSucceeded))
        one_is_done.set()
        job = await farm.ended(job_id)
        assert job.status == "failed"
        assert job.reason.startswith("segment s0-1 failed 3 times (")
        assert job.reason.count("ArithmeticError: no luck on ") == 3
        done = {t.id for t in job.tasks.values() if t.status == "done"}
        with pytest.raises(InvalidInput, match="only a running job can be cancelled"):
            farm.coordinator.cancel(job_id)
        broken = False
        farm.coordinator.retry(job_id)
        with pytest.raises(InvalidInput, match="is running and a worker is at it; only a job that failed"):
            farm.coordinator.retry(job_id)
        await farm.ended(job_id)
        assert (job.status, job.published.num_frames) == ("succeeded", 18)
        assert done, "something was done before the stop"
        assert all(rendered.count(job.tasks[task_id].segment.start) == 1 for task_id in done)


async def test_a_late_result_is_refused_and_counted(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    class Partition(LocalCluster):
        def cut_off(self, worker_id: str) -> None:
            """The coordinator believes it dead; it works on."""
            self._messages.put_nowait(WorkerDown(worker_id, "cannot be reached"))

    begun, go_on = threading.Event(), threading.Event()

    def wait_on_a(worker: str, task: RenderTask, report: Report) -> None:
        if worker == "a/0":
            begun.set()
            go_on.wait(60)

    async with run_farm("a/0", "b/0", engine=trouble(wait_on_a), cluster=Partition) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(begun.is_set)
        farm.cluster.cut_off("a/0")
        job = await farm.ended(job_id)
        assert (job.status, job.num_refused) == ("succeeded", 0)
        before = job.published
        go_on.set()
        await farm.until(lambda: job.num_refused == 1)
        assert job.published == before
        assert len(farm.events(AttemptSucceeded)) == 2


async def test_a_result_whose_worker_is_lost_while_it_is_stored_is_refused(
    run_farm: Any, photo: Any, job_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go_on = threading.Event(), threading.Event()
    put = Storage.put

    def put_slowly(storage: Storage, content: bytes | memoryview) -> str:
        storing.set()
        go_on.wait(60)
        return put(storage, content)

    monkeypatch.setattr(Storage, "put", put_slowly)
    async with run_farm("a/0") as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(storing.is_set)
        farm.cluster.kill("a/0")
        await farm.until(lambda: not farm.ledger.state.workers)
        go_on.set()
        job = farm.ledger.job(job_id)
        await farm.until(lambda: job.num_refused == 1)
        assert (job.status, job.num_done, job.tasks["s0-0"].status) == ("running", 0, "ready")


async def test_a_silent_attempt_is_stalled_its_worker_ended_and_the_segment_moved(
    run_farm: Any, photo: Any, monkeypatch: pytest.MonkeyPatch, job_request: Any, trouble: Any
) -> None:
    monkeypatch.setattr("farm.running.stalls.CHECK_INTERVAL_S", 0.01)
    late_s = 0.0
    begun, go_on = threading.Event(), threading.Event()

    def wait_on_a(worker: str, task: RenderTask, report: Report) -> None:
        if worker == "a/0":
            report("denoise", 0, 1)
            begun.set()
            go_on.wait(60)

    async with run_farm(
        "a/0", engine=trouble(wait_on_a), monotonic=lambda: time.monotonic() + late_s
    ) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(begun.is_set)
        await farm.until(lambda: farm.ledger.job(job_id).tasks["s0-0"].attempts[0].phase == "denoise")
        late_s = 61.0
        await farm.until(lambda: farm.events(AttemptFailed))
        (stalled,) = farm.events(AttemptFailed)
        assert stalled.kind == "stalled"
        assert stalled.message.startswith("worker a/0 was silent for 61 s in denoise")
        assert farm.ledger.state.workers == {}
        farm.cluster.add(Worker(id="b/0", node="b", kind="cpu", device_name="a CPU", vram_bytes=2**32))
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        go_on.set()


async def test_a_straggler_gets_a_copy_and_the_first_result_wins(
    run_farm: Any, photo: Any, monkeypatch: pytest.MonkeyPatch, job_request: Any, trouble: Any
) -> None:
    monkeypatch.setattr("farm.running.stalls.CHECK_INTERVAL_S", 0.01)
    late_s = 0.0
    begun, stopped = threading.Event(), threading.Event()

    def dawdle_on_a(worker: str, task: RenderTask, report: Report) -> None:
        try:
            while worker == "a/0":
                begun.set()
                report("encode", 0, 1)
                time.sleep(0.002)
        finally:
            if worker == "a/0":
                stopped.set()

    async with run_farm(
        "a/0", engine=trouble(dawdle_on_a), monotonic=lambda: time.monotonic() + late_s
    ) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(begun.is_set)
        farm.cluster.add(Worker(id="b/0", node="b", kind="cpu", device_name="a CPU", vram_bytes=2**32))
        late_s = 30.0
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        assert [a.worker_id for a in job.tasks["s0-0"].attempts] == ["a/0", "b/0"]
        (cancelled,) = farm.events(AttemptFailed)
        assert (cancelled.kind, cancelled.message) == ("cancelled", "another copy was first")
        await farm.until(stopped.is_set)
        assert farm.ledger.state.workers["a/0"].attempts == {}
        assert job.num_refused == 0, "the end of a copy that was taken back is no late result"


async def test_a_full_disk_stops_the_job_with_the_reason_and_a_retry_goes_on(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    noise = photo(side=192, smooth=0)
    async with run_farm("a/0") as farm:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        job_id = farm.coordinator.submit(job_request(noise, num_frames=8, width=192, height=192))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            job = await farm.ended(job_id)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert job.status == "failed"
        assert job.reason.endswith("cannot be written (File too large); free disk space")
        assert farm.ledger.state.workers["a/0"].attempts == {}
        farm.coordinator.retry(job_id)
        await farm.ended(job_id)
        assert job.status == "succeeded", job.reason


async def test_a_folder_for_the_video_that_cannot_be_made_stops_the_job_with_the_reason(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        jobs = farm.storage.root / "jobs"
        jobs.rmdir()
        jobs.touch()
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        assert job.status == "failed"
        assert "could not be joined" in job.reason
        assert "cannot be written" in job.reason


async def test_a_damaged_segment_is_rendered_again_instead_of_being_published(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(lambda: farm.events(AttemptSucceeded))
        for task in farm.ledger.job(job_id).tasks.values():
            for artifact in task.artifacts.values():
                farm.storage.path(artifact.sha256).write_bytes(b"damaged")
        farm.coordinator.cancel(job_id)
        farm.coordinator.retry(job_id)
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        assert len(farm.video(job)) == 13
