"""Workers as threads: they come up, carry out orders, go down, and a stitcher joins what they made."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from farm.capabilities.worker import GIB, Worker
from farm.planning.render_task import RenderTask
from farm.running.cluster import (
    Blob,
    Damaged,
    Failed,
    Finished,
    Message,
    Order,
    Progress,
    StitchOrder,
    WorkerDown,
    WorkerUp,
)
from farm.running.joining import StitchFailed
from farm.state.workers import Telemetry
from nodes.work.local_cluster import LocalCluster
from stitching.video_io import encode_lossless, read_frames


def worker(worker_id: str) -> Worker:
    return Worker(id=worker_id, node="a", kind="cpu", device_name="a CPU", vram_bytes=GIB)


def blob_of(path: Path) -> Blob:
    return Blob(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), path=path)


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    made = LocalCluster([worker("a/0"), worker("b/0")])
    yield made
    await made.close()


@pytest.fixture
def order(tmp_path: Path) -> Any:
    image = np.random.default_rng(3).integers(60, 200, (48, 64, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), image)

    def make(worker_id: str, start: int = 0) -> Order:
        return Order(
            attempt_id=f"job/s0-{start}/1",
            worker_id=worker_id,
            task=RenderTask(
                model="procedural",
                frame_indices=tuple(range(start, start + 8)),
                shot_start=0,
                shot_end=40,
                height=48,
                width=64,
                fps=8.0,
                num_inference_steps=1,
                guidance_scale=1.0,
                seed=0,
            ),
            rung="resident",
            need_bytes=0,
            inputs={"image": blob_of(tmp_path / "photo.png")},
        )

    return make


async def heard(cluster: LocalCluster, number: int) -> list[Message]:
    """The next messages but progress and telemetry."""
    messages: list[Message] = []

    async def listen() -> None:
        async for message in cluster.messages():
            if not isinstance(message, Progress | Telemetry):
                messages.append(message)
            if len(messages) == number:
                return

    await asyncio.wait_for(listen(), 30)
    return messages


async def test_workers_announce_themselves_and_answer_orders(cluster: LocalCluster, order: Any) -> None:
    assert await heard(cluster, 2) == [WorkerUp(worker("a/0")), WorkerUp(worker("b/0"))]
    cluster.start(order("a/0"))
    cluster.start(order("b/0", start=8))
    ends = await heard(cluster, 2)
    assert {e.attempt_id for e in ends if isinstance(e, Finished)} == {"job/s0-0/1", "job/s0-8/1"}


async def test_a_worker_that_joins_later_works_too(cluster: LocalCluster, order: Any) -> None:
    cluster.add(worker("c/0"))
    assert (await heard(cluster, 3))[2] == WorkerUp(worker("c/0"))
    cluster.start(order("c/0"))
    assert isinstance((await heard(cluster, 1))[0], Finished)


async def test_a_killed_worker_is_announced_once_and_takes_no_orders(
    cluster: LocalCluster, order: Any
) -> None:
    await heard(cluster, 2)
    cluster.kill("a/0")
    cluster.kill("a/0")
    cluster.start(order("a/0"))
    cluster.start(order("b/0", start=8))
    down, end = await heard(cluster, 2)
    assert down == WorkerDown("a/0", "was killed")
    assert isinstance(end, Finished)
    assert end.attempt_id == "job/s0-8/1"


async def test_a_released_worker_says_so(cluster: LocalCluster) -> None:
    await heard(cluster, 2)
    await cluster.release("b/0")
    assert await heard(cluster, 1) == [WorkerDown("b/0", "was released")]


async def test_a_released_worker_stays_away_until_it_is_enabled(cluster: LocalCluster, order: Any) -> None:
    await heard(cluster, 2)
    cluster.enable("b/0")  # not released: nothing happens
    await cluster.release("b/0")
    cluster.start(order("b/0"))
    cluster.enable("b/0")
    cluster.enable("b/0")
    down, up = await heard(cluster, 2)
    assert (down, up) == (WorkerDown("b/0", "was released"), WorkerUp(worker("b/0")))
    cluster.start(order("b/0", start=8))
    (end,) = await heard(cluster, 1)
    assert isinstance(end, Finished)
    assert end.attempt_id == "job/s0-8/1"


async def sampled(cluster: LocalCluster, number: int) -> list[Telemetry]:
    found: list[Telemetry] = []

    async def listen() -> None:
        async for message in cluster.messages():
            if isinstance(message, Telemetry):
                found.append(message)
            if len(found) == number:
                return

    await asyncio.wait_for(listen(), 30)
    return found


async def test_every_worker_tells_of_its_device_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.work.local_cluster.TELEMETRY_INTERVAL_S", 0.01)
    cluster = LocalCluster([worker("a/0")])
    first, second = await sampled(cluster, 2)
    assert first.worker_id == second.worker_id == "a/0"
    assert first.memory_used_bytes is not None
    assert first.memory_used_bytes > 10e6
    assert second.load is not None
    cluster.add(worker("b/0"))
    # What is the process's is no longer known of one of them.
    later = await sampled(cluster, 8)
    assert {s.worker_id for s in later} == {"a/0", "b/0"}
    assert [(s.load, s.memory_used_bytes) for s in later[-2:]] == [(None, None)] * 2
    await cluster.close()


async def test_an_order_taken_back_while_it_waits_is_not_rendered(cluster: LocalCluster, order: Any) -> None:
    await heard(cluster, 2)
    cluster.start(order("a/0"))
    cluster.start(order("a/0", start=8))
    cluster.cancel("job/s0-8/1")
    ends = {end.attempt_id: end for end in await heard(cluster, 2)}  # in any order: one is handed over
    taken_back = ends.pop("job/s0-8/1")
    assert isinstance(taken_back, Failed)
    assert replace(taken_back, log="") == Failed("job/s0-8/1", "cancelled", "taken back")
    assert [type(end) for end in ends.values()] == [Finished]


async def test_closing_ends_every_worker_and_the_messages() -> None:
    cluster = LocalCluster([worker("a/0")])
    await cluster.close()
    messages = [message async for message in cluster.messages()]
    assert messages == [WorkerUp(worker("a/0")), WorkerDown("a/0", "was closed")]


# Stitching.


def moving(start: int, num_frames: int) -> Any:
    """Frames of one smooth picture that drifts to the left, from frame ``start`` on."""
    noise = np.random.default_rng(1).uniform(40, 220, (48, 160, 3)).astype(np.float32)
    wide = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
    return np.stack([wide[:, i : i + 64] for i in range(start, start + num_frames)])


def stored(tmp_path: Path, start: int, num_frames: int) -> Blob:
    path = tmp_path / f"segment-{start}.mkv"
    path.write_bytes(encode_lossless(moving(start, num_frames), Fraction(8)))
    return blob_of(path)


def stitch_order(tmp_path: Path, num_frames: int) -> StitchOrder:
    folder = tmp_path / "job"
    folder.mkdir(exist_ok=True)
    return StitchOrder(folder=folder, fps=Fraction(8), width=64, height=48, num_frames=num_frames)


async def test_segments_are_joined_into_a_video_that_appears_when_it_is_whole(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    order = stitch_order(tmp_path, 13)
    session = await cluster.open_stitcher(order)
    await session.start(stored(tmp_path, 0, 8), 8)
    report = await session.propose(stored(tmp_path, 5, 8), 8, 3)
    assert report["failed_gates"] == []
    await session.accept()
    assert not (order.folder / "video.mp4").exists()
    assert (order.folder / "so-far.mp4").exists()
    published = await session.finish()
    await session.close()
    assert published.num_frames == 13
    assert published.size_bytes == (order.folder / "video.mp4").stat().st_size
    error = np.abs(read_frames(order.folder / "video.mp4").astype(float) - moving(0, 13))
    assert error.mean() < 4.0
    assert sorted(path.name for path in order.folder.iterdir()) == ["sheet.png", "video.mp4"]


async def test_a_proposal_can_be_replaced_before_it_is_accepted(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    hashes = []
    for proposals in ((5,), (20, 5)):
        session = await cluster.open_stitcher(stitch_order(tmp_path, 13))
        await session.start(stored(tmp_path, 0, 8), 8)
        for start in proposals:
            await session.propose(stored(tmp_path, start, 8), 8, 3)
        await session.accept()
        hashes.append((await session.finish()).frames_sha256)
        await session.close()
    assert hashes[0] == hashes[1]


async def test_a_session_that_is_let_go_leaves_nothing(cluster: LocalCluster, tmp_path: Path) -> None:
    order = stitch_order(tmp_path, 13)
    session = await cluster.open_stitcher(order)
    await session.start(stored(tmp_path, 0, 8), 8)
    await session.close()
    assert list(order.folder.iterdir()) == []


async def test_a_wrong_number_of_frames_is_not_published(cluster: LocalCluster, tmp_path: Path) -> None:
    order = stitch_order(tmp_path, 9)
    session = await cluster.open_stitcher(order)
    await session.start(stored(tmp_path, 0, 8), 8)
    with pytest.raises(StitchFailed, match="joined 8 frames, expected 9"):
        await session.finish()
    await session.close()
    assert list(order.folder.iterdir()) == []


async def test_a_damaged_segment_is_said_and_a_whole_one_taken_instead(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    session = await cluster.open_stitcher(stitch_order(tmp_path, 13))
    first, second = stored(tmp_path, 0, 8), stored(tmp_path, 5, 8)
    (tmp_path / "damaged").write_bytes(b"other bytes")
    with pytest.raises(Damaged, match="another SHA-256"):
        await session.start(first.model_copy(update={"path": tmp_path / "damaged"}), 8)
    await session.start(first, 8)
    with pytest.raises(Damaged, match="cannot be read: No such file"):
        await session.propose(second.model_copy(update={"path": tmp_path / "gone"}), 8, 3)
    await session.propose(second, 8, 3)
    await session.accept()
    assert (await session.finish()).num_frames == 13
    await session.close()


async def test_a_call_that_was_given_up_ends_before_the_session_closes(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    order = stitch_order(tmp_path, 13)
    session = await cluster.open_stitcher(order)
    await session.start(stored(tmp_path, 0, 8), 8)
    await session.propose(stored(tmp_path, 5, 8), 8, 3)
    await session.accept()
    finishing = asyncio.ensure_future(session.finish())
    await asyncio.sleep(0.005)
    finishing.cancel()
    await session.close()
    # Whole when it had begun, nothing when it had not: never a part.
    assert sorted(p.name for p in order.folder.iterdir()) in ([], ["sheet.png", "video.mp4"])


async def test_a_session_that_begins_anew_leaves_watchers_of_the_old_one_their_file(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    order = stitch_order(tmp_path, 13)
    first = await cluster.open_stitcher(order)
    with (order.folder / "so-far.mp4").open("rb") as watched:
        while not os.fstat(watched.fileno()).st_size:  # its header comes from a thread
            await asyncio.sleep(0.005)
        second = await cluster.open_stitcher(order)
        assert watched.read(8)[4:] == b"ftyp"
    await second.close()
    await first.close()


async def test_a_folder_that_is_not_there_is_said(cluster: LocalCluster, tmp_path: Path) -> None:
    order = StitchOrder(folder=tmp_path / "none", fps=Fraction(8), width=64, height=48, num_frames=8)
    with pytest.raises(StitchFailed):
        await cluster.open_stitcher(order)
