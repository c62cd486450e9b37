"""A photo's windows between keyframes of a draft: none starts from the photo again, and little drifts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.held_out import Frames
from benchmarks.motion_judge import judge, measured_motion
from farm.capabilities.engine_spec import Mode
from farm.capabilities.worker import GIB, Worker
from farm.planning.plan import Plan
from farm.request.job import JobRequest
from farm.running.cluster import VIDEO_NAME
from nodes.hosting.host import coordinating, take_in
from nodes.work.local_cluster import LocalCluster
from stitching.video_io import read_frames

pytestmark = pytest.mark.long  # twice a video of the real model

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
NUM_FRAMES, FPS, SIDE_PX = 48, 8, 128


@dataclass(frozen=True)
class Made:
    """A finished job: the joined video, and the segments it was joined from."""

    plan: Plan
    video: Frames
    segments: dict[str, Frames]


async def made(mode: Mode, folder: Path) -> Made:
    """The camera slowly pans right over a photo, rendered by one worker of this process."""
    worker = Worker(id="a/cpu0", node="a", kind="cpu", device_name="CPU", vram_bytes=2 * GIB)
    async with coordinating(folder, LocalCluster([worker])) as coordinator:
        request = JobRequest(
            inputs=take_in([PHOTO], folder),
            prompts=("the camera slowly pans right",),
            model="tiny_wan",
            mode=mode,
            num_frames=NUM_FRAMES,
            fps=Fraction(FPS),
            width=SIDE_PX,
            height=SIDE_PX,
        )
        job_id = coordinator.submit(request)
        async for _ in coordinator.ledger.follow(job_id):
            pass
        job = coordinator.ledger.job(job_id)
        assert job.status == "succeeded", job.reason
        storage = coordinator.storage
        segments = {
            task.id: read_frames(storage.path(task.artifact.sha256))
            for task in job.tasks.values()
            if task.artifact is not None
        }
        return Made(job.plan, read_frames(storage.job_folder(job_id) / VIDEO_NAME), segments)


@pytest.fixture(scope="module")
def infilled(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return asyncio.run(made("infill", tmp_path_factory.mktemp("infill")))


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return asyncio.run(made("chain", tmp_path_factory.mktemp("chain")))


def difference(a: Frames, b: Frames) -> float:
    """Mean absolute difference of two frames (H, W, 3), in levels of 255."""
    return float(np.abs(a.astype(np.float64) - b).mean())


def test_no_window_starts_from_the_photo_again(infilled: Made) -> None:
    first, *later = infilled.plan.final_segments
    assert len(later) >= 3
    photo = infilled.segments[first.id][0]
    for before, segment in pairwise((first, *later)):
        start = infilled.segments[segment.id][0]
        previous = infilled.segments[before.id][segment.start - 1 - before.start]
        assert difference(start, previous) < difference(start, photo), segment.id


def test_across_the_starts_of_windows_the_picture_goes_on_moving_as_asked(infilled: Made) -> None:
    starts = [segment.start for segment in infilled.plan.final_segments[1:]]
    across = [measured_motion(infilled.video[start - 1 : start + 1]).dx for start in starts]
    within = measured_motion(infilled.video).dx
    assert within < 0, "the camera pans right: the picture moves left"
    assert np.mean(across) < 0.5 * within


def test_the_joined_video_follows_the_prompt(infilled: Made) -> None:
    verdict = judge(infilled.video, FPS, "right", "slow")
    assert verdict.followed, verdict.reason


def drift(video: Frames) -> tuple[float, float]:
    """Change of lightness and of colour (CIE Lab) from the first frame to the last four.

    Where both show the same: the picture has moved left by the measured motion.
    """
    moved = round(-measured_motion(video).dx * (len(video) - 1))
    width = video.shape[2]
    first = lab(video[0][:, moved:])
    last = np.mean([lab(frame[:, : width - moved]) for frame in video[-4:]], axis=0)
    lightness, *colour = last - first
    return abs(float(lightness)), float(np.hypot(*colour))


def lab(frame: Frames) -> NDArray[np.float64]:
    """(3,): mean CIE Lab of a frame."""
    return np.array(cv2.mean(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))[:3])


def test_lightness_and_colour_drift_within_bounds_and_not_far_from_a_chains(
    infilled: Made, chained: Made
) -> None:
    """Bounds in Lab units are wide: what comes into view is a blur of about the right colour."""
    lightness, colour = drift(infilled.video)
    of_chain = drift(chained.video)
    assert lightness < 3.0
    assert colour < 7.0
    assert lightness < of_chain[0] + 2.5
    assert colour < of_chain[1] + 5.5
