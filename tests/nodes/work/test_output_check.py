"""A rendered window is refused by name when it is not what was ordered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.planning.render_task import RenderTask
from nodes.engines.engine import Frames, Rendered, RenderInputs
from nodes.work.output_check import BLACK_LEVEL, InvalidOutput, check_output, frames_sha256, measured_fill


def task(**changes: Any) -> RenderTask:
    default = {
        "model": "procedural",
        "frame_indices": (5, 6, 7),
        "shot_start": 0,
        "shot_end": 20,
        "height": 4,
        "width": 6,
        "fps": 8.0,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "seed": 0,
    }
    return RenderTask.model_validate(default | changes)


def frames(level: int = 128, shape: tuple[int, ...] = (3, 4, 6, 3)) -> Frames:
    return np.full(shape, level, np.uint8)


GREY = RenderInputs(image=np.full((4, 6, 3), 128, np.uint8))


def check(rendered: Rendered, inputs: RenderInputs = GREY, **changes: Any) -> None:
    check_output(task(**changes), inputs, rendered)


def test_what_was_ordered_passes() -> None:
    check(Rendered(frames()))
    check(
        Rendered(frames(), {"image": frames()[0], "latents": np.zeros((4, 1), np.float16)}), handover_index=1
    )


@pytest.mark.parametrize(
    "wrong",
    [
        frames(shape=(2, 4, 6, 3)),
        frames(shape=(4, 4, 6, 3)),
        frames(shape=(3, 6, 4, 3)),
        frames(shape=(3, 4, 6, 4)),
        frames(shape=(3, 4, 6)),
        frames().astype(np.float32),
        frames(shape=(0, 4, 6, 3)),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_a_wrong_count_size_or_type_is_refused_with_both_shapes(wrong: NDArray[Any]) -> None:
    with pytest.raises(InvalidOutput) as refused:
        check(Rendered(wrong))
    assert str(refused.value) == f"got frames {wrong.shape} {wrong.dtype}, expected (3, 4, 6, 3) uint8"


def test_a_missing_handover_image_is_refused() -> None:
    with pytest.raises(InvalidOutput, match="no hand-over image, expected frame 1 of the window"):
        check(Rendered(frames(), {"latents": np.zeros(3, np.float32)}), handover_index=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_handover_that_is_not_finite_is_refused_by_name(value: float) -> None:
    latents = np.zeros((4, 8), np.float16)
    latents[2, 3] = value
    with pytest.raises(InvalidOutput, match="hand-over latents has values that are not finite"):
        check(Rendered(frames(), {"image": frames()[0], "latents": latents}), handover_index=0)


def test_one_black_frame_is_refused_with_its_number_in_the_video() -> None:
    with_one_black = frames()
    with_one_black[2] = 0
    with pytest.raises(InvalidOutput, match=r"^frame 7 is black$"):
        check(Rendered(with_one_black))


def test_dark_is_not_black() -> None:
    check(Rendered(frames(int(BLACK_LEVEL))))


@pytest.mark.parametrize(
    "inputs",
    [
        RenderInputs(image=np.zeros((4, 6, 3), np.uint8)),
        RenderInputs(video=np.stack([frames()[0], np.zeros((4, 6, 3), np.uint8), frames()[0]])),
    ],
    ids=["image", "video"],
)
def test_black_made_from_black_passes(inputs: RenderInputs) -> None:
    check(Rendered(frames(0)), inputs)


def test_the_hash_is_of_pixels_and_shape() -> None:
    assert frames_sha256(frames()) == frames_sha256(frames().copy())
    assert frames_sha256(frames()) != frames_sha256(frames(127))
    assert frames_sha256(frames()) != frames_sha256(frames().reshape(3, 6, 4, 3))
    both_ways = frames()[:, ::-1]
    assert frames_sha256(both_ways) == frames_sha256(np.ascontiguousarray(both_ways))


def _fade(num_frames: int) -> Frames:
    first, last = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3))
    share = np.linspace(0, 1, num_frames)[:, None, None, None]
    return ((1 - share) * first + share * last).astype(np.uint8)


def _filled(num_frames: int, **given: Any) -> Any:
    clip = _fade(num_frames)
    inputs = RenderInputs(**{"image": clip[0], "last_image": clip[-1]} | given)
    return measured_fill(task(), inputs, clip)


def test_a_window_between_two_given_frames_is_measured() -> None:
    fill = _filled(17)
    assert fill.failed_gates == ("fade",)
    assert fill.fade > 0.9


@pytest.mark.parametrize(
    ("given", "level"),
    [({"last_image": None}, "final"), ({"video": _fade(9)}, "final"), ({}, "draft"), ({}, "keyframes")],
)
def test_what_has_no_end_or_is_rendered_over_frames_is_not(given: dict[str, Any], level: str) -> None:
    clip = _fade(9)
    inputs = RenderInputs(**{"image": clip[0], "last_image": clip[-1]} | given)
    assert measured_fill(task(level=level), inputs, clip) is None


def test_clips_given_at_the_ends_are_left_out() -> None:
    clip = np.concatenate([np.repeat(_fade(9)[:1], 8, axis=0), _fade(9), np.repeat(_fade(9)[-1:], 8, axis=0)])
    given = {n: clip[n] for n in (*range(1, 9), *range(16, 24))}
    ends = {"image": clip[0], "last_image": clip[-1]}
    alone = measured_fill(task(), RenderInputs(**ends), clip)
    within = measured_fill(task(), RenderInputs(**ends, known=given), clip)
    assert alone != within
    assert within == measured_fill(task(), RenderInputs(**ends), _fade(9))
