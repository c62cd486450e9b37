"""What a model cannot do is refused by its name, with the reason, before anything begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.errors import CannotRun, FarmError, InvalidInput
from farm.planning.planner import plan


def images(number: int) -> Callable[[Any], dict[str, Any]]:
    return lambda make: {"inputs": tuple(make.image(i) for i in range(number))}


def video(num_frames: int) -> Callable[[Any], dict[str, Any]]:
    return lambda make: {"inputs": (make.video(num_frames),)}


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any], Any, type[FarmError], str, str]] = [
    ("video where images are taken", {"takes": frozenset({"image"})}, {}, video(24), CannotRun, "mode",
     "takes no input video"),
    ("image where videos are taken", {"takes": frozenset({"video"})}, {}, images(1), CannotRun, "mode",
     "takes no image"),
    ("chain over a video", {}, {"mode": "chain"}, video(24), CannotRun, "mode", "use refine"),
    ("refine of an image by a model that takes no video", {"takes": frozenset({"image"})},
     {"mode": "refine"}, images(1), CannotRun, "mode", "takes none; use chain"),
    ("refine of an image by a model that starts anywhere", {"random_access": True}, {"mode": "refine"},
     images(1), CannotRun, "mode", "needs none; use independent"),
    ("refine of an image in windows of one", {}, {"mode": "refine", "window_frames": 1}, images(1),
     InvalidInput, "window", "needs 2 or more"),
    ("independent without random access", {}, {"mode": "independent"}, images(1), CannotRun, "mode",
     "can start at any frame"),
    ("infill without last_image", {}, {"mode": "infill"}, images(2), CannotRun, "mode", "last image"),
    ("infill of one image without last_image", {}, {"mode": "infill"}, images(1), CannotRun, "mode",
     "last image"),
    ("infill wider than a draft", {"takes": frozenset({"image", "last_image"})},
     {"mode": "infill", "num_frames": 51}, images(2), CannotRun, "frames", "windows of 8"),
    ("infill of images closer than a latent",
     {"takes": frozenset({"image", "last_image"}), "frames": FrameRule.causal(4, max_frames=33),
      "window_frames": 17}, {"mode": "infill", "num_frames": 8}, images(3), InvalidInput, "frames",
     "ask for at least 9"),
    ("an overlap off the stride", {"frames": FrameRule.causal(4, max_frames=33), "window_frames": 17},
     {"overlap_frames": 3}, images(1), CannotRun, "overlap", "every 4th frame; nearest is 1"),
    ("co_denoise without fusing", {}, {"mode": "co_denoise"}, images(1), CannotRun, "mode",
     "fused between denoising steps"),
    ("chain in windows of one", {}, {"mode": "chain", "window_frames": 1}, images(1), InvalidInput, "window",
     "needs 2 or more"),
    ("more frames than the video has", {}, {"num_frames": 25}, video(24), InvalidInput, "frames",
     "the input video has 24"),
    ("fewer frames than shots", {}, {"num_frames": 2}, images(3), InvalidInput, "frames", "3 shots"),
    ("too many frames by seconds", {}, {"seconds": 100_000}, images(1), InvalidInput, "frames",
     "at most 200000"),
    ("bad numbers before all else", {}, {"num_frames": -5}, images(1), InvalidInput, "frames",
     "frames is -5, expected 1 to 200000"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "asked", "inputs", "error", "param", "reason"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_what_cannot_be_planned_is_refused_by_name(
    make: Any,
    spec: dict[str, Any],
    asked: dict[str, Any],
    inputs: Any,
    error: type[FarmError],
    param: str,
    reason: str,
) -> None:
    with pytest.raises(error) as refused:
        plan(make.request(**asked, **inputs(make)), make.spec(**spec))
    assert refused.value.param == param
    assert reason in refused.value.message
    assert "\n" not in refused.value.message


def test_a_plan_of_too_many_segments_is_refused_before_they_are_made(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.planning.planner.MAX_SEGMENTS", 100)
    spec = make.spec(random_access=True)
    asked = {"window_frames": 8, "overlap_frames": 3}
    assert len(plan(make.request(num_frames=500, **asked), spec).segments) == 100
    with pytest.raises(InvalidInput, match="about 101 segments, and 100 are the most; use less overlap"):
        plan(make.request(num_frames=501, **asked), spec)


@pytest.mark.parametrize(
    ("random_access", "kind", "mode"),
    [(True, "image", "independent"), (False, "image", "chain"), (True, "video", "refine")],
)
def test_auto_takes_the_most_parallel_mode_the_model_can(
    make: Any, random_access: bool, kind: str, mode: str
) -> None:
    media = make.video(24) if kind == "video" else make.image()
    made = make.plan(make.spec(random_access=random_access), inputs=(media,))
    assert made.mode == mode
