"""Jobs from end to end with a real engine: what is published, and what happens when parts fail."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun, NotFound
from farm.planning.render_task import RenderTask
from farm.request.media import MediaInfo
from farm.running.cluster import Failed, Message, Progress, StitchOrder, WorkerDown
from farm.running.stalls import is_quiet
from farm.state.events import (
    AttemptFailed,
    SeamAccepted,
    SeamMeasured,
    TaskAssigned,
    TaskReopened,
    WorkerLeft,
)
from farm.state.workers import Telemetry
from nodes.engines.engine import Rendered, RenderInputs, Report
from nodes.engines.procedural import engine as procedural
from nodes.work.local_cluster import LocalCluster, LocalStitchSession
from stitching.video_io import encode_lossless, read_frames

# What is published.


@pytest.mark.parametrize("num_frames", [1, 8, 9, 23])
async def test_a_job_publishes_exactly_the_frames_asked_for(
    run_farm: Any, photo: Any, num_frames: int, job_request: Any
) -> None:
    async with run_farm("a/0", "b/0") as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=num_frames)))
        assert job.status == "succeeded", job.reason
        assert job.published.num_frames == num_frames
        assert farm.video(job).shape == (num_frames, 32, 32, 3)
        files = sorted(path.name for path in farm.storage.job_folder(job.id).iterdir())
        assert files == ["job.jsonl", "logs", "sheet.png", "video.mp4"]


async def test_the_frames_are_the_same_whatever_the_farm_looks_like(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    hashes = set()
    for workers in (("a/0",), ("x/0", "y/0", "z/0")):
        async with run_farm(*workers) as farm:
            job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=20)))
            hashes.add(job.published.frames_sha256)
    assert len(hashes) == 1


async def test_a_storyboard_is_cut_from_shot_to_shot(run_farm: Any, photo: Any, job_request: Any) -> None:
    async with run_farm("a/0") as farm:
        asked = job_request(photo(0), photo(1), num_frames=21, prompts=("push in", "pull out"))
        job = await farm.ended(farm.coordinator.submit(asked))
        assert job.published.num_frames == 21
        video = farm.video(job).astype(float)
        steps = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2, 3))
        assert int(steps.argmax()) == 9, "the cut is between frame 9 and frame 10"


@pytest.mark.parametrize("num_frames", [5, 14])
async def test_a_video_is_restyled_frame_by_frame(
    run_farm: Any, photo: Any, tmp_path: Any, num_frames: int, job_request: Any
) -> None:
    async with run_farm("a/0", "b/0") as farm:
        first = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=num_frames)))
        content = encode_lossless(farm.video(first), Fraction(8))
        (tmp_path / "source.mkv").write_bytes(content)
        media = MediaInfo(
            kind="video",
            width=64,
            height=64,
            num_frames=num_frames,
            fps=Fraction(8),
            sha256=hashlib.sha256(content).hexdigest(),
            path=tmp_path / "source.mkv",
        )
        job = await farm.ended(farm.coordinator.submit(job_request(media)))
        assert job.status == "succeeded", job.reason
        assert job.plan.mode == "refine"
        assert len(farm.video(job)) == num_frames


async def test_two_jobs_at_once_are_both_published(run_farm: Any, photo: Any, job_request: Any) -> None:
    async with run_farm("a/0", "b/0") as farm:
        ids = [farm.coordinator.submit(job_request(photo(i), num_frames=18)) for i in range(2)]
        jobs = [await farm.ended(job_id) for job_id in ids]
        assert [job.status for job in jobs] == ["succeeded", "succeeded"]
        assert jobs[0].published.frames_sha256 != jobs[1].published.frames_sha256


# Chains.


class Chained(procedural.Procedural):
    """The real engine, declared unable to start anywhere; remembers what it was given."""

    given: dict[int, RenderInputs]

    def __init__(self, given: dict[int, RenderInputs]) -> None:
        super().__init__()
        self.spec = self.spec.model_copy(update={"random_access": False})
        self.given = given

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        self.given[task.frame_indices[0]] = inputs
        return super().render(task, inputs, report)


async def test_in_a_chain_each_segment_starts_from_the_frame_handed_over(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    given: dict[int, RenderInputs] = {}
    spec = Chained(given).spec
    async with run_farm(
        "a/0", "b/0", engine=lambda model, worker, weights: Chained(given), spec=spec
    ) as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=18)))
        assert job.status == "succeeded", job.reason
        assert (job.plan.mode, job.published.num_frames) == ("chain", 18)
        assigned = [e.task_id for e in farm.events(TaskAssigned)]
        assert list(dict.fromkeys(assigned)) == ["s0-0", "s0-1", "s0-2"]
        segments = job.plan.segments
        frames = [read_frames(farm.storage.path(job.tasks[s.id].artifacts[0].sha256)) for s in segments]
        for before, after, rendered in zip(segments, segments[1:], frames, strict=False):
            handed_over = rendered[before.handover_index]
            assert np.array_equal(given[after.start].handover["image"], handed_over)
            assert np.array_equal(given[after.start].anchor["image"], frames[0][segments[0].handover_index])
        assert given[0].handover == {}


# Seams.


async def test_a_failed_seam_is_rendered_again_and_the_best_take_is_kept(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0", "b/0") as farm:
        asked = job_request(photo(), model="procedural-hard", num_frames=13, width=64, height=64)
        job = await farm.ended(farm.coordinator.submit(asked))
        assert job.status == "succeeded", job.reason
        assert job.published.num_frames == 13
        reopened = farm.events(TaskReopened)
        assert reopened, "the hard model's first seam fails its gates"
        assert [e.take for e in reopened] == list(range(1, len(reopened) + 1))
        assert all(e.reason.startswith("seam gates failed: ") for e in reopened)
        measured = farm.events(SeamMeasured)
        assert [e.take for e in measured] == list(range(len(reopened) + 1))
        (accepted,) = farm.events(SeamAccepted)
        fewest = min(len(e.report["failed_gates"]) for e in measured)
        assert len(measured[accepted.take].report["failed_gates"]) == fewest
        takes = job.tasks["s0-1"].artifacts
        assert len({a.frames_sha256 for a in takes.values()}) == len(takes), "every take differs"


# What users do.


async def test_a_cancelled_job_gives_its_workers_back_and_can_be_continued_at_once(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    hold = True

    def hang(worker: str, task: RenderTask, report: Report) -> None:
        while hold:
            report("denoise", 0, 1)
            time.sleep(0.002)

    async with run_farm("a/0", "b/0", engine=trouble(hang)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(lambda: farm.events(TaskAssigned))
        farm.coordinator.cancel(job_id)
        job = farm.ledger.job(job_id)
        assert (job.status, job.num_running) == ("cancelled", 0)
        assert all(w.attempts == {} for w in farm.ledger.state.workers.values())
        assert {e.message for e in farm.events(AttemptFailed)} == {"job cancelled"}
        hold = False
        farm.coordinator.retry(job_id)
        await farm.ended(job_id)
        assert (job.status, len(farm.video(job))) == ("succeeded", 13)


async def test_a_job_cancelled_and_retried_while_it_is_joined_is_whole(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    class Counting(LocalCluster):
        num_open = most_open = 0

        async def open_stitcher(self, order: StitchOrder) -> LocalStitchSession:
            session = await super().open_stitcher(order)
            close = session.close
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)

            async def closing() -> None:
                await close()
                self.num_open -= 1

            session.close = closing  # type: ignore[method-assign]
            return session

    async with run_farm("a/0", "b/0", cluster=Counting) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), model="procedural-typical", num_frames=23))
        job = farm.ledger.job(job_id)
        for wanted in (1, 2, 3):
            await farm.until(
                lambda wanted=wanted: len(farm.events(SeamMeasured)) >= wanted or job.status != "running"
            )
            if job.status == "running":
                farm.coordinator.cancel(job_id)
                farm.coordinator.retry(job_id)
        await farm.ended(job_id)
        assert job.status == "succeeded", job.reason
        assert len(farm.video(job)) == 23
        assert farm.cluster.most_open == 1, "two stitchers would write the same file"


async def test_a_drained_worker_finishes_what_it_has_and_goes(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any, held: Any
) -> None:
    async with run_farm("a/0", engine=trouble(held)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(held.begun.is_set)
        farm.coordinator.drain("a/0")
        farm.coordinator.drain("a/0")
        held.go_on.set()
        await farm.until(lambda: not farm.ledger.state.workers)
        assert [e.reason for e in farm.events(WorkerLeft)] == ["was released"]
        job = farm.ledger.job(job_id)
        assert [t.status for t in job.tasks.values()] == ["done", "ready"]


async def test_a_drained_worker_goes_when_its_job_is_cancelled(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    def hang(worker: str, task: RenderTask, report: Report) -> None:
        while True:
            report("denoise", 0, 1)
            time.sleep(0.002)

    async with run_farm("a/0", engine=trouble(hang)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(lambda: farm.events(TaskAssigned))
        farm.coordinator.drain("a/0")
        farm.coordinator.cancel(job_id)
        await farm.until(lambda: not farm.ledger.state.workers)


async def test_an_idle_worker_that_is_drained_goes_at_once(run_farm: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        await farm.until(lambda: not farm.ledger.state.workers)


async def test_a_worker_that_comes_back_unannounced_is_a_fresh_one(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    class Forgetful(LocalCluster):
        def _end(self, worker_id: str, reason: str) -> None:
            """The word of its end is lost."""
            body = self._bodies.pop(worker_id, None)
            if body:
                body.cancel(None)
                self._orders.pop(worker_id).put(None)

    begun = threading.Event()
    hold = True

    def hang(worker: str, task: RenderTask, report: Report) -> None:
        while hold:
            begun.set()
            report("denoise", 0, 1)
            time.sleep(0.002)

    async with run_farm("a/0", engine=trouble(hang), cluster=Forgetful) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(begun.is_set)
        hold = False
        farm.cluster.kill("a/0")
        farm.cluster.add(Worker(id="a/0", node="a", kind="cpu", device_name="a CPU", vram_bytes=2**32))
        job = await farm.ended(job_id)
        assert job.status == "succeeded", job.reason


async def test_what_no_worker_can_hold_is_refused_at_submit_and_leaves_no_trace(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        with pytest.raises(CannotRun, match=r"no worker can hold 4096x4096 .*these fit: --size") as refused:
            farm.coordinator.submit(job_request(photo(), width=4096, height=4096, window_frames=64))
        assert refused.value.param == "size"
        assert farm.ledger.state.jobs == {}


async def test_a_job_that_would_not_fit_on_the_disk_is_refused_at_submit(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm() as farm:
        with pytest.raises(CannotRun, match="GB is free there"):
            farm.coordinator.submit(job_request(photo(), width=4096, height=4096, num_frames=60_000))
        assert farm.ledger.state.jobs == {}


async def test_a_worker_whose_memory_others_hold_is_given_nothing_until_they_let_go(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    def look(others: int) -> Telemetry:
        return Telemetry("a/0", vram_total_bytes=8 * GIB, vram_others_bytes=others)

    class Watched(LocalCluster):
        async def _watch_devices(self) -> None:
            """Only what the test says is seen."""

        def see(self, others: int) -> None:
            self._messages.put_nowait(look(others))

    async with run_farm("a/0", cluster=Watched) as farm:
        worker = farm.ledger.state.workers
        await farm.until(lambda: worker)
        farm.cluster.see(8 * GIB)
        await farm.until(lambda: worker["a/0"].limited)
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        assert farm.events(TaskAssigned) == []
        farm.cluster.see(0)
        assert (await farm.ended(job_id)).status == "succeeded"


async def test_an_unknown_job_is_said(run_farm: Any) -> None:
    async with run_farm() as farm:
        for act in (farm.coordinator.cancel, farm.coordinator.retry):
            with pytest.raises(NotFound, match="there is no job"):
                act("job-000000000000")


async def test_a_journal_that_cannot_be_written_ends_the_run(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        running = asyncio.ensure_future(farm.coordinator.run())
        farm.ledger.journal.close()
        with pytest.raises(CannotRun, match="the journal cannot be written"):
            farm.coordinator.submit(job_request(photo(), num_frames=8))
        with pytest.raises(CannotRun, match="the journal cannot be written"):
            await asyncio.wait_for(running, 10)


@pytest.mark.parametrize(
    ("message", "quiet"),
    [
        (Telemetry("a/0", load=0.5), True),
        (Progress("job/s0-0/1", "denoise", 3, 8), True),
        (Progress("job/s0-0/1", "transfer", 0, 1), False),
        (WorkerDown("a/0", "died"), False),
        (Failed("job/s0-0/1", "error", "no"), False),
    ],
)
def test_steps_and_devices_ask_nothing_of_the_schedule(message: Message, quiet: bool) -> None:
    assert is_quiet(message) is quiet
