"""The judge of camera motions says what a clip shows, and is not fooled by what it does not show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from benchmarks.held_out import JUDGED, Frames, filmed
from benchmarks.motion_judge import decide, judge, measured_motion, see
from models.tiny_wan.recipe.data.camera import Pace

pytestmark = pytest.mark.slow  # measures the flow of photographs

FPS = 8.0


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """(3, 160, 160) uint8: blobs of many sizes."""
    rng = np.random.default_rng(3)
    layers = [cv2.GaussianBlur(rng.normal(size=(160, 160, 3)), (0, 0), s) * s for s in (1.5, 3.0, 6.0)]
    blobs = np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)
    return torch.from_numpy(blobs).permute(2, 0, 1)


def clip(picture: torch.Tensor, motion: str, pace: Pace = "normal", fps: float = FPS) -> Frames:
    return filmed(picture, motion, pace, fps=fps, num_frames=5, side=96, centre=(79.5, 79.5), scale=0.9)[0]


@pytest.mark.parametrize("motion", [*JUDGED, "counterclockwise"])
def test_a_clip_follows_the_motion_it_shows_and_no_other(picture: torch.Tensor, motion: str) -> None:
    seen = see(clip(picture, motion))
    followed = [
        asked for asked in (*JUDGED, "counterclockwise") if decide(seen, FPS, asked, "normal").followed
    ]
    assert followed == [motion]


@pytest.mark.parametrize("motion", ["left", "out", "clockwise"])
def test_a_quick_clip_is_no_slow_one(picture: torch.Tensor, motion: str) -> None:
    frames = clip(picture, motion, "quick")
    assert judge(frames, FPS, motion, "quick").followed
    verdict = judge(frames, FPS, motion, "slow")
    assert not verdict.followed
    assert verdict.speed == pytest.approx(5.0, rel=0.1)
    assert "not the asked speed" in verdict.reason


def test_the_picture_moves_against_the_camera(picture: torch.Tensor) -> None:
    assert measured_motion(clip(picture, "right")).dx == pytest.approx(-2.0, abs=0.05)
    assert measured_motion(clip(picture, "down")).dy == pytest.approx(-2.0, abs=0.05)
    assert measured_motion(clip(picture, "in")).divergence == pytest.approx(0.05, abs=0.003)
    assert measured_motion(clip(picture, "clockwise")).curl == pytest.approx(-0.0625, abs=0.003)


def test_less_than_half_a_pixel_a_frame_is_measured(picture: torch.Tensor) -> None:
    flow = measured_motion(clip(picture, "left", "slow", fps=16))
    assert flow.dx == pytest.approx(0.4, abs=0.02)
    assert abs(flow.dy) < 0.02


def test_something_small_that_moves_is_no_motion_of_the_camera(picture: torch.Tensor) -> None:
    frames = clip(picture, "still").copy()
    frames[:, 40:64, 40:64] = clip(picture, "left")[:, 40:64, 40:64]
    assert not judge(frames, FPS, "left", "normal").followed


def test_a_fade_to_another_picture_is_not_still(picture: torch.Tensor) -> None:
    here, there = clip(picture, "still"), clip(picture.flip(1), "still")
    share = np.linspace(0, 1, len(here))[:, None, None, None]
    fade = (here * (1 - share) + there * share).astype(np.uint8)
    seen = see(fade)
    assert not any(decide(seen, FPS, motion, "normal").followed for motion in JUDGED)


def test_a_still_clip_may_flicker_but_not_wander(picture: torch.Tensor) -> None:
    still = clip(picture, "still")
    flicker = np.clip(still * np.array([1, 0.95, 1.05, 1, 0.97])[:, None, None, None], 0, 255).astype(
        np.uint8
    )
    assert judge(flicker, FPS, "still", "normal").followed
    there_and_back = clip(picture, "left")[[0, 1, 2, 1, 0]]
    assert not judge(there_and_back, FPS, "still", "normal").followed


def test_nothing_can_be_said_of_a_blank_picture() -> None:
    blank = np.full((5, 96, 96, 3), 128, np.uint8)
    for motion in JUDGED:
        verdict = judge(blank, FPS, motion, "normal")
        assert not verdict.followed
        assert verdict.reason == "nothing in it can be followed"
