"""Every length from 1 to 100 is cut into windows that hold each frame and can be joined again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from farm.capabilities import FrameRule
from farm.planning.modes.windows import Window, cropped_windows, shifted_windows

WINDOWS_AND_OVERLAPS = [(w, o) for w in (1, 2, 3, 5, 8, 9, 16, 17, 33) for o in range(w // 2 + 1)]
CUTS = [cropped_windows, shifted_windows]

Cut = Callable[[int, int, int], list[Window]]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("window", "overlap"), WINDOWS_AND_OVERLAPS)
def test_the_kept_frames_are_exactly_the_frames_asked_for(cut: Cut, window: int, overlap: int) -> None:
    for num_frames in range(1, 101):
        windows = cut(num_frames, window, overlap)
        kept = [frame for w in windows for frame in range(w.start, w.end)]
        shared = sum(before.end - after.start for before, after in pairwise(windows))
        assert set(kept) == set(range(num_frames))
        assert len(kept) - shared == num_frames


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("window", "overlap"), WINDOWS_AND_OVERLAPS)
def test_the_joins_before_and_after_a_window_never_share_frames(cut: Cut, window: int, overlap: int) -> None:
    for num_frames in range(1, 101):
        windows = cut(num_frames, window, overlap)
        for before, after in zip(windows, windows[2:], strict=False):
            assert after.start >= before.end, f"{num_frames} frames: {windows}"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("window", "overlap"), WINDOWS_AND_OVERLAPS)
def test_neighbours_share_frames_whenever_an_overlap_is_asked_for(
    cut: Cut, window: int, overlap: int
) -> None:
    for num_frames in range(1, 101):
        for before, after in pairwise(cut(num_frames, window, overlap)):
            assert before.end - after.start >= min(overlap, 1)
            assert before.start < after.start


@pytest.mark.parametrize(("window", "overlap"), WINDOWS_AND_OVERLAPS)
def test_cropped_windows_are_full_and_overlap_by_what_was_asked(window: int, overlap: int) -> None:
    for num_frames in range(1, 101):
        windows = cropped_windows(num_frames, window, overlap)
        assert {w.num_frames for w in windows} == {window}
        assert all(before.end - after.start == overlap for before, after in pairwise(windows))


@pytest.mark.parametrize(("window", "overlap"), WINDOWS_AND_OVERLAPS)
def test_shifted_windows_render_nothing_past_the_end(window: int, overlap: int) -> None:
    for num_frames in range(1, 101):
        for w in shifted_windows(num_frames, window, overlap):
            assert w.start + w.num_frames <= num_frames
            assert w.end <= w.start + w.num_frames
            assert w.num_frames == min(window, num_frames)


@pytest.mark.parametrize(("window", "overlap"), [(5, 1), (9, 1), (17, 1), (17, 5), (33, 9)])
def test_shifted_windows_of_a_causal_model_start_on_its_stride_and_repeat_less_than_a_latent(
    window: int, overlap: int
) -> None:
    rule = FrameRule.causal(4, max_frames=33)
    for num_frames in range(1, 101):
        windows = shifted_windows(num_frames, window, overlap, rule)
        assert {frame for w in windows for frame in range(w.start, w.end)} == set(range(num_frames))
        for w in windows:
            assert w.start % 4 == 0
            assert rule.allows(w.num_frames)
            assert w.start + w.num_frames < num_frames + 4
        for before, after in pairwise(windows):
            assert before.end - after.start >= 1
        for before, after in zip(windows, windows[2:], strict=False):
            assert after.start >= before.end, f"{num_frames} frames: {windows}"


@pytest.mark.parametrize(
    ("num_frames", "count"), [(1, 1), (8, 1), (9, 2), (13, 2), (14, 3), (100, 20), (100_000, 20_000)]
)
@pytest.mark.parametrize("cut", CUTS)
def test_there_are_no_more_windows_than_needed(cut: Cut, num_frames: int, count: int) -> None:
    assert len(cut(num_frames, 8, 3)) == count
