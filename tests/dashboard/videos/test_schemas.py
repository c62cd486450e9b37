"""What ``/v1/videos`` reads: the same wishes as JSON, as form fields and as bracketed keys."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dashboard.videos.schemas import (
    CreateRequest,
    EditRequest,
    InputReference,
    job_id_of,
    job_options,
    name_here,
    nested,
    poll_after_ms,
    validated,
    video_id,
)
from farm.errors import CannotRun, InvalidInput, NotFound

WISHES: dict[str, Any] = {
    "prompt": "a boat",
    "model": "procedural",
    "seconds": "4",
    "size": "64x48",
    "seed": 7,
    "num_frames": 24,
    "fps": "30000/1001",
    "window_frames": 8,
    "overlap_frames": 2,
    "num_inference_steps": 5,
    "guidance_scale": 7.5,
    "strength": 0.5,
    "negative_prompt": "blur",
    "priority": 70,
    "mode": "independent",
    "preset": "preview",
}


def test_numbers_as_text_mean_the_same_as_numbers() -> None:
    as_text = {name: str(value) for name, value in WISHES.items()}
    read = validated(CreateRequest, json.dumps(WISHES).encode())
    assert validated(CreateRequest, as_text) == read
    assert (read.seed, read.guidance_scale, read.fps) == (7, 7.5, Fraction(30000, 1001))


def test_wishes_become_the_options_of_a_job() -> None:
    assert job_options(validated(CreateRequest, WISHES)) == {
        "preset": "preview",
        "preview": True,
        "deliver_fps": 24,
        "prompts": ("a boat",),
        "model": "procedural",
        "seconds": 4.0,
        "width": 64,
        "height": 48,
        "seed": 7,
        "num_frames": 24,
        "fps": "30000/1001",
        "window_frames": 8,
        "overlap_frames": 2,
        "num_inference_steps": 5,
        "guidance_scale": 7.5,
        "strength": 0.5,
        "negative_prompt": "blur",
        "priority": 70,
        "mode": "independent",
    }


def test_what_is_not_wished_is_left_to_the_farm() -> None:
    assert job_options(CreateRequest(prompt="a boat")) == {"prompts": ("a boat",), "model": "tiny_wan"}


@pytest.mark.parametrize("model", ["sora-2", "sora-2-pro", "sora-2-2025-10-06"])
def test_names_of_openai_models_mean_the_default(model: str) -> None:
    assert job_options(CreateRequest(prompt="x", model=model))["model"] == "tiny_wan"
    assert job_options(CreateRequest(prompt="x", model=model), default_model="other")["model"] == "other"


def test_a_preset_sets_what_is_not_given() -> None:
    assert job_options(CreateRequest(prompt="x", preset="preview"))["preview"]
    given = CreateRequest(prompt="x", preset="preview", num_inference_steps=9)
    assert job_options(given)["num_inference_steps"] == 9


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "x", "sede": 3}, "sede"),
        ({"prompt": "x", "seed": True}, "seed"),
        ({"prompt": "x", "seed": "true"}, "seed"),
        ({"prompt": "x", "seed": ""}, "seed"),
        ({"prompt": "x", "seed": 1.5}, "seed"),
        ({"prompt": "x", "seconds": "long"}, "seconds"),
        ({"prompt": "x", "fps": "1e999999999"}, "fps"),
        ({"prompt": "x", "mode": "sideways"}, "mode"),
        ({"prompt": "x", "metadata": {"a": "b"}}, "metadata"),
        ({"prompt": "x", "input_reference": {}}, "input_reference"),
        ({"prompt": "x", "input_reference": {"image_url": "a", "file_id": "b"}}, "input_reference"),
        ({"prompt": "x", "input_reference": {"image_uri": "a"}}, "input_reference"),
        ({"prompt": "x", "input_reference": [1]}, "input_reference"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(wishes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        validated(CreateRequest, json.dumps(wishes).encode())
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        validated(CreateRequest, body)


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"size": "large"}, "size"),
        ({"size": "64x64", "width": 64, "height": 64}, "size"),
        ({"preset": "magic"}, "preset"),
    ],
)
def test_sizes_and_presets_that_say_nothing_are_refused(wishes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        job_options(CreateRequest(prompt="x", **wishes))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"prompt": "x", "seed": "7"}, {"prompt": "x", "seed": "7"}),
        ({"input_reference[image_url]": "data:"}, {"input_reference": {"image_url": "data:"}}),
        ({"a[b][c]": "1", "a[b][d]": "2"}, {"a": {"b": {"c": "1", "d": "2"}}}),
        ({"a[]": "1"}, {"a": {"": "1"}}),
        ({"a[b": "1", "[c]": "2", "a]": "3", "": "4"}, {"a[b": "1", "[c]": "2", "a]": "3", "": "4"}),
    ],
)
def test_bracketed_names_are_objects(fields: dict[str, str], made: dict[str, Any]) -> None:
    assert nested(fields) == made


@pytest.mark.parametrize(
    "fields", [{"a": "1", "a[b]": "2"}, {"a[b]": "2", "a": "1"}, {"a[b]": "1", "a[b][c]": ""}]
)
def test_a_field_is_a_value_or_an_object(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        nested(fields)
    assert refused.value.param == "a"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("data:image/png;base64,AAAA", InputReference(image_url="data:image/png;base64,AAAA")),
        ("upload-0123456789ab", InputReference(file_id="upload-0123456789ab")),
    ],
)
def test_a_reference_may_be_plain_text(text: str, read: InputReference) -> None:
    assert validated(CreateRequest, {"prompt": "x", "input_reference": text}).input_reference == read


def test_the_video_of_an_edit_may_come_in_brackets() -> None:
    wanted = validated(EditRequest, nested({"prompt": "x", "video[id]": "video_0123456789ab"}))
    assert wanted.video is not None
    assert wanted.video.id == "video_0123456789ab"


def test_ids_of_videos_are_those_of_jobs() -> None:
    assert job_id_of(video_id("job-0123456789ab")) == "job-0123456789ab"


@pytest.mark.parametrize(
    "wrong",
    ["", "video_", "job-0123456789ab", "video_0123456789AB", "video_../../etc", "video_0123456789ab\n"],
)
def test_what_is_no_id_is_no_video(wrong: str) -> None:
    with pytest.raises(NotFound) as refused:
        job_id_of(wrong)
    assert refused.value.param == "video_id"


@pytest.mark.parametrize(
    ("eta_s", "wait_ms"), [(None, 1000), (0.0, 250), (2.0, 250), (40.0, 2000), (1e9, 5000)]
)
def test_clients_look_again_the_later_the_longer_it_takes(eta_s: float | None, wait_ms: int) -> None:
    assert poll_after_ms(eta_s) == wait_ms


@pytest.mark.parametrize(
    ("farms", "here"),
    [("frames", "num_frames"), ("overlap", "overlap_frames"), ("size", "size"), (None, None)],
)
def test_errors_name_the_parameter_as_it_is_called_here(farms: str | None, here: str | None) -> None:
    error = CannotRun("no", param=farms)
    name_here(error)
    assert error.param == here


def test_the_guide_names_every_field() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "openai-videos.md").read_text()
    asked_for = guide.partition("## What may be asked for")[2].partition("##")[0]
    assert [name for name in CreateRequest.model_fields if f"`{name}`" not in asked_for] == []
