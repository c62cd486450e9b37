"""A job's video with a part of it rendered again: what changes, what stays, and what a kill costs."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farm.errors import CannotRun, InvalidInput, NotFound
from farm.planning.render_task import RenderTask
from farm.request.media import MediaInfo
from farm.running.cluster import StitchOrder
from farm.state.events import (
    AttemptFailed,
    AttemptSucceeded,
    JobCancelled,
    JobReopened,
    SeamMeasured,
)
from farm.state.journal import Journal
from nodes.engines.engine import Frames, Rendered, RenderInputs, Report
from nodes.engines.procedural import engine as procedural
from nodes.work.local_cluster import LocalCluster, LocalStitchSession
from stitching.video_io import encode_lossless, read_frames


class Recording(LocalCluster):
    """Keeps the raw frames of every video that is joined."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.videos: list[list[Frames]] = []

    async def open_stitcher(self, order: StitchOrder) -> LocalStitchSession:
        session = await super().open_stitcher(order)
        stitcher, frames = session._joiner._stitcher, []
        emit = stitcher._sink
        stitcher._sink = lambda more: (frames.append(more.copy()), emit(more))[1]
        self.videos.append(frames)
        return session

    def video(self, number: int) -> Frames:
        frames: Frames = np.concatenate(self.videos[number])
        return frames


async def rerendered(farm: Any, job: Any, start: int, end: int) -> list[str]:
    segments: list[str] = farm.coordinator.rerender(job.id, start, end)
    await farm.ended(job.id)
    assert job.status == "succeeded", job.reason
    return segments


async def test_frames_outside_the_segments_that_are_rendered_again_stay_as_they_were(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    request = job_request(
        photo(0), photo(1), model="procedural-typical", num_frames=46, prompts=("push in", "pull out")
    )
    async with run_farm("a/0", "b/0", cluster=Recording) as farm:
        job = await farm.ended(farm.coordinator.submit(request))
        before = job.published
        kept = {t.id: t.artifacts[job.kept_take(t)] for t in job.tasks.values()}
        (again,) = await rerendered(farm, job, 9, 10)
        segment = job.tasks[again].segment
        assert 0 < segment.start <= 9 < segment.end
        first, second = farm.cluster.video(0), farm.cluster.video(-1)
        assert len(first) == len(second) == 46
        assert np.array_equal(first[: segment.start], second[: segment.start])
        inside = slice(segment.start + segment.head, segment.end - segment.tail)
        assert not np.array_equal(first[inside], second[inside])
        assert np.array_equal(first[23:], second[23:]), "the second shot begins anew"
        for task in job.tasks.values():
            same = task.artifacts[job.kept_take(task)] == kept[task.id]
            assert same == (task.id != again)
        assert job.published.frames_sha256 != before.frames_sha256
        assert len(farm.video(job)) == 46


async def test_a_neighbour_is_not_rendered_again_for_a_seam_that_fails(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0", "b/0") as farm:
        asked = job_request(photo(), model="procedural-hard", num_frames=18)
        job = await farm.ended(farm.coordinator.submit(asked))
        seen = len(farm.events(object))
        assert await rerendered(farm, job, 8, 9) == ["s0-1"]
        since = [event for _, _, event in farm.ledger.journal.events()][seen:]
        assert {e.task_id for e in since if isinstance(e, AttemptSucceeded)} == {"s0-1"}
        measured = [e.task_id for e in since if isinstance(e, SeamMeasured)]
        assert measured.count("s0-2") == 1
        assert measured.count("s0-1") >= 1


async def test_the_published_video_stays_until_the_new_one_is_whole(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def wait(worker: str, task: RenderTask, report: Report) -> None:
        if task.take:
            begun.set()
            go_on.wait(60)

    async with run_farm("a/0", engine=trouble(wait)) as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=13)))
        published, video = job.published, farm.storage.job_folder(job.id) / "video.mp4"
        content = video.read_bytes()
        farm.coordinator.rerender(job.id, 0, 1)
        await farm.until(begun.is_set)
        assert (job.status, job.published, job.finished_at) == ("running", published, None)
        assert video.read_bytes() == content
        go_on.set()
        await farm.ended(job.id)
        assert (job.status, len(farm.events(AttemptSucceeded))) == ("succeeded", 3)


class Chained(procedural.Procedural):
    """The real engine in a chain: a pixel of every segment tells what it was handed, and its take.

    ``given`` keeps what the segment that starts at a frame was handed last; ``hold`` may wait before one.
    """

    def __init__(
        self, given: dict[int, Any] | None = None, hold: Callable[[RenderTask, Report], None] | None = None
    ) -> None:
        super().__init__()
        self.spec = self.spec.model_copy(update={"random_access": False})
        self._given, self._hold = {} if given is None else given, hold

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        if self._hold:
            self._hold(task, report)
        made = super().render(task, inputs, report)
        self._given[task.frame_indices[0]] = inputs.handover.get("image")
        handed = inputs.handover["image"].tobytes() if inputs.handover else b""
        frames = made.frames.copy()
        frames[:, 0, 0] = (zlib.crc32(handed) + task.take) % 256
        hands_over = task.handover_index is not None
        return Rendered(frames, {"image": frames[task.handover_index]} if hands_over else {})


async def test_a_chain_rendered_again_is_one_whole_chain(run_farm: Any, photo: Any, job_request: Any) -> None:
    given: dict[int, Any] = {}
    spec = Chained().spec
    async with run_farm(
        "a/0", "b/0", engine=lambda model, worker, weights: Chained(given), spec=spec
    ) as farm:
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=23)))
        tasks = list(job.tasks.values())
        first = [task.artifact.frames_sha256 for task in tasks]
        given.clear()
        assert await rerendered(farm, job, 8, 9) == ["s0-1", "s0-2", "s0-3"]
        second = [task.artifact.frames_sha256 for task in tasks]
        assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, False, False]
        assert [task.take for task in tasks[:3]] == [0, 1, 1]
        assert set(given) == {task.segment.start for task in tasks[1:]}
        for before, after in pairwise(tasks):
            frames = read_frames(farm.storage.path(before.artifact.sha256))
            assert np.array_equal(given[after.segment.start], frames[before.segment.handover_index])
        assert len(farm.video(job)) == 23


# Killed.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "start"),
    [pytest.param("procedural-typical", 12, marks=pytest.mark.long), ("procedural-hard", 0)],
)
async def test_a_kill_after_any_event_of_a_rerender_ends_in_the_same_frames(
    run_farm: Any,
    photo: Any,
    job_request: Any,
    kill_after_every_event: Any,
    model: str,
    start: int,
) -> None:
    asked = job_request(photo(), model=model, num_frames=13)
    farm_of = partial(run_farm, "a/0", "b/0")
    assert await kill_after_every_event(farm_of, asked, rerender=(start, start + 1)) >= 16


@pytest.mark.long
async def test_a_kill_after_any_event_of_a_restyled_videos_rerender_ends_in_the_same_frames(
    run_farm: Any, tmp_path: Path, job_request: Any, kill_after_every_event: Any
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (13, 4, 4, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    content = encode_lossless(frames, Fraction(8))
    (tmp_path / "source.mkv").write_bytes(content)
    media = MediaInfo(
        kind="video",
        width=64,
        height=64,
        num_frames=13,
        fps=Fraction(8),
        sha256=hashlib.sha256(content).hexdigest(),
        path=tmp_path / "source.mkv",
    )
    asked = job_request(media, num_frames=13)
    assert await kill_after_every_event(partial(run_farm, "a/0"), asked, rerender=(0, 1)) >= 15


@pytest.mark.slow
async def test_a_kill_after_any_event_of_a_chains_rerender_ends_in_the_same_frames(
    run_farm: Any,
    photo: Any,
    job_request: Any,
    kill_after_every_event: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("farm.scheduling.retry.MAX_TAKES", 1)
    farm_of = partial(run_farm, "a/0", engine=lambda model, worker, weights: Chained(), spec=Chained().spec)
    asked = job_request(photo(), num_frames=13)
    assert await kill_after_every_event(farm_of, asked, rerender=(0, 1)) >= 15


@pytest.mark.slow
async def test_a_kill_after_any_event_of_a_rerender_while_it_runs_ends_in_the_same_frames(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.scheduling.retry.MAX_TAKES", 1)
    begun, hold = threading.Event(), True

    def wait(task: RenderTask, report: Report) -> None:
        while hold and task.frame_indices[0] == 10:
            begun.set()
            report("denoise", 0, 1)

    farm_of = partial(
        run_farm, "a/0", engine=lambda model, worker, weights: Chained(hold=wait), spec=Chained().spec
    )
    async with farm_of(journal=Journal(tmp_path / "whole.sqlite")) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=18))
        await farm.until(begun.is_set)
        assert farm.coordinator.rerender(job_id, 0, 1) == ["s0-0", "s0-1", "s0-2"]
        hold = False
        whole = await farm.ended(job_id)
        assert whole.status == "succeeded", whole.reason
        assert [task.take for task in whole.tasks.values()][:2] == [1, 1]
        assert [e.message for e in farm.events(AttemptFailed)] == ["what it starts from is rendered again"]
        events = list(farm.ledger.journal.events())
    (reopened,) = [seq for seq, _, event in events if isinstance(event, JobReopened)]
    # What a killed process has journaled is a beginning of this.
    for last in range(reopened, len(events)):
        journal = Journal(tmp_path / f"until-{last}.sqlite")
        for _, at, event in events[:last]:
            journal.append(event, at)
        async with farm_of(journal=journal) as farm:
            job = await farm.ended(job_id)
            assert job.published is not None, job.reason
            assert job.published.frames_sha256 == whole.published.frames_sha256, f"after {last} events"


# Refusals.


async def test_what_cannot_be_rendered_again_is_refused_and_changes_nothing(
    run_farm: Any, photo: Any, job_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_farm("a/0") as farm:
        with pytest.raises(NotFound):
            farm.coordinator.rerender("job-000000000000", 0, 1)
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        with pytest.raises(InvalidInput, match="expected 0 <= start < end <= 8"):
            farm.coordinator.rerender(job.id, 8, 9)
        monkeypatch.setattr("farm.running.storage.RESERVE_BYTES", 2**60)
        with pytest.raises(CannotRun, match="free there"):
            farm.coordinator.rerender(job.id, 0, 1)
        assert (job.status, farm.events(JobReopened)) == ("succeeded", [])


async def test_a_cancelled_job_is_continued_by_rendering_a_part_again(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    hold = threading.Event()

    def wait(worker: str, task: RenderTask, report: Report) -> None:
        while task.frame_indices[0] and not hold.is_set():
            report("denoise", 0, 1)

    async with run_farm("a/0", engine=trouble(wait)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(lambda: farm.events(AttemptSucceeded))
        farm.coordinator.cancel(job_id)
        hold.set()
        job = farm.ledger.job(job_id)
        assert await rerendered(farm, job, 0, 1) == ["s0-0"]
        assert [t.take for t in job.tasks.values()] == [1, 0]
        assert len(farm.events(JobCancelled)) == 1
