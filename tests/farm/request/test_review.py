"""What is typed of keyframes."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import InvalidInput
from farm.request.review import (
    Approve,
    Leave,
    Remake,
    Replace,
    ReviewChange,
    TakeBack,
    parse_replacement,
    parse_review,
)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("render\n", Approve()),
        ("again 3", Remake(number=3)),
        ("again 3 17", Remake(number=3, seed=17)),
        ("replace 2 'my photo.jpg'", Replace(number=2, path=Path("my photo.jpg"))),
        ("back 2", TakeBack(number=2)),
        (" quit ", Leave()),
    ],
)
def test_an_answer_is_a_word_and_a_keyframe(line: str, wanted: ReviewChange | Leave) -> None:
    assert parse_review(line) == wanted


@pytest.mark.parametrize("line", ["", "yes", "again", "again three", "replace 2", "again 1 2 3", "r 'a"])
def test_any_other_answer_is_refused_with_what_can_be_typed(line: str) -> None:
    with pytest.raises(InvalidInput, match="type render, again N"):
        parse_review(line)


def test_a_replacement_is_a_number_and_a_file() -> None:
    assert parse_replacement("3=a=b.jpg") == Replace(number=3, path=Path("a=b.jpg"))
    for text in ("3", "=photo.jpg", "x=photo.jpg", "3="):
        with pytest.raises(InvalidInput, match="expected N=FILE"):
            parse_replacement(text)
