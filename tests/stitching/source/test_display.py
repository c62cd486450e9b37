"""What a player does with a stored frame, as values."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from stitching.source.cube import standard
from stitching.source.display import Stored, filters, shown

ONE = 1 << 16
SD = Stored(720, 576, "yuv420p", color_range=1)
HD = Stored(1920, 1080, "yuv420p", color_range=1)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (SD, "in_color_matrix=smpte170m:in_range=limited"),
        (HD, "in_color_matrix=bt709:in_range=limited"),
        (replace(SD, width=1280), "in_color_matrix=bt709:in_range=limited"),
        (replace(HD, colorspace=6), "in_color_matrix=smpte170m:in_range=limited"),
        (replace(SD, colorspace=1), "in_color_matrix=bt709:in_range=limited"),
        (replace(SD, color_range=2), "in_color_matrix=smpte170m:in_range=full"),
        (replace(SD, pix_fmt="yuvj420p", color_range=0), "in_color_matrix=smpte170m:in_range=full"),
        (replace(SD, transfer=16), "in_color_matrix=bt2020:in_range=limited"),
        (replace(SD, primaries=9), "in_color_matrix=bt2020:in_range=limited"),
        (replace(SD, pix_fmt="bgr0", is_rgb=True), "in_range=full"),
    ],
)
def test_untold_colours_are_those_that_players_take(frame: Stored, said: str) -> None:
    assert shown(frame).scale_in == said


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        ("1", (720, 576)),
        ("16/15", (768, 576)),
        ("64/45", (1024, 576)),
        ("8/9", (720, 648)),
        ("0", (720, 576)),
        ("1000", (720, 576)),
    ],
)
def test_pixels_become_square_and_none_is_lost(aspect: str, size: tuple[int, int]) -> None:
    way = shown(replace(SD, aspect=Fraction(aspect)))
    assert (way.width, way.height) == size
    assert bool(way.changes) == (size != (720, 576))


@pytest.mark.parametrize(
    ("abcd", "turns", "says"),
    [
        ((1, 0, 0, 1), [], ""),
        ((0, 1, -1, 0), ["transpose", "hflip"], "turned by 90 degrees"),
        ((-1, 0, 0, -1), ["hflip", "vflip"], "turned by 180 degrees"),
        ((0, -1, 1, 0), ["transpose", "vflip"], "turned by 270 degrees"),
        ((-1, 0, 0, 1), ["hflip"], "mirrored"),
        ((1, 0, 0, -1), ["vflip"], "mirrored"),
        ((0, 1, 1, 0), ["transpose"], "turned and mirrored"),
        ((0, -1, -1, 0), ["transpose", "hflip", "vflip"], "turned and mirrored"),
    ],
)
def test_all_eight_ways_to_hold_a_camera(abcd: tuple[int, ...], turns: list[str], says: str) -> None:
    a, b, c, d = (ONE * n for n in abcd)
    way = shown(replace(SD, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30)))
    assert [name for name, _ in way.turns] == turns
    assert says in " ".join(way.changes)


@pytest.mark.parametrize(
    ("transfer", "primaries", "cube", "says"),
    [
        (1, 1, None, ""),
        (2, 2, None, ""),
        (16, 9, ("pq", "bt2020"), "HDR10 (PQ): it is tone-mapped"),
        (18, 2, ("hlg", "bt2020"), "HDR (HLG): it is tone-mapped"),
        (16, 12, ("pq", "p3"), "HDR10"),
        (14, 9, ("sdr", "bt2020"), "BT.2020: its colours are brought"),
        (1, 12, ("sdr", "p3"), "Display P3"),
        (6, 6, None, ""),
    ],
)
def test_wide_colours_and_high_range_are_brought_to_standard_displays(
    transfer: int, primaries: int, cube: tuple[str, str] | None, says: str
) -> None:
    way = shown(replace(HD, transfer=transfer, primaries=primaries))
    assert way.cube == cube
    assert says in " ".join(way.changes)
    assert ("lut3d" in dict(filters(way, "x.cube"))) == (cube is not None)


def pq(nits: float) -> float:
    """SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


@pytest.mark.parametrize(
    ("nits", "low", "high"), [(0, 0, 1), (20, 85, 92), (44, 126, 131), (203, 215, 240), (1000, 254, 255)]
)
def test_greys_of_pq_stay_as_bright_as_they_are_meant_and_highlights_are_rolled_off(
    nits: float, low: int, high: int
) -> None:
    grey = standard(np.full((1, 3), pq(nits)), "pq", "bt2020")[0] * 255
    assert low <= grey[0] <= high
    assert np.ptp(grey) < 1, "grey stays grey"


def test_diffuse_white_of_hlg_is_nearly_white() -> None:
    assert 215 <= standard(np.full((1, 3), 0.75), "hlg", "bt2020")[0, 1] * 255 <= 240


@pytest.mark.parametrize("primaries", ["bt2020", "p3", "bt709"])
def test_greys_of_standard_range_are_left_alone(primaries: str) -> None:
    greys = np.linspace(0, 1, 9)[:, None].repeat(3, axis=1)
    assert np.allclose(standard(greys, "sdr", primaries), greys, atol=2e-3)  # type: ignore[arg-type]
