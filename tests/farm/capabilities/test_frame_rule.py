from __future__ import annotations

import pytest

from farm.capabilities.frame_rule import FrameRule

CAUSAL = FrameRule.causal(4, max_frames=33)


def test_a_causal_window_is_one_frame_and_whole_latents() -> None:
    assert list(CAUSAL.allowed()) == [1, 5, 9, 13, 17, 21, 25, 29, 33]
    assert [CAUSAL.num_latents(n) for n in (1, 5, 17)] == [1, 2, 5]


@pytest.mark.parametrize(("latents", "frames"), [(0, 1), (1, 5), (2, 9)])
def test_causal_windows_share_whole_latents_and_the_frame_one_begins_with(latents: int, frames: int) -> None:
    assert CAUSAL.overlap_frames(latents) == frames
    assert CAUSAL.allows_overlap(frames)
    assert not CAUSAL.allows_overlap(frames + 1)


def test_a_latent_a_frame_allows_any_window_and_any_overlap() -> None:
    rule = FrameRule(max_frames=6)
    assert list(rule.allowed()) == [1, 2, 3, 4, 5, 6]
    assert rule.num_latents(5) == rule.overlap_frames(5) == 5
    assert all(rule.allows_overlap(n) for n in range(6))


@pytest.mark.parametrize(("wanted", "nearest"), [(2, 1), (4, 5), (11, 9), (16, 17), (100, 33)])
def test_the_nearest_window_keeps_the_rule(wanted: int, nearest: int) -> None:
    assert CAUSAL.nearest(wanted) == nearest


def test_the_rule_says_itself_in_words() -> None:
    assert CAUSAL.form() == "1 to 33 in the form 4k+1"
    assert FrameRule(max_frames=8).form() == "1 to 8"
