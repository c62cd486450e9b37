"""A video at a higher rate: exact in number, its own frames untouched, nothing made over a cut."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from numpy.typing import NDArray

from stitching import StitchError
from stitching.interpolation import Interpolator

Frames = NDArray[np.uint8]


def delivered(
    frames: Frames,
    fps: str,
    deliver_fps: str,
    num_frames: int,
    cuts: tuple[int, ...] = (),
    *,
    at_once: int = 1,
) -> Frames:
    given: list[Frames] = []
    stream = Interpolator(
        given.append, fps=Fraction(fps), deliver_fps=Fraction(deliver_fps), num_frames=num_frames
    )
    for cut in cuts:
        stream.cut(cut)
    for start in range(0, len(frames), at_once):
        stream.write(frames[start : start + at_once])
    stream.finish()
    return np.concatenate(given)


@pytest.mark.parametrize(
    ("fps", "deliver_fps"),
    [("8", "24"), ("8", "30"), ("16", "24"), ("23.5", "24"), ("8", "8.5"), ("3", "7")],
)
def test_every_rational_rate_gives_the_exact_number_and_the_videos_own_frames_bit_for_bit(
    make_scene: Callable[..., Frames], fps: str, deliver_fps: str
) -> None:
    scene = make_scene(7)[:, :48, :64]
    step = Fraction(fps) / Fraction(deliver_fps)
    num_frames = int(6 / step) + 1
    made = delivered(scene, fps, deliver_fps, num_frames)
    assert made.shape == (num_frames, *scene.shape[1:])
    own = {k: int(k * step) for k in range(num_frames) if (k * step).denominator == 1}
    assert own[0] == 0
    for k, number in own.items():
        assert np.array_equal(made[k], scene[number])
    between = {k for k in range(num_frames) if 0.01 < k * step % 1 < 0.99}
    assert between
    assert all(not any(np.array_equal(made[k], frame) for frame in scene) for k in between)


def test_a_moving_scene_is_nearer_to_the_truth_than_its_neighbours_or_their_mix(
    make_scene: Callable[..., Frames],
) -> None:
    scene = make_scene(13)
    made = delivered(scene[::3], "8", "24", 13).astype(float)
    for k in set(range(13)) - {0, 3, 6, 9, 12}:
        before, after, share = scene[k // 3 * 3].astype(float), scene[k // 3 * 3 + 3], k % 3 / 3
        error = np.abs(made[k] - scene[k])[8:-8, 8:-8].mean()
        mixed = np.abs((1 - share) * before + share * after - scene[k])[8:-8, 8:-8].mean()
        assert error < 0.5 * mixed


def test_motion_that_grows_faster_is_followed_on_a_curve(make_scene: Callable[..., Frames]) -> None:
    wall = make_scene(1, width=400)[0]
    places = [round(0.5 * k * k) for k in range(13)]
    scene = np.stack([wall[:, 100 + x : 260 + x] for x in places])
    made = delivered(scene[::2], "8", "16", 13).astype(float)
    for k in (5, 7, 9):
        straight = delivered(scene[k - 1 : k + 2 : 2], "8", "16", 3)[1].astype(float)
        errors = [np.abs(x - scene[k])[16:-16, 16:-16].mean() for x in (made[k], straight)]
        assert errors[0] < 0.75 * errors[1]


def test_nothing_is_made_over_a_cut_that_is_told_and_over_one_that_is_seen(
    make_scene: Callable[..., Frames],
) -> None:
    scene = make_scene(6)
    other = 255 - scene[::-1, ::-1, ::-1]
    seen = np.concatenate([scene[:3], other[:3]])
    for video, cuts in ((seen, ()), (scene, (3,))):
        made = delivered(video, "8", "24", 16, cuts)
        assert all(np.array_equal(made[k], video[2]) for k in (6, 7, 8))
        assert np.array_equal(made[9], video[3])
        assert not np.array_equal(made[5], video[1])
        assert not np.array_equal(made[10], video[3])


def test_frames_of_another_shot_bend_no_path(make_scene: Callable[..., Frames]) -> None:
    scene, other = make_scene(4), make_scene(8)[::-1]
    alone = delivered(scene, "8", "24", 10)
    followed = delivered(np.concatenate([scene, other]), "8", "24", 10, (4,))
    assert np.array_equal(alone, followed)


def test_behind_the_last_frame_it_stays(make_scene: Callable[..., Frames]) -> None:
    scene = make_scene(3)
    made = delivered(scene, "8", "24", 9)
    assert np.array_equal(made[6:], scene[[2, 2, 2]])


def test_frames_come_the_same_however_they_are_written(make_scene: Callable[..., Frames]) -> None:
    scene = make_scene(6)
    assert np.array_equal(delivered(scene, "8", "24", 16), delivered(scene, "8", "24", 16, at_once=6))


def test_a_single_frame_is_held(make_scene: Callable[..., Frames]) -> None:
    assert np.array_equal(delivered(make_scene(1), "8", "24", 3), make_scene(1)[[0, 0, 0]])


def test_frames_come_out_while_others_go_in_and_few_are_held(make_scene: Callable[..., Frames]) -> None:
    still = make_scene(1)[:, :32, :32]
    num_given, most_held = 0, 0

    def count(frames: Frames) -> None:
        nonlocal num_given
        num_given += len(frames)

    stream = Interpolator(count, fps=Fraction(8), deliver_fps=Fraction(24), num_frames=598)
    for number in range(200):
        stream.write(still)
        most_held = max(most_held, number + 1 - ceil(num_given / 3))
    stream.finish()
    assert num_given == 598
    assert most_held < 80


@pytest.mark.parametrize(("fps", "deliver_fps", "num_frames"), [("8", "8", 3), ("8", "6", 3), ("8", "24", 0)])
def test_a_rate_that_is_no_higher_is_refused(fps: str, deliver_fps: str, num_frames: int) -> None:
    with pytest.raises(StitchError, match="above the video's own"):
        Interpolator(
            lambda _: None, fps=Fraction(fps), deliver_fps=Fraction(deliver_fps), num_frames=num_frames
        )


def test_nothing_written_is_told() -> None:
    stream = Interpolator(lambda _: None, fps=Fraction(8), deliver_fps=Fraction(24), num_frames=3)
    with pytest.raises(StitchError, match="no frame was written"):
        stream.finish()
