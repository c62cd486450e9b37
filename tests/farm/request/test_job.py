"""Numbers and combinations that no model could serve are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from farm.errors import InvalidInput
from farm.request.job import MAX_INPUTS, MAX_PROMPT_CHARS, check

BAD_NUMBERS = [
    ("seconds", "seconds", (0, -1, float("nan"), float("inf"), 1e9)),
    ("num_frames", "frames", (0, -1, 200_001)),
    ("fps", "fps", (0, -1, 241)),
    ("width", "width", (0, -8, 15, 4097, 10**12)),
    ("height", "height", (0, -8, 15, 4097, 10**12)),
    ("window_frames", "window", (0, -1, 1025)),
    ("overlap_frames", "overlap", (-1, 1024)),
    ("num_inference_steps", "steps", (0, -1, 1001)),
    ("guidance_scale", "guidance", (-0.1, float("nan"), float("inf"), 101)),
    ("strength", "strength", (0, -0.5, 1.01, float("nan"))),
    ("priority", "priority", (-1, 101)),
    ("seed", "seed", (-1, 2**63)),
]


@pytest.mark.parametrize(
    ("field", "param", "value"), [(f, p, value) for f, p, values in BAD_NUMBERS for value in values]
)
def test_a_bad_number_is_refused_with_its_name_and_what_it_may_be(
    make: Any, field: str, param: str, value: float
) -> None:
    with pytest.raises(InvalidInput, match=rf"^{param} is .*, expected ") as refused:
        check(make.request(**{field: value}))
    assert refused.value.param == param
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": 1},
        {"num_frames": 200_000},
        {"seconds": 0.01},
        {"fps": 240},
        {"width": 16, "height": 4096},
        {"overlap_frames": 0},
        {"guidance_scale": 0},
        {"strength": 1},
        {"seed": 2**63 - 1},
        {"priority": 0},
    ],
)
def test_the_ends_of_every_range_are_taken(make: Any, changes: dict[str, Any]) -> None:
    check(make.request(**changes))


def refused(request: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check(request)
    return caught.value


def test_frames_and_seconds_together_are_refused(make: Any) -> None:
    error = refused(make.request(num_frames=8, seconds=1))
    assert (error.param, error.message) == ("frames", "frames and seconds are both given; give one of them")


@pytest.mark.parametrize("side", ["width", "height"])
def test_one_side_without_the_other_is_refused(make: Any, side: str) -> None:
    assert refused(make.request(**{side: 512})).param == "size"


def test_a_video_among_other_inputs_is_refused(make: Any) -> None:
    assert (
        "2 inputs with a video among them"
        in refused(make.request(inputs=(make.image(), make.video(24)))).message
    )


def test_two_prompts_for_three_images_are_refused(make: Any) -> None:
    error = refused(make.request(inputs=tuple(make.image(i) for i in range(3)), prompts=("a", "b")))
    assert error.param == "prompt"
    assert "2 prompts for 3 inputs" in error.message


def test_more_inputs_than_are_taken_are_refused(make: Any) -> None:
    error = refused(make.request(inputs=tuple(make.image(i) for i in range(MAX_INPUTS + 1))))
    assert error.param == "inputs"


@pytest.mark.parametrize("field", ["prompts", "negative_prompt"])
def test_an_endless_prompt_is_refused(make: Any, field: str) -> None:
    text = "x" * (MAX_PROMPT_CHARS + 1)
    error = refused(make.request(**{field: (text,) if field == "prompts" else text}))
    assert error.param == "prompt"


def test_a_request_without_prompts_cannot_be_made(make: Any) -> None:
    with pytest.raises(ValidationError, match="expected at least one"):
        make.request(prompts=())


def test_a_request_of_words_alone_has_them_and_is_a_shot_each(make: Any) -> None:
    assert refused(make.request(inputs=())).param == "inputs"
    assert refused(make.request(inputs=(), prompts=("a ship", " "))).param == "inputs"
    words = make.request(inputs=(), prompts=("a ship", "the same ship at night", "a harbour"))
    check(words)
    assert (words.kind, words.num_shots, words.source) == ("text", 3, None)


def test_a_misspelled_field_cannot_pass(make: Any) -> None:
    with pytest.raises(ValidationError, match="num_frame\n"):
        make.request(num_frame=8)


def test_a_frame_rate_that_takes_for_ever_to_write_out_is_refused_at_once(make: Any) -> None:
    with pytest.raises(ValidationError, match="expected a number such as 8 or 30000/1001"):
        make.request(fps="1e999999999")


@pytest.mark.parametrize("field", ["prompts", "negative_prompt", "model"])
def test_bytes_that_are_no_text_are_refused(make: Any, field: str) -> None:
    text = b"\xff".decode(errors="surrogateescape")
    error = refused(make.request(**{field: (text,) if field == "prompts" else text}))
    assert error.param == ("model" if field == "model" else "prompt")
    assert "no UTF-8 text" in error.message
