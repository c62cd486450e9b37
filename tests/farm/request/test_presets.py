"""Presets are options under a name, and every one of them makes a plan."""

from __future__ import annotations

from typing import Any

import pytest

from farm.errors import InvalidInput
from farm.planning.planner import plan
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
    assert made.num_frames == 30
    assert chosen.title
    assert chosen.description.endswith(".")
    assert set(chosen.options) <= set(JobRequest.model_fields) - {"inputs", "model"}


def test_names_are_not_given_twice_and_standard_changes_nothing() -> None:
    names = [p.name for p in PRESETS]
    assert len(set(names)) == len(names)
    assert apply("standard", {"seed": 3}) == {"seed": 3}


@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("preview", {}, {"preview": True}),
        ("preview", {"preview": False}, {"preview": False}),
        ("preview", {"seed": 0}, {"seed": 0, "preview": True}),
        ("careful", {"mode": "auto"}, {"mode": "chain"}),
        ("careful", {"mode": "refine"}, {"mode": "refine"}),
        ("restyle", {"strength": 0.2, "width": None}, {"strength": 0.2, "width": None}),
    ],
)
def test_what_is_given_wins_over_the_preset(name: str, given: dict[str, Any], result: dict[str, Any]) -> None:
    before = dict(given)
    assert apply(name, given) == result
    assert given == before


def test_a_preset_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"^preset is 'fast', expected one of standard, preview") as caught:
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
