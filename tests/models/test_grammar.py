"""The grammar of prompts: what a camera does, said in many ways."""

from __future__ import annotations

import random
import re

import pytest

from models.tiny_wan.recipe.data import prompt_words
from models.tiny_wan.recipe.data.camera import MOTIONS, PACES
from models.tiny_wan.recipe.data.grammar import HELD_OUT_TEMPLATES, TEMPLATES, random_prompt


def prompts(motion: str, pace: str, count: int = 300, *, held_out: bool = False) -> list[str]:
    rng = random.Random(f"{motion} {pace}")
    return [random_prompt(rng, motion, pace, held_out=held_out) for _ in range(count)]


def all_prompts(*, held_out: bool, count: int = 300) -> list[str]:
    return [p for m in MOTIONS for q in PACES for p in prompts(m, q, count, held_out=held_out)]


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_and_pace_is_said_in_many_ways(motion: str, pace: str) -> None:
    assert len(set(prompts(motion, pace))) > 240
    assert len(set(prompts(motion, pace, held_out=True))) > 200


def test_a_seed_gives_the_same_prompts() -> None:
    assert prompts("left", "slow") == prompts("left", "slow")


def test_held_out_templates_never_appear_in_training_prompts() -> None:
    assert not set(TEMPLATES) & set(HELD_OUT_TEMPLATES)
    # The words a held-out template puts before its fields, where there are any.
    openings = [template.partition("{")[0].strip() for _, template in HELD_OUT_TEMPLATES]
    seen = " | ".join(all_prompts(held_out=False)).lower()
    for opening in filter(None, openings):
        assert not re.search(rf"\b{opening} ", seen), opening
    for phrase in prompt_words.HELD_OUT_STILL_PHRASES:
        assert phrase not in seen


def test_held_out_scenery_never_appears_in_training_prompts() -> None:
    seen = " | ".join(all_prompts(held_out=False)).lower()
    shared = " ".join(phrase for kept in prompt_words.TRAINED.values() for phrase in kept)
    for noun in prompt_words.HELD_OUT["nouns"]:
        if not re.search(rf"\b{noun}\b", shared):
            assert not re.search(rf"\b(a|an|the) {noun}\b", seen), noun
    for kind in ("places", "doings", "misleading"):
        for phrase in prompt_words.HELD_OUT[kind]:
            assert phrase not in seen


def test_training_scenery_never_appears_in_held_out_prompts() -> None:
    seen = " | ".join(all_prompts(held_out=True, count=100)).lower()
    assert not [phrase for phrase in prompt_words.TRAINED["places"] if phrase in seen]


@pytest.mark.parametrize("motion", ["left", "in", "still"])
def test_scenery_may_hold_words_that_mislead(motion: str) -> None:
    seen = prompts(motion, "normal", 1000)
    assert any(phrase in prompt for prompt in seen for phrase in prompt_words.MISLEADING)
    assert any(re.search(r"\b(fast|quick|slow)", prompt) for prompt in seen)


@pytest.mark.parametrize(("motion", "other"), [("left", "right"), ("up", "down"), ("in", "out")])
def test_a_camera_phrase_alone_names_its_own_direction_only(motion: str, other: str) -> None:
    for _, where in prompt_words.ACTIONS[motion]:
        words = re.findall("[a-z]+", where)
        if "from" not in words:
            assert not {other, f"{other}ward", f"{other}wards"} & set(words)


def test_about_half_of_the_prompts_describe_a_picture_too() -> None:
    places = [place for kept in (prompt_words.TRAINED["nouns"],) for place in kept]
    seen = prompts("clockwise", "slow", 1000)
    described = [p for p in seen if any(re.search(rf"\b{noun}\b", p, re.IGNORECASE) for noun in places)]
    assert 350 < len(described) < 700


@pytest.mark.parametrize(
    ("verb", "third", "participle"),
    [
        ("pan", "pans", "panning"),
        ("push", "pushes", "pushing"),
        ("dolly", "dollies", "dollying"),
        ("stay", "stays", "staying"),
        ("move", "moves", "moving"),
        ("go", "goes", "going"),
    ],
)
def test_verbs_are_inflected(verb: str, third: str, participle: str) -> None:
    assert prompt_words.third_person(verb) == third
    assert prompt_words.participle(verb) == participle
