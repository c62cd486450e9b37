"""What a model that knows few words says of the others."""

from __future__ import annotations

import pytest

from farm.planning.prompt_notes import prompt_notes
from tests.farm.conftest import Make

VOCABULARY = {"pan": ("pan", "pans", "left"), "hold still": ("still", "does not move"), "snow": ("snow",)}
KNOWS = "small knows pan, hold still, snow"


@pytest.mark.parametrize(
    ("prompt", "note"),
    [
        ("The camera pans to the LEFT.", None),
        ("pan left, then snow", None),
        ("the camera does not move", None),
        ("", f"there is no prompt: {KNOWS}"),
        ("a dragon breathes fire", f'nothing in "a dragon breathes fire" means anything to small: {KNOWS}'),
        ("pans left past a dog", f'of "pans left past a dog" small reads: pans, left; {KNOWS}'),
        # A phrase is read as a whole, and its words alone are not.
        ("it moves", f'nothing in "it moves" means anything to small: {KNOWS}'),
        ("snow does not, the camera, move", None),
        ("snowy pandas", f'nothing in "snowy pandas" means anything to small: {KNOWS}'),
    ],
)
def test_a_plan_says_which_words_are_read(make: Make, prompt: str, note: str | None) -> None:
    spec = make.spec(model="small", vocabulary=VOCABULARY)
    assert prompt_notes([prompt], spec) == (() if note is None else (note,))


def test_a_model_without_a_vocabulary_reads_all(make: Make) -> None:
    assert prompt_notes(["a dragon breathes fire", ""], make.spec()) == ()


def test_each_prompt_is_answered_once_and_a_long_one_by_its_beginning(make: Make) -> None:
    spec = make.spec(model="small", vocabulary=VOCABULARY)
    long = "a dragon " * 20
    notes = prompt_notes([long, "pan left", long], spec)
    assert len(notes) == 1
    assert notes[0].startswith('nothing in "a dragon a dragon')
    assert "…" in notes[0]
    assert len(notes[0]) < 160


@pytest.mark.parametrize(("size", "said"), [((128, 384), False), ((512, 256), True), ((256, 64), True)])
def test_a_size_that_the_weights_never_saw_is_said(make: Make, size: tuple[int, int], said: bool) -> None:
    spec = make.spec(trained_sides=(128, 384))
    notes = make.plan(spec, width=size[0], height=size[1]).notes
    assert any("was trained on sides of 128 to 384 pixels" in note for note in notes) == said


def test_a_plan_carries_the_answer(make: Make) -> None:
    made = make.plan(prompts=("a dragon",), spec=make.spec(vocabulary=VOCABULARY))
    assert any("a dragon" in note for note in made.notes)


@pytest.mark.parametrize(
    ("prompt", "negative", "said"), [("a ship", "", True), ("", "blurry", True), (" ", "", False)]
)
def test_what_is_written_for_a_model_that_reads_none_is_told(
    make: Make, prompt: str, negative: str, said: bool
) -> None:
    made = make.plan(make.spec(model="svd", takes={"image"}), prompts=(prompt,), negative_prompt=negative)
    assert ("svd does not read prompts: what is written is not used" in made.notes) == said
