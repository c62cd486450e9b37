"""The size that is chosen for an input's shape, and what becomes of the input in frames of another."""

from __future__ import annotations

from math import log
from pathlib import Path

import pytest

from farm.capabilities import EngineSpec
from farm.planning.framing import framing, framing_notes, size_for
from farm.request import Fit, MediaInfo
from nodes.engines.instant import engine as instant

SPEC = instant.spec()


def spec(native: int, multiple: int) -> EngineSpec:
    return SPEC.model_copy(
        update={"native_width": native, "native_height": native, "side_multiple": multiple}
    )


def media(width: int, height: int, kind: str = "image") -> MediaInfo:
    return MediaInfo(kind=kind, width=width, height=height, num_frames=1, sha256="", path=Path())


@pytest.mark.parametrize(
    ("native", "multiple", "photo", "size"),
    [
        (128, 8, (4032, 3024), (128, 96)),
        (128, 8, (3024, 4032), (96, 128)),
        (128, 8, (6000, 4000), (144, 96)),
        (128, 8, (1920, 1080), (144, 80)),
        (128, 8, (1000, 1000), (128, 128)),
        (512, 64, (6000, 4000), (576, 384)),
        (512, 64, (4000, 4000), (512, 512)),
        (512, 2, (1920, 1080), (682, 384)),
        (512, 64, (2391, 1000), (768, 320)),
        (128, 7, (1000, 1000), (126, 126)),
    ],
)
def test_a_photo_gets_the_size_that_is_nearest_to_its_shape(
    native: int, multiple: int, photo: tuple[int, int], size: tuple[int, int]
) -> None:
    assert size_for(spec(native, multiple), media(*photo)) == size


@pytest.mark.parametrize(
    "photo", [(4032, 3024), (1600, 900), (5712, 4284), (700, 999), (3000, 1000), (987, 610)]
)
@pytest.mark.parametrize(("native", "multiple"), [(128, 8), (512, 64), (704, 16), (512, 2)])
def test_no_side_of_a_step_more_or_less_is_nearer_to_the_shape(
    photo: tuple[int, int], native: int, multiple: int
) -> None:
    width, height = size_for(spec(native, multiple), media(*photo))
    error = abs(log(width / height * photo[1] / photo[0]))
    assert 0.69 < width * height / native**2 < 1.11
    for wide, high in ((width + multiple, height), (width - multiple, height), (width, height + multiple)):
        if 0.7 <= wide * high / native**2 <= 1.1:
            assert error <= abs(log(wide / high * photo[1] / photo[0])) + 0.006


def test_a_small_video_is_not_enlarged_and_a_photo_is() -> None:
    assert size_for(spec(512, 8), media(160, 96, "video")) == (160, 96)
    assert size_for(spec(512, 8), media(322, 180, "video")) == (320, 176)
    assert size_for(spec(512, 8), media(160, 96)) == (680, 408)


def test_a_shape_beyond_all_sizes_gets_the_nearest_there_is() -> None:
    assert size_for(spec(128, 64), media(9000, 100)) == (1216, 64)


BESIDE, ABOVE = "left and right", "above and below"
WHOLE = (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("source", "fit", "seen", "place", "said"),
    [
        ((300, 200), "crop", WHOLE, WHOLE, ""),
        ((300, 200), "pad", WHOLE, WHOLE, ""),
        ((300, 200), "stretch", WHOLE, WHOLE, ""),
        ((400, 200), "crop", (0.125, 0, 0.75, 1), WHOLE, f"loses 25%, half of it each {BESIDE}"),
        ((300, 400), "crop", (0, 0.25, 1, 0.5), WHOLE, f"loses 50%, half of it each {ABOVE}"),
        (
            (400, 200),
            "pad",
            (0, 0, 1, 1),
            (0, 0.125, 1, 0.75),
            "has black bars above and below, 25% of the frame",
        ),
        (
            (300, 400),
            "pad",
            (0, 0, 1, 1),
            (0.25, 0, 0.5, 1),
            "has black bars left and right, 50% of the frame",
        ),
        ((400, 200), "stretch", WHOLE, WHOLE, "is stretched 33% higher than it is"),
        ((200, 200), "stretch", WHOLE, WHOLE, "is stretched 50% wider than it is"),
        (
            (306, 200),
            "crop",
            (0.0098, 0, 0.9804, 1),
            (0, 0, 1, 1),
            "loses 2.0%, half of it each left and right",
        ),
    ],
)
def test_what_is_cut_padded_or_stretched(
    source: tuple[int, int], fit: Fit, seen: tuple[float, ...], place: tuple[float, ...], said: str
) -> None:
    found = framing(*source, 600, 400, fit)
    assert found.seen == pytest.approx(seen, abs=1e-4)
    assert found.place == pytest.approx(place, abs=1e-4)
    assert found.said == said


def test_inputs_that_are_treated_alike_are_told_together() -> None:
    wide, same, square = (framing(w, 200, 300, 200, "crop") for w in (400, 300, 200))
    assert framing_notes([wide], "crop") == (
        "the input loses 25%, half of it each left and right (fit: crop)",
    )
    assert framing_notes([wide, same, wide, square], "crop") == (
        "inputs 1, 3: each loses 25%, half of it each left and right (fit: crop)",
        "input 4 loses 33%, half of it each above and below (fit: crop)",
    )
    assert framing_notes([same], "crop") == ()
