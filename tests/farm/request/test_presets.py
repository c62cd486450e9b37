"""Presets are options under a name, and every one of them makes a plan."""

from __future__ import annotations

from typing import Any

import pytest

from farm.errors import CannotRun, InvalidInput
from farm.planning.planner import plan
from farm.planning.suggest import plan_over, preset_choices
from farm.request.job import JobRequest
from farm.request.options import request_options
from farm.request.presets import PRESETS, apply, preset


@pytest.mark.parametrize("chosen", PRESETS, ids=lambda p: p.name)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_every_preset_makes_a_plan_of_what_it_suits(make: Any, chosen: Any, kind: str) -> None:
    if kind not in chosen.suits:
        return
    media = make.image() if kind == "image" else make.video(40)
    options = apply(chosen.name, {"model": "synthetic", "num_frames": 30})
    made = plan(JobRequest(inputs=(media,), **options), make.spec(default_steps=20))
    assert made.delivered.num_frames == 30
    assert chosen.title
    assert chosen.description.endswith(".")
    assert set(chosen.options) <= set(JobRequest.model_fields) - {"inputs", "model"}


def test_names_are_not_given_twice_and_plain_changes_nothing() -> None:
    names = [p.name for p in PRESETS]
    assert len(set(names)) == len(names)
    assert apply("plain", {"seed": 3}) == {"seed": 3, "preset": "plain"}


@pytest.mark.parametrize(
    ("name", "size", "window", "steps"),
    [("preview", 256, 8, 30), ("standard", 512, 16, 50), ("high", 768, 24, 60)],
)
def test_three_presets_name_size_frames_steps_and_a_rate_of_24(
    make: Any, name: str, size: int, window: int, steps: int
) -> None:
    asked = make.request(**apply(name, {}), fps=8, num_frames=96)
    made = plan(asked, make.spec(default_steps=50))
    assert (made.width, made.height, made.window_frames) == (size, size, window)
    assert (made.num_inference_steps, made.delivered.fps, made.delivered.num_frames) == (steps, 24, 96)
    assert f"preset {name}: {size}x{size}; windows of {window} frames; {steps} steps" in made.notes


def test_what_is_asked_besides_wins_over_the_level_of_a_preset(make: Any) -> None:
    given = {"width": 640, "height": 384, "num_inference_steps": 9, "deliver_fps": 30}
    made = plan(make.request(**apply("standard", given)), make.spec(default_steps=50))
    assert (made.width, made.height, made.num_inference_steps) == (640, 384, 9)
    assert (made.window_frames, made.delivered.fps) == (16, 30)


def test_an_engine_made_for_few_steps_keeps_its_number_and_trained_windows_are_kept_and_told(
    make: Any,
) -> None:
    spec = make.spec(default_steps=4, preview_steps=2, trained_windows=(14, 25), window_frames=25)
    made = plan(make.request(**apply("standard", {})), spec)
    assert (made.num_inference_steps, made.window_frames) == (4, 14)
    said = next(note for note in made.notes if note.startswith("preset standard"))
    assert "windows of 14 frames, the nearest of synthetic to 16" in said
    assert "synthetic is made for few steps and keeps its own number" in said
    assert plan(make.request(**apply("preview", {})), spec).num_inference_steps == 2


def test_a_preset_lies_in_the_shape_of_its_input(make: Any) -> None:
    asked = make.request(inputs=(make.image(width=1600, height=900),), **apply("standard", {}))
    made = plan(asked, make.spec(default_steps=50))
    assert made.width > made.height
    assert 0.7 < made.width * made.height / 512**2 <= 1.1


def test_a_preset_that_no_card_holds_is_refused_with_the_nearest_that_fits(make: Any) -> None:
    asked = make.request(**apply("high", {}))
    with pytest.raises(CannotRun, match=r"no worker can hold 768x768 .* these fit: --size \d+x\d+ --window"):
        plan_over(asked, make.spec(default_steps=50), [make.worker("a/0", 3.5)])
    found = list(preset_choices(make.spec(default_steps=50), [make.worker("a/0", 3.5)], make.request()))
    assert [(c.preset, c.runnable) for c in found] == [("preview", True), ("standard", True), ("high", False)]
    assert "these fit: --size" in (found[-1].reason or "")


@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("preview", {}, {"preview": True, "deliver_fps": 24}),
        ("preview", {"preview": False}, {"preview": False, "deliver_fps": 24}),
        ("preview", {"deliver_fps": 12}, {"preview": True, "deliver_fps": 12}),
        ("careful", {"mode": "auto"}, {"mode": "chain"}),
        ("careful", {"mode": "refine"}, {"mode": "refine"}),
        ("restyle", {"strength": 0.2, "width": None}, {"strength": 0.2, "width": None}),
    ],
)
def test_what_is_given_wins_over_the_preset(name: str, given: dict[str, Any], result: dict[str, Any]) -> None:
    before = dict(given)
    assert apply(name, given) == {**result, "preset": name}
    assert given == before


def test_a_preset_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"^preset is 'fast', expected one of plain, preview") as caught:
        apply("fast", {})
    assert caught.value.param == "preset"


@pytest.mark.parametrize("name", ["preview", "careful", "restyle"])
def test_the_command_line_takes_presets_and_its_own_options_win(name: str, nothing_chosen: Any) -> None:
    options = request_options(**nothing_chosen, preset=name)
    assert {field: options[field] for field in preset(name).options} == preset(name).options
    own = request_options(**(nothing_chosen | {"steps": 7, "mode": "refine", "strength": 0.5}), preset=name)
    assert (own["num_inference_steps"], own["mode"], own["strength"]) == (7, "refine", 0.5)


def test_preview_and_a_preset_do_not_go_together(nothing_chosen: Any) -> None:
    with pytest.raises(InvalidInput, match="--preview and --preset careful are both given; give one"):
        request_options(**nothing_chosen, preview=True, preset="careful")
