"""The prompts of tiny_i2v, and the text stage that learns to read them."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from models.tiny_i2v.recipe import prompt_words, text
from models.tiny_i2v.recipe.camera import MOTIONS, PACES
from models.tiny_i2v.recipe.prompts import HELD_OUT_TEMPLATES, TEMPLATES, random_prompt
from nodes.engines.i2vgen_xl.conditioning import PenultimateText


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


TINY = text.Budget(steps=60, batch=48, vocabulary=700, corpus=300, hidden_size=32, peak_learning_rate=1e-2)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("tiny")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            return folder, text.make(folder, TINY, seed=0, test_prompts=300)
    finally:
        torch.set_num_threads(threads)


def test_a_few_steps_learn_better_than_chance(learned: tuple[Path, dict[str, float]]) -> None:
    _, result = learned
    assert result["motion"] > 0.3  # chance: 0.2, for "still" is drawn twice as often
    assert result["pace"] > 0.36


def test_the_files_load_as_a_clip_tokenizer_and_text_model(learned: tuple[Path, dict[str, float]]) -> None:
    folder, _ = learned
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = PenultimateText(
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    ).eval()
    padded = tokenizer(
        ["", "The camera pans left"],
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        states = encoder(padded.input_ids)
    assert states.shape == (2, 77, TINY.hidden_size)
    assert states.isfinite().all()
    assert not torch.allclose(states[0, -1], states[1, -1], atol=1e-3)


def test_the_tokenizer_lowers_capitals_and_spells_any_text(learned: tuple[Path, dict[str, float]]) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(learned[0] / "tokenizer")
    assert len(tokenizer) == TINY.vocabulary
    assert tokenizer("THE Camera").input_ids == tokenizer("the camera").input_ids
    ids = tokenizer("Žluťoučký kůň 漢字 🐎").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1


def test_what_was_trained_is_the_layer_the_engine_reads(tmp_path: Path) -> None:
    config = text.text_config(TINY, 700, TINY.layers_read)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = text.Classifier(config).eval()
        text.save_text_encoder(model, TINY, tmp_path)
    loaded = PenultimateText(CLIPTextModel.from_pretrained(tmp_path, dtype=torch.float32)).eval()
    ids = torch.randint(0, 690, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids), model(ids)[0], atol=2e-2, rtol=0)


def test_a_pair_that_a_word_holds_twice_is_merged_twice(tmp_path: Path) -> None:
    tokenizer = text.write_tokenizer(tmp_path, ["cocox"] * 9, 516)
    assert (tmp_path / "merges.txt").read_text().splitlines()[1:] == ["c o", "co co"]
    assert tokenizer.tokenize("cocox") == ["coco", "x</w>"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(516))


def test_tokenizers_of_one_corpus_are_equal(tmp_path: Path) -> None:
    corpus = prompts("left", "slow", 50)
    for name in ("a", "b"):
        text.write_tokenizer(tmp_path / name, corpus, 600)
    assert (tmp_path / "a" / "vocab.json").read_bytes() == (tmp_path / "b" / "vocab.json").read_bytes()
    assert (tmp_path / "a" / "merges.txt").read_bytes() == (tmp_path / "b" / "merges.txt").read_bytes()
