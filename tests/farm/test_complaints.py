"""What pydantic finds wrong, in our words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from farm.complaints import complaint
from farm.request import FrameRate
from farm.values import Value


class Entry(Value):
    port: int


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Entry, {}, "is missing"),
        (Entry, {"port": 1, "colour": "red"}, "is not known here"),
        (Entry, "text", "expected names with values"),
        (int, "many", "expected a whole number"),
        (int, 1.5, "expected a whole number"),
        (float, "x", "expected a number"),
        (bool, "perhaps", "expected true or false"),
        (str, 3, "expected text"),
        (tuple[int, ...], 3, "expected a list"),
        (Literal["auto", "none"], "x", "expected 'auto' or 'none'"),
        (Annotated[int, Field(ge=0)], -1, "expected a number greater than or equal to 0"),
        (Annotated[str, Field(max_length=2)], "abc", "expected at most 2 characters"),
        (Annotated[str, Field(pattern="^a$")], "b", "expected text of the form '^a$'"),
        (FrameRate, "fast", "expected a number such as 8 or 30000/1001"),
    ],
)
def test_what_is_wrong_is_said_as_other_errors_say_it(kind: Any, given: object, said: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        TypeAdapter(kind).validate_python(given)
    assert said in complaint(wrong.value.errors()[0])


def test_json_that_is_none_is_told_by_its_place() -> None:
    with pytest.raises(ValidationError) as wrong:
        TypeAdapter(Entry).validate_json(b'{"port": \n oops}')
    assert complaint(wrong.value.errors()[0]) == "is no JSON: line 2, column 2 cannot be read"
    of_fastapi = {"type": "json_invalid", "loc": ("body", 7), "msg": "JSON decode error", "input": {}}
    assert complaint(of_fastapi) == "is no JSON: character 7 cannot be read"
