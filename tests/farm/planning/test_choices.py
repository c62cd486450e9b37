"""What is offered can be made, and what cannot says why."""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.worker import GIB
from farm.errors import CannotRun, InvalidInput
from farm.planning.choices import choices
from farm.planning.suggest import plan_over


@pytest.mark.parametrize("multiple", [2, 8, 32, 5])
@pytest.mark.parametrize("size", [(512, 512), (1920, 1080), (600, 1000), (4000, 300)])
@pytest.mark.parametrize("vram_gib", [1.3, 3.0, 24.0])
def test_what_is_runnable_can_be_planned_and_what_is_not_cannot(
    make: Any, multiple: int, size: tuple[int, int], vram_gib: float
) -> None:
    spec = make.spec(side_multiple=multiple)
    worker = make.worker("a/0", vram_gib)
    request = make.request(inputs=(make.image(width=size[0], height=size[1]),), num_frames=20)
    offered = choices(spec, [worker], request)
    changes: list[tuple[dict[str, Any], Any]] = [
        *(({"width": c.width, "height": c.height}, c) for c in offered.sizes),
        *(({"window_frames": c.window_frames}, c) for c in offered.windows),
        *(({"mode": c.mode}, c) for c in offered.modes),
    ]
    for change, choice in changes:
        assert choice.runnable == (choice.reason is None)
        with nullcontext() if choice.runnable else pytest.raises((CannotRun, InvalidInput)):
            plan_over(request.model_copy(update=change), spec, [worker])


def test_sizes_are_in_the_inputs_shape_smallest_first_with_the_models_own_and_the_asked_one(
    make: Any,
) -> None:
    image = make.image(width=1600, height=900)
    request = make.request(inputs=(image,), width=320, height=320)
    sizes = [(c.width, c.height) for c in choices(make.spec(), [], request).sizes]
    assert sizes == sorted(sizes)
    assert (320, 320) in sizes
    native = make.plan(inputs=(image,))
    assert (native.width, native.height) in sizes
    for width, height in set(sizes) - {(320, 320)}:
        assert width / height == pytest.approx(16 / 9, rel=0.03)
        assert max(width, height) <= 4096


def test_a_video_is_not_enlarged(make: Any) -> None:
    video = make.video(40, width=640, height=360)
    sizes = choices(make.spec(), [], make.request(inputs=(video,))).sizes
    assert max(c.width for c in sizes) == 640
    assert len(sizes) > 1


def test_needs_grow_with_the_choice_and_are_those_of_the_largest_worker(make: Any) -> None:
    spec = make.spec()
    workers = [make.worker("small/0", 1.0), make.worker("large/0", 2.5)]
    offered = choices(spec, workers, make.request())
    for group in (offered.sizes, offered.windows):
        needs = [c.need_bytes for c in group]
        assert needs == sorted(needs)
        assert [c.runnable for c in group] == [c.need_bytes <= 2.5 * GIB for c in group]
    too_large = next(c for c in offered.sizes if not c.runnable)
    assert too_large.reason == (
        f"large/0 has 2.50 GiB, the smallest rung (stream) needs {too_large.need_bytes / GIB:.2f} GiB"
    )


def test_a_smaller_worker_that_can_is_enough(make: Any) -> None:
    # In float32 the model needs more of a CPU than of a card.
    spec = make.spec(on_cpu=make.spec(context_bytes=64 * GIB))
    workers = [make.worker("cpu/0", 32.0, kind="cpu"), make.worker("card/0", 8.0)]
    native = next(c for c in choices(spec, workers).sizes if (c.width, c.height) == (512, 512))
    assert native.runnable
    assert not choices(spec, workers[:1]).modes[1].runnable


def test_without_workers_only_the_model_speaks(make: Any) -> None:
    offered = choices(make.spec(), [])
    assert all(c.runnable and c.need_bytes is None for c in (*offered.sizes, *offered.windows))
    reasons = {c.mode: c.reason for c in offered.modes}
    assert [mode for mode, reason in reasons.items() if reason is None] == ["chain", "refine"]
    assert reasons["independent"] == (
        "mode independent needs a model that can start at any frame; synthetic cannot: use chain"
    )


def test_windows_are_those_the_model_renders_thinned_out_with_the_asked_one(make: Any) -> None:
    spec = make.spec(window_frames=17, frames=FrameRule(step=4, remainder=1, min_frames=5, max_frames=129))
    frames = [c.window_frames for c in choices(spec, [], make.request(window_frames=21)).windows]
    assert len(frames) <= 12
    assert 21 in frames
    assert all(spec.frames.allows(n) for n in frames)
    assert 17 in [c.window_frames for c in choices(spec, []).windows]


@pytest.mark.parametrize(
    ("request_of", "mode", "reason"),
    [
        (lambda make: {"inputs": (make.video(40),)}, "chain", "use refine"),
        (lambda make: {"window_frames": 1}, "chain", "needs 2 or more to hand one over"),
        (
            lambda make: {"inputs": (make.image(), make.image(1)), "num_frames": 60},
            "infill",
            "give more images",
        ),
        (lambda make: {"inputs": (make.image(), make.image(1))}, "infill", None),
        (lambda make: {"num_frames": 10_000}, "chain", None),
        (lambda make: {"inputs": (make.video(3, fps=Fraction(8)),)}, "refine", None),
    ],
)
def test_a_mode_is_refused_for_what_is_asked_beside_it(
    make: Any, request_of: Any, mode: str, reason: str | None
) -> None:
    spec = make.spec(takes=frozenset({"image", "last_image", "text", "video"}))
    offered = choices(spec, [], make.request(**request_of(make)))
    said = next(c.reason for c in offered.modes if c.mode == mode)
    assert (reason is None and said is None) or (said is not None and reason in said)


def test_a_model_that_takes_videos_only_is_offered_for_one(make: Any) -> None:
    offered = choices(make.spec(takes=frozenset({"video"})), [])
    assert [c.mode for c in offered.modes if c.runnable] == ["refine"]
