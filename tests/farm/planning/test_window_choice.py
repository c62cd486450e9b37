from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.errors import CannotRun

CAUSAL = FrameRule.causal(4, max_frames=33)


@pytest.mark.parametrize(("asked", "window"), [(8, 9), (16, 17), (9, 9)])
def test_a_causal_window_of_whole_latents_has_the_frame_it_shares_beside_them(
    make: Any, asked: int, window: int
) -> None:
    made = make.plan(make.spec(frames=CAUSAL, window_frames=17), window_frames=asked)
    assert made.window_frames == window
    said = f"window {window}: the first of its frames is shared, {asked} are new"
    assert (said in made.notes) == (asked != window)


@pytest.mark.parametrize(
    ("asked", "trained", "said"), [(9, (9, 17), False), (13, (9, 17), True), (13, (), False)]
)
def test_a_window_that_the_weights_never_saw_is_said(
    make: Any, asked: int, trained: tuple[int, ...], said: bool
) -> None:
    spec = make.spec(model="small", frames=CAUSAL, window_frames=17, trained_windows=trained)
    made = make.plan(spec, window_frames=asked)
    assert ("small was trained on windows of 9, 17 frames, and not on 13" in made.notes) == said


@pytest.mark.parametrize("asked", [6, 36])
def test_any_other_window_is_refused_with_the_nearest(make: Any, asked: int) -> None:
    with pytest.raises(CannotRun, match=r"nearest is (5|33)$"):
        make.plan(make.spec(frames=CAUSAL, window_frames=17), window_frames=asked)


@pytest.mark.parametrize(
    ("window", "models", "overlap"), [(17, 5, 5), (17, 3, 1), (9, 5, 1), (5, 5, 1), (33, 9, 9)]
)
def test_the_models_overlap_is_brought_to_its_stride_and_half_the_window(
    make: Any, window: int, models: int, overlap: int
) -> None:
    spec = make.spec(frames=CAUSAL, window_frames=window, overlap_frames=models)
    assert make.plan(spec).overlap_frames == overlap


@pytest.mark.parametrize(
    ("trained", "prefix", "overlap", "latents"), [(True, 2, 5, 1), (True, 1, 9, 1), (False, 2, 5, 0)]
)
def test_a_chain_hands_over_the_latents_of_its_overlap_where_the_model_was_trained_for_it(
    make: Any, trained: bool, prefix: int, overlap: int, latents: int
) -> None:
    takes = frozenset({"image", "prefix"})
    untrained = frozenset() if trained else frozenset({"prefix"})
    spec = make.spec(
        takes=takes, untrained=untrained, frames=CAUSAL, window_frames=33, max_prefix_latents=prefix
    )
    first, *_, last = make.plan(spec, num_frames=99, overlap_frames=overlap).segments
    assert (first.handover_latents, last.handover_latents) == (latents, 0)
