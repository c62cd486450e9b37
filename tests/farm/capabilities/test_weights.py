from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from farm.capabilities.weights import LoraFile, WeightFile, Weights, check_weights
from farm.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "path", "scale", "part"),
    [
        ("a.safetensors", "a.safetensors", 1.0, None),
        ("dir/a.safetensors:0.5", "dir/a.safetensors", 0.5, None),
        ("high=a.safetensors:-1", "a.safetensors", -1.0, "high"),
        ("low=/x/b.safetensors", "/x/b.safetensors", 1.0, "low"),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0, None),
        ("low=C:\\loras\\a.safetensors:1e-1", "C:\\loras\\a.safetensors", 0.1, "low"),
        ("a=b.safetensors", "a=b.safetensors", 1.0, None),
    ],
)
def test_a_lora_is_a_file_with_a_scale_and_perhaps_for_one_part(
    text: str, path: str, scale: float, part: Any
) -> None:
    lora = LoraFile.model_validate(text)
    assert lora == LoraFile(path=Path(path), scale=scale, part=part)
    assert LoraFile.model_validate(str(lora)) == lora
    assert LoraFile.model_validate_json(lora.model_dump_json()) == lora


@pytest.mark.parametrize(
    "text",
    ["", "high=", "a.ckpt", "a.safetensors:", "a.safetensors:much", "a.safetensors:nan", ":0.5", "a:inf"],
)
def test_what_names_no_lora_is_told_with_how_to_name_one(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected \[high=\|low=\]FILE\[:SCALE\]") as told:
        LoraFile.model_validate(text)
    assert told.value.param == "loras"


@pytest.mark.parametrize("scale", ["nan", "inf", float("nan"), float("-inf")])
def test_a_scale_is_a_finite_number_where_a_lora_is_an_object_too(scale: Any) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        LoraFile.model_validate({"path": "a.safetensors", "scale": scale})


def test_a_weight_file_may_be_for_one_part() -> None:
    low = WeightFile.model_validate("low=q4.gguf")
    assert low == WeightFile(path=Path("q4.gguf"), part="low")
    assert str(low) == "low=q4.gguf"
    assert WeightFile.model_validate("q4.safetensors") == WeightFile(path=Path("q4.safetensors"))
    with pytest.raises(InvalidInput, match=r"expected \[high=\|low=\]FILE"):
        WeightFile.model_validate("high=")


@pytest.mark.parametrize("kind", [WeightFile, LoraFile])
def test_a_pickled_checkpoint_is_refused_with_the_reason(kind: Any) -> None:
    with pytest.raises(InvalidInput, match=r"a pickled checkpoint is a program, and is never opened"):
        kind.model_validate("high=wan.ckpt")


def weights(files: str = "", loras: str = "", format: str | None = None) -> Weights:
    return Weights.model_validate({"files": files.split(), "loras": loras.split(), "format": format})


@pytest.mark.parametrize(
    "chosen",
    [
        weights(),
        weights("a.gguf"),
        weights("high=a.gguf low=b.gguf", "a.safetensors low=b.safetensors"),
        weights("low=a.safetensors", format="int8"),
    ],
)
def test_files_that_go_together_are_taken(chosen: Weights) -> None:
    check_weights(chosen)


@pytest.mark.parametrize(
    ("chosen", "param", "said"),
    [
        (weights("a.gguf b.gguf"), "weights", "give one file, or one for high and one for low"),
        (weights("high=a.gguf b.gguf"), "weights", "give one file, or one for high and one for low"),
        (weights("high=a.gguf high=b.gguf"), "weights", "give one file, or one for high and one for low"),
        (weights("a.gguf", format="bf16"), "weight_format", "weight_format is bf16, and a.gguf has a format"),
        (weights("../a.gguf"), "weights", "../a.gguf leads out of the weights folder"),
        (weights(loras="x/../../a.safetensors"), "loras", "leads out of the weights folder"),
    ],
)
def test_files_that_contradict_each_other_are_refused(chosen: Weights, param: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_weights(chosen)
    assert refused.value.param == param
    assert said in refused.value.message


def test_weights_tell_what_they_are() -> None:
    assert str(weights()) == ""
    assert str(weights("low=a.gguf", "b.safetensors:0.5")) == "low=a.gguf, LoRA b.safetensors:0.5"
    assert str(weights(format="int8")) == "int8"


def test_more_loras_than_a_plan_can_look_at_are_refused() -> None:
    check_weights(weights(loras=" ".join(["a.safetensors"] * 32)))
    with pytest.raises(InvalidInput, match=r"^got 33 LoRAs, at most 32 are taken$") as refused:
        check_weights(weights(loras=" ".join(["a.safetensors"] * 33)))
    assert refused.value.param == "loras"
