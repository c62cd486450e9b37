"""From the time stamps of a video's frames to a constant rate, and back from moments to frames. Pure.

Stamps and ticks are whole numbers of a stream's time base. A frame is shown from its stamp to the next one's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

#: Rates that cameras and editors use; a measured one is taken for the nearest within so much of it.
_USUAL = (
    *(Fraction(rate) for rate in (8, 10, 12, 15, 24, 25, 30, 48, 50, 60, 72, 90, 100, 120, 240)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60, 120)),
    Fraction(25, 2),
)
_NEAR_USUAL = Fraction(1, 200)
#: Of a whole video's; the first and the last stamp may be off.
_NEAR_MEASURED = Fraction(1, 50)
_NEAR_TYPICAL = Fraction(1, 25)
MAX_RATE = Fraction(240)
MIN_RATE = Fraction(1, 10)
#: Of a video that names none and has one frame.
UNKNOWN_RATE = Fraction(25)
_MAX_DENOMINATOR = 1001


@dataclass(frozen=True)
class Timing:
    """At ``fps`` the video has ``num_frames`` and lasts as long as it did.

    is_constant: every frame is one frame at this rate. repeated, dropped: how many frames are shown more than
    once, counting each time, and how many not at all.
    """

    fps: Fraction
    num_frames: int
    is_constant: bool
    repeated: int = 0
    dropped: int = 0


def timing(
    stamps: Sequence[int], time_base: Fraction, claimed: Iterable[Fraction | None], last_ticks: int | None
) -> Timing:
    """The rate at which a video can be read frame by frame, or else the one that loses the least.

    Args:
        stamps: of every shown frame, at least one, none less than the one before it, and where there are
            several, not all the same. Of frames with one stamp the last is shown.
        time_base: seconds of a tick.
        claimed: rates that its headers name, the most believable first.
        last_ticks: how long the last frame is shown, where that is known.
    """
    rates = [rate for rate in claimed if rate is not None and rate > 0]
    candidates = [each for rate in rates for each in (_usual(rate, _NEAR_USUAL), rate)]
    if len(stamps) > 1:
        measured = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) * time_base)
        candidates += [_usual(measured, _NEAR_MEASURED), measured.limit_denominator(_MAX_DENOMINATOR)]
    for rate in dict.fromkeys(candidates):
        if MIN_RATE <= rate <= MAX_RATE and _is_constant(stamps, time_base, rate):
            return Timing(rate, len(stamps), True)
    if len(stamps) == 1:
        return Timing(UNKNOWN_RATE, 1, True)
    typical = _typical(stamps)
    fps = _usual(min(max(1 / (typical * time_base), MIN_RATE), MAX_RATE), _NEAR_TYPICAL)
    length_s = (stamps[-1] - stamps[0] + (last_ticks or typical)) * time_base
    num_frames = max(1, round(length_s * fps))
    shown = len(
        set(shown_at(stamps, limits((k / fps for k in range(num_frames)), fps, time_base, stamps[0])))
    )
    return Timing(fps, num_frames, False, num_frames - shown, len(stamps) - shown)


def _typical(stamps: Sequence[int]) -> Fraction:
    """Ticks between frames where they are close: the mean of what is like the first quarter's end."""
    intervals = sorted(b - a for a, b in pairwise(stamps) if b > a)
    quarter = intervals[len(intervals) // 4]
    like = [interval for interval in intervals if 3 * quarter <= 4 * interval <= 5 * quarter]
    return Fraction(sum(like), len(like))


def limits(moments_s: Iterable[Fraction], rate: Fraction, time_base: Fraction, start: int) -> list[int]:
    """For each moment the tick before which a frame must begin that is to be shown at it.

    Files round stamps: half a frame at ``rate``, the greater of the source's and the wanted one, is allowed
    for.
    """
    half = 1 / (2 * rate)
    return [start + math.ceil((moment + half) / time_base) for moment in moments_s]


def shown_at(stamps: Sequence[int], before: Iterable[int]) -> list[int]:
    """For each rising limit the number of the last frame that begins before it; 0 where none does."""
    found, index = [], 0
    for limit in before:
        while index + 1 < len(stamps) and stamps[index + 1] < limit:
            index += 1
        found.append(index)
    return found


def _is_constant(stamps: Sequence[int], time_base: Fraction, rate: Fraction) -> bool:
    """Whether frame i is nearer to i / rate than to any other frame's place."""
    ticks = time_base * rate
    start = stamps[0]
    numerator, denominator = ticks.numerator * 2, ticks.denominator
    return all(
        abs((stamp - start) * numerator - 2 * i * denominator) < denominator for i, stamp in enumerate(stamps)
    )


def _usual(rate: Fraction, near: Fraction) -> Fraction:
    nearest = min(_USUAL, key=lambda usual: abs(usual - rate))
    if abs(nearest - rate) <= near * nearest:
        return nearest
    return rate.limit_denominator(_MAX_DENOMINATOR)
