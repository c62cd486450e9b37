"""Frames between keyframes move; they do not fade."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching import StitchError
from stitching.interpolation import frames_between

Frames = NDArray[np.uint8]


def error(a: Frames, b: Frames, margin: int = 8) -> float:
    """Mean grey levels by which two frames differ, away from the border that the camera brings in."""
    return float(np.abs(a.astype(float) - b)[margin:-margin, margin:-margin].mean())


def sharpness(frame: Frames) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


@pytest.mark.parametrize("gap", [2, 3, 5])
def test_a_moving_scene_is_found_between_its_keyframes(make_scene: Callable[..., Frames], gap: int) -> None:
    scene = make_scene(2 * gap + 1)
    keyframes = {i: scene[i] for i in (0, gap, 2 * gap)}
    made = frames_between(keyframes, range(2 * gap + 1))
    assert made.shape == scene.shape
    assert made.dtype == np.uint8
    for i in set(range(2 * gap + 1)) - keyframes.keys():
        before, after = scene[i // gap * gap], scene[(i // gap + 1) * gap]
        fraction = i % gap / gap
        faded = np.rint((1 - fraction) * before + fraction * after).astype(np.uint8)
        assert error(made[i], scene[i]) < 0.5 * error(faded, scene[i])
        assert sharpness(made[i]) > max(0.6 * sharpness(scene[i]), 1.1 * sharpness(faded))


def test_a_keyframe_is_itself_at_its_own_moment(make_scene: Callable[..., Frames]) -> None:
    scene = make_scene(3)
    made = frames_between({10: scene[0], 14: scene[1], 18: scene[2]}, [18, 10, 14, 14])
    assert np.array_equal(made, scene[[2, 0, 1, 1]])


def test_where_nothing_moves_every_frame_is_the_same(make_scene: Callable[..., Frames]) -> None:
    still = make_scene(1)[0]
    made = frames_between({0: still, 5: still}, range(6))
    assert np.abs(made.astype(int) - still).max() <= 1


def test_neighbours_make_the_same_frames_where_they_overlap(make_scene: Callable[..., Frames]) -> None:
    scene = make_scene(4)
    left = frames_between({0: scene[0], 5: scene[1], 10: scene[2]}, range(8))
    right = frames_between({5: scene[1], 10: scene[2], 15: scene[3]}, range(5, 13))
    assert np.array_equal(left[5:], right[:3])


@pytest.mark.parametrize(("known", "index"), [((2, 4), 1), ((2, 4), 5), ((), 0), ((3,), 4)])
def test_a_frame_outside_the_keyframes_is_refused(
    make_scene: Callable[..., Frames], known: tuple[int, ...], index: int
) -> None:
    still = make_scene(1)[0]
    with pytest.raises(StitchError, match=f"frame {index} is not between keyframes"):
        frames_between(dict.fromkeys(known, still), [index])
