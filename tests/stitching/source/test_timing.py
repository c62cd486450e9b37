"""Time stamps become a rate, and moments become frames."""

from __future__ import annotations

from fractions import Fraction

import pytest

from stitching.source.timing import Timing, limits, shown_at, timing

MS = Fraction(1, 1000)
NTSC = Fraction(30000, 1001)


def rounded(rate: Fraction, count: int, *, jitter: int = 0) -> list[int]:
    """Stamps in milliseconds of so many frames, every second one late."""
    return [round(1000 * i / rate) + jitter * (i % 2) for i in range(count)]


@pytest.mark.parametrize(
    ("stamps", "claimed", "rate"),
    [
        (rounded(Fraction(30), 90), [Fraction(30)], Fraction(30)),
        (rounded(NTSC, 9000), [Fraction(30)], NTSC),
        (rounded(NTSC, 9000), [Fraction(2997, 100)], NTSC),
        (rounded(Fraction(25), 40), [Fraction(1000), None], Fraction(25)),
        (rounded(Fraction(25), 40, jitter=15), [], Fraction(25)),
        ([2 * i + (i % 2) for i in range(40)], [], Fraction(500)),
        ([700], [Fraction(24)], Fraction(24)),
        ([700], [], Fraction(25)),
    ],
)
def test_a_constant_rate_is_found_whatever_the_header_says(
    stamps: list[int], claimed: list[Fraction | None], rate: Fraction
) -> None:
    if rate > 240:
        assert not timing(stamps, MS, claimed, None).is_constant
        return
    assert timing(stamps, MS, claimed, None) == Timing(rate, len(stamps), True)


@pytest.mark.parametrize(
    ("stamps", "last", "expected"),
    [
        # A still of two seconds between two runs of 30 frames a second.
        (
            [33 * i for i in range(12)] + [2400 + 33 * i for i in range(12)],
            None,
            Timing(Fraction(30), 84, False, repeated=60),
        ),
        # Half of it at 60 frames a second: no frame of that half is lost.
        (
            [1000 * i // 60 for i in range(60)] + [1000 + 1000 * i // 30 for i in range(30)],
            33,
            Timing(Fraction(60), 120, False, repeated=30),
        ),
        # The last frame stays for three seconds.
        ([0, 40, 80, 120, 170, 200, 1000], 3000, Timing(Fraction(25), 100, False, repeated=93)),
    ],
)
def test_a_variable_rate_keeps_its_length(stamps: list[int], last: int | None, expected: Timing) -> None:
    assert timing(stamps, MS, [Fraction(8)], last) == expected


def test_frames_closer_than_any_rate_are_left_out_and_counted() -> None:
    found = timing([*range(0, 4000, 1), 9000], MS, [], None)
    assert (found.fps, found.is_constant) == (Fraction(240), False)
    assert found.dropped == 4001 - len({*range(found.num_frames)}) + found.repeated


@pytest.mark.parametrize(
    ("source", "wanted", "indices"),
    [
        ("30", "30", [0, 1, 2, 3, 4, 5]),
        ("30", "15", [0, 2, 4, 6, 8, 10]),
        ("30", "60", [0, 0, 1, 1, 2, 2]),
        ("24", "8", [0, 3, 6, 9, 12, 15]),
        ("25", "30", [0, 1, 2, 2, 3, 4]),
        ("30000/1001", "30000/1001", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_moment_shows_the_frame_that_is_on_the_screen(source: str, wanted: str, indices: list[int]) -> None:
    rate, fps = Fraction(source), Fraction(wanted)
    stamps = [700 + stamp for stamp in rounded(rate, 40)]
    before = limits((k / fps for k in range(6)), max(rate, fps), MS, 700)
    assert shown_at(stamps, before) == indices


def test_what_is_before_the_first_frame_shows_it_and_what_is_after_the_last_shows_that() -> None:
    assert shown_at([10, 20], [5, 10, 15, 25, 99]) == [0, 0, 0, 1, 1]


def test_frames_that_share_a_stamp_leave_the_length_as_it_is() -> None:
    # A still of two seconds; then one stamp twice: the later frame is shown.
    stamps = [33 * i for i in range(12)] + [2400 + 33 * i for i in range(12)]
    stamps[5] = stamps[4]
    assert timing(stamps, MS, [Fraction(30)], None) == Timing(Fraction(30), 84, False, 61, 1)
