"""Which pictures of a plan are looked at before its windows, and plans that have none."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities.frame_rule import FrameRule
from farm.errors import CannotRun
from farm.planning.keyframes import keyframes
from farm.planning.predict import longest_path
from farm.planning.suggest import plan_over

BOTH_ENDS: dict[str, Any] = {
    "takes": frozenset({"image", "last_image", "video", "text"}),
    "frames": FrameRule.causal(4, max_frames=33),
    "window_frames": 17,
    "native_fps": 8,
    "min_fps": 0.5,
}


@pytest.mark.parametrize(
    ("spec", "asked", "found"),
    [
        pytest.param(
            {"max_end_latents": 1},
            {"mode": "infill", "num_frames": 60},
            [(16, "d0-0", 1, "d0-0"), (32, "d0-0", 2, "d0-0"), (48, "d0-0", 3, "d0-0")],
            id="frames of a draft, each the end of one window and the start of another",
        ),
        pytest.param(
            {"max_end_latents": 2},
            {"mode": "infill", "num_frames": 40},
            [(12, "d0-0", 1, "d0-0"), (24, "d0-0", 2, "d0-0")],
            id="where clips grow out of them the frames they grow out of",
        ),
        pytest.param(
            {},
            {"mode": "refine", "num_frames": 45, "overlap_frames": 5, "window_frames": 17},
            [(12 * n, "k0-0", n, "d0-0") for n in range(1, 5)],
            id="of a refined draft what the windows get, and the draft decides it",
        ),
        pytest.param(
            {"max_end_latents": 1, "min_fps": 8.0, "native_fps": 8},
            {"mode": "infill", "num_frames": 40, "overlap_frames": 1},
            [(16, "r0-0", 4, "d0-0"), (32, "r0-1", 4, "d0-1")],
            id="of a draft at its own pace the refined frames, each behind the draft that decides it",
        ),
        pytest.param(
            {"min_fps": 8.0},
            {"mode": "refine", "num_frames": 40, "overlap_frames": 1, "window_frames": 17},
            [(1, "k0-0", 1, "d0-0"), (16, "k0-1", 0, "d0-1"), (32, "k0-2", 0, "d0-2")],
            id="of clips of consecutive frames the first",
        ),
    ],
)
def test_keyframes_are_what_windows_are_made_from(
    make: Any, spec: dict[str, Any], asked: dict[str, Any], found: list[Any]
) -> None:
    made = make.plan(make.spec(**{**BOTH_ENDS, **spec}), **asked)
    assert [(k.frame, k.segment, k.position, k.made_by) for k in keyframes(made)] == found
    assert [k.number for k in keyframes(made)] == [*range(1, len(found) + 1)]


def test_a_clip_of_frames_is_one_keyframe(make: Any) -> None:
    spec = make.spec(**{**BOTH_ENDS, "min_fps": 8.0})
    made = make.plan(spec, mode="refine", num_frames=40, overlap_frames=1, window_frames=17)
    assert [k.clip_frames for k in keyframes(made)] == [15, 16, 17]


def test_keyframes_of_an_input_video_are_refined_frames_of_it(make: Any) -> None:
    made = make.plan(inputs=(make.video(40),), mode="refine")
    found = keyframes(made)
    assert [k.frame for k in found] == [s.start for s in made.final_segments]
    assert {k.made_by for k in found} == {"k0-0"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"mode": "chain", "num_frames": 60}, "mode chain renders its windows without keyframes"),
        ({"mode": "infill", "num_frames": 17}, "no keyframes of its own; leave review out, or ask for more"),
        ({"num_frames": 17}, "there is nothing to review"),
        ({"mode": "infill", "inputs": 3}, "the 3 pictures given are the keyframes"),
    ],
)
def test_a_review_of_nothing_is_refused_with_what_has_keyframes(
    make: Any, asked: dict[str, Any], said: str
) -> None:
    asked = dict(asked)
    asked["inputs"] = tuple(make.image(i) for i in range(asked.pop("inputs", 1)))
    with pytest.raises(CannotRun, match=said) as refused:
        make.plan(make.spec(**BOTH_ENDS), review=True, **asked)
    assert refused.value.param == "review"


def test_pictures_too_far_apart_for_a_window_have_drafted_keyframes_to_review(make: Any) -> None:
    pictures = (make.image(0), make.image(1))
    made = make.plan(make.spec(**BOTH_ENDS), mode="infill", inputs=pictures, num_frames=41, review=True)
    assert made.review
    assert [k.segment for k in keyframes(made)] == ["d0-0"] * len(keyframes(made))
    assert made.notes[-1].startswith(f"waits for you after {len(keyframes(made))} keyframes: no window is")


def test_auto_takes_a_mode_with_keyframes_for_a_review_even_on_one_worker(make: Any) -> None:
    spec = make.spec(**BOTH_ENDS)
    assert make.plan(spec, num_frames=60).mode == "chain"
    made = plan_over(make.request(num_frames=60, review=True), spec, [make.worker("a/0", 80)])
    assert made.mode in ("infill", "refine")
    assert f"{made.mode} chosen: it has keyframes to look at" in made.notes


def test_windows_that_wait_for_a_review_begin_behind_every_keyframe(make: Any) -> None:
    spec = make.spec(**{**BOTH_ENDS, "max_end_latents": 1})
    asked = {"mode": "infill", "num_frames": 300}
    at_once, held = make.plan(spec, **asked), make.plan(spec, review=True, **asked)
    assert longest_path(at_once, lambda s: 1.0) == longest_path(held, lambda s: 1.0)
    slow_first_window = {"s0-0": 5.0}
    paths = [longest_path(p, lambda s: slow_first_window.get(s.id, 1.0)) for p in (at_once, held)]
    assert paths == [1 + 5, 2 + 5], "the second part of the draft is no window's business, but the user's"
