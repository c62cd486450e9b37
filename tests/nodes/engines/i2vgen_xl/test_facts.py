from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from farm.errors import CannotRun
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec

PUBLISHED = {
    "native_width": 1280,
    "native_height": 704,
    "native_fps": 8,
    "window_frames": 8,
    "default_steps": 50,
    "default_guidance_scale": 9.0,
    "default_strength": 0.6,
    "min_fps": 4.0,
}
OTHER = {
    "native_width": 128,
    "native_height": 96,
    "native_fps": 12,
    "window_frames": 16,
    "default_steps": 20,
    "default_guidance_scale": 1.5,
    "default_strength": 0.5,
    "min_fps": 1,
}


@pytest.fixture
def folder(tiny_i2vgen_xl_folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(tiny_i2vgen_xl_folder, copy)
    return copy


@pytest.mark.parametrize("said", [None, {}, {"native_fps": 16}, OTHER])
def test_a_model_folder_says_what_it_was_trained_for_and_is_else_the_published_model(
    folder: Path, said: dict[str, float] | None
) -> None:
    if said is not None:
        (folder / "farm.json").write_text(json.dumps(said))
    spec = i2vgen_xl_spec(folder, model="tiny")
    expected = PUBLISHED | (said or {})
    for kind in ("cuda", "cpu"):
        assert {name: getattr(spec.on(kind), name) for name in expected} == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"native_with": 128}', "native_with is not known; known are .*native_width, native_height"),
        ('{"native_width": "128"}', "native_width: expected a whole number"),
        ('{"native_width": 127.5}', "native_width: expected a whole number"),
        ('{"default_steps": true}', "default_steps: expected a whole number"),
        ('{"window_frames": 33}', "window_frames: expected a number less than or equal to 32"),
        ('{"default_strength": 0}', "default_strength: expected a number greater than 0"),
        ('{"min_fps": null}', "min_fps: expected a number"),
        ("[]", "the file: expected names with values"),
        ("{", "the file: is no JSON: line 1, column"),
    ],
)
def test_facts_that_cannot_be_read_are_refused_in_one_line_that_names_the_key(
    folder: Path, text: str, named: str
) -> None:
    (folder / "farm.json").write_text(text)
    with pytest.raises(CannotRun, match=rf"farm\.json cannot be read \({named}") as refused:
        i2vgen_xl_spec(folder, model="tiny")
    assert "\n" not in refused.value.message
