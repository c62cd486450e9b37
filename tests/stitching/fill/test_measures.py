"""Photographs filmed by a known camera pass; what models do instead of motion is told by its name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from stitching.clip import Frames, Image
from stitching.fill.measures import GATES, MIN_FRAMES, FillReport, fill_report

pytestmark = pytest.mark.slow  # measures the flow of photographs

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
#: Of a whole clip: pixels to the right and down, logarithm of the magnification, radians.
MOTIONS = {
    "right": (40.0, 0.0, 0.0, 0.0),
    "up, slowly": (0.0, -20.0, 0.0, 0.0),
    "in": (0.0, 0.0, 0.35, 0.0),
    "out, quickly": (0.0, 0.0, -0.6, 0.0),
    "roll": (0.0, 0.0, 0.0, 0.4),
    "all": (20.0, 12.0, 0.15, 0.15),
}
SIDE_PX = 128

Path = Callable[[float], float]


def photographed(name: str) -> Image:
    picture = getattr(data, name)()
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), min(picture.shape[:2]) / SIDE_PX / 4), np.uint8)


@pytest.fixture(scope="module", params=PHOTOGRAPHS)
def photograph(request: pytest.FixtureRequest) -> Image:
    return photographed(request.param)


def evenly(share: float) -> float:
    return share


def eased(share: float) -> float:
    return share * share * (3 - 2 * share)


def braked(share: float) -> float:
    return 1 - (1 - share) ** 2


def film(photograph: Image, motion: str, frames: int = 17, path: Path = evenly) -> Frames:
    """The camera's clip: half of the motion before the middle of the picture, half behind it."""
    right, down, zoom, roll = MOTIONS[motion]
    height, width = photograph.shape[:2]
    px = 0.55 * min(height, width) / SIDE_PX
    made = []
    for number in range(frames):
        share = path(number / (frames - 1)) - 0.5
        scale = px * np.exp(-zoom * share)
        turn = scale * np.array(
            [[np.cos(roll * share), -np.sin(roll * share)], [np.sin(roll * share), np.cos(roll * share)]]
        )
        middle = np.array([width / 2 + right * share * px, height / 2 + down * share * px])
        corner = middle - turn @ np.full(2, (SIDE_PX - 1) / 2)
        matrix = np.column_stack([turn, corner])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        made.append(cv2.warpAffine(photograph, matrix, (SIDE_PX, SIDE_PX), flags=flags))
    return np.stack(made).astype(np.uint8)


def decoded(clip: NDArray[np.floating] | Frames, seed: int = 0) -> Frames:
    """As a decoder gives it: not the same grain twice."""
    noise = np.random.default_rng(seed).normal(0, 1.5, clip.shape)
    return np.clip(np.rint(clip + noise), 0, 255).astype(np.uint8)


def test_no_true_clip_is_blamed(photograph: Image) -> None:
    blamed = [
        (motion, frames, path.__name__)
        for motion, (frames, path) in product(MOTIONS, [(9, braked), (17, eased)])
        if _failed(decoded(film(photograph, motion, frames, path)))
    ]
    assert blamed == []


@pytest.mark.long
def test_hardly_any_true_clip_of_any_length_and_size_is_blamed(photograph: Image) -> None:
    asked = list(product(MOTIONS, (9, 17, 33, 81), (evenly, eased, braked), (0.5, 1.5)))
    clips = (
        film(photograph, motion, n, lambda t, p=path, k=part: k * p(t)) for motion, n, path, part in asked
    )
    blamed = sum(bool(_failed(decoded(clip))) for clip in clips)
    assert blamed / len(asked) < 0.02


def _failed(clip: Frames) -> set[str]:
    return set(fill_report(clip).failed_gates)


@pytest.mark.parametrize(
    ("name", "motion", "frames"),
    [
        ("astronaut", "right", 9),
        ("astronaut", "all", 17),
        ("chelsea", "up, slowly", 17),
        ("chelsea", "in", 25),
        ("astronaut", "out, quickly", 9),
        ("coffee", "roll", 17),
        ("rocket", "right", 25),
        ("immunohistochemistry", "all", 9),
    ],
)
def test_each_trap_is_told_by_its_name(name: str, motion: str, frames: int) -> None:
    photograph = photographed(name)
    clip = film(photograph, motion, frames)
    share = np.linspace(0, 1, frames)[:, None, None, None]
    assert "fade" in _failed(decoded((1 - share) * clip[0] + share * clip[-1]))
    early = film(photograph, motion, frames, lambda share: min(share / 0.6, 1.0))
    assert _failed(decoded(early)) == {"keyframe_early"}
    jump = np.concatenate([np.repeat(clip[:1], frames - 1, axis=0), clip[-1:]])
    assert "static_fill" in _failed(decoded(jump))
    creep = film(photograph, motion, frames, lambda share: 1.0 if share == 1 else share / 10)
    assert "static_fill" in _failed(decoded(creep))
    shifted = clip.astype(np.float32)
    shifted[1:-1] = 0.96 * shifted[1:-1] + (9.0, 4.0, 0.0)
    assert _failed(decoded(shifted)) == {"colour_at_ends"}


def test_a_fade_to_another_picture_is_told(photograph: Image) -> None:
    first, other = film(photograph, "right")[0], film(data.cat(), "in")[-1]
    share = np.linspace(0, 1, 17)[:, None, None, None]
    assert "fade" in _failed(decoded((1 - share) * first + share * other))


def test_a_middle_that_shows_nothing_of_either_end_is_told() -> None:
    first, other = film(photographed("rocket"), "right")[0], film(photographed("chelsea"), "right")[0]
    clip = [first]
    for share in np.linspace(0, 1, 17)[1:-1]:
        mush = cv2.GaussianBlur((1 - share) * first + share * other, (0, 0), 5.0)
        clip.append(np.rint(mush).astype(np.uint8))
    assert "fade" in _failed(decoded(np.stack([*clip, other])))


def test_what_holds_still_because_its_ends_are_the_same_passes(photograph: Image) -> None:
    assert _failed(decoded(np.repeat(film(photograph, "in")[:1], 17, axis=0))) == set()


def test_a_clip_too_short_to_tell_passes() -> None:
    clip = np.zeros((MIN_FRAMES - 1, 16, 16, 3), np.uint8)
    assert fill_report(clip) == FillReport(0.0, 0.0, 0.0, 0.0, ())


@pytest.mark.parametrize("shape", [(8, 16, 16, 3), (9, 17, 300, 3), (8, 1, 1, 3)])
def test_any_size_can_be_measured(shape: tuple[int, ...]) -> None:
    report = fill_report(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8))
    assert set(report.failed_gates) <= set(GATES)
    assert np.isfinite([report.fade, report.hold_fraction, report.still_fraction, report.end_step]).all()
