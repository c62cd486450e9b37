"""Frames that are interpolated: how many are rendered for them, how long the video is, and what is said."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from farm.errors import InvalidInput
from farm.planning import Delivery, Plan
from farm.request import JobRequest

NTSC = Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("fps", "deliver_fps", "num_frames", "rendered"),
    [(8, 24, 96, 33), (8, 24, 97, 33), (8, 24, 98, 34), (8, 30, 120, 33), (8, 24, 1, 1), (8, NTSC, 96, 33)],
)
def test_frames_count_delivered_ones_and_the_fewest_are_rendered_that_reach_the_last(
    make: Any, fps: int, deliver_fps: Fraction, num_frames: int, rendered: int
) -> None:
    made = make.plan(fps=fps, deliver_fps=deliver_fps, num_frames=num_frames)
    assert made.delivery == Delivery(num_frames=num_frames, fps=Fraction(deliver_fps))
    assert (made.num_frames, made.fps) == (rendered, fps)
    assert (made.num_frames - 1) / made.fps >= (num_frames - 1) / Fraction(deliver_fps)
    assert made.final_segments[-1].end == rendered


def test_the_plan_says_what_is_interpolated(make: Any) -> None:
    made = make.plan(fps=8, deliver_fps=24, seconds=4.0)
    assert (
        "33 frames are rendered at 8 a second and interpolated to 96 at 24, but not over cuts" in made.notes
    )


def test_without_it_nothing_is_interpolated(make: Any) -> None:
    made = make.plan(fps=8, num_frames=24)
    assert made.delivery is None
    assert made.delivered == Delivery(num_frames=24, fps=Fraction(8))


@pytest.mark.parametrize("deliver_fps", [8, 6])
def test_a_rate_that_is_no_higher_leaves_frames_as_they_are_and_is_told(make: Any, deliver_fps: int) -> None:
    made = make.plan(fps=8, deliver_fps=deliver_fps, num_frames=24)
    assert (made.delivery, made.num_frames) == (None, 24)
    assert any("nothing is interpolated, and no frame is left out" in note for note in made.notes)


def test_a_video_keeps_its_length_and_its_last_frame_stays(make: Any) -> None:
    video = make.video(16, fps=Fraction(8))
    made = make.plan(inputs=(video,), deliver_fps=24)
    assert (made.num_frames, made.delivery) == (16, Delivery(num_frames=48, fps=Fraction(24)))
    assert made.delivered.duration_s == 2
    assert any("the last one stays to the end" in note for note in made.notes)
    with pytest.raises(
        InvalidInput, match="49 frames are asked for, and the input video has 48 at 24 frames"
    ):
        make.plan(inputs=(video,), deliver_fps=24, num_frames=49)


def test_seconds_and_the_default_length_are_the_delivered_videos(make: Any) -> None:
    assert make.plan(fps=8, deliver_fps=24, seconds=2.5).delivered.duration_s == Fraction(5, 2)
    assert make.plan(fps=8, deliver_fps=24).delivered.duration_s == 4
    assert make.plan(inputs=(make.image(1), make.image(2)), fps=8, deliver_fps=24).delivered.num_frames == 192


def test_a_draft_stands_beside_a_chain_of_as_many_frames(make: Any) -> None:
    spec = make.spec(min_fps=1)
    kept, interpolated = (
        make.plan(spec, fps=8, mode="refine", num_frames=n, deliver_fps=d) for n, d in ((33, None), (96, 24))
    )
    assert kept.beside_chain == interpolated.beside_chain


def test_old_requests_and_plans_are_read_without_it(make: Any) -> None:
    request, made = make.request(), make.plan()
    old = request.model_dump(mode="json")
    del old["deliver_fps"]
    assert JobRequest.model_validate(old) == request
    old = made.model_dump(mode="json")
    del old["delivery"]
    assert Plan.model_validate(old) == made
