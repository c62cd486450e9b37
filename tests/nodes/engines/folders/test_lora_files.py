from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import InvalidInput
from nodes.engines.folders import LoraFile, WeightFile, lora_file, weight_file


@pytest.mark.parametrize(
    ("text", "path", "scale", "expert"),
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
def test_a_lora_is_a_file_with_a_scale_and_perhaps_for_one_expert(
    text: str, path: str, scale: float, expert: str | None
) -> None:
    assert lora_file(text) == LoraFile(Path(path), scale, expert)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "high=", "a.ckpt", "a.safetensors:", "a.safetensors:much", "a.safetensors:nan", ":0.5", "a:inf"],
)
def test_what_names_no_lora_is_told_with_how_to_name_one(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected \[high=\|low=\]FILE\[:SCALE\]") as told:
        lora_file(text)
    assert told.value.param == "lora"


def test_a_weight_file_may_be_for_one_expert() -> None:
    assert weight_file("low=q4.gguf") == WeightFile(Path("q4.gguf"), "low")
    assert weight_file("q4.gguf") == WeightFile(Path("q4.gguf"))
    with pytest.raises(InvalidInput, match=r"expected \[high=\|low=\]FILE"):
        weight_file("high=")
