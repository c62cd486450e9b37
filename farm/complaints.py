"""What pydantic finds wrong with a value, in the words of all other errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: By pydantic's name of what is wrong; others are said as pydantic says them, in fewer words.
_WORDS: dict[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "expected text",
    "finite_number": "expected a finite number",
    "path_type": "expected a path",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "frozen_set_type"), "expected a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type", "dataclass_type"), "expected names with values"
    ),
}
_OURS = (
    (re.compile(r"^(Value error|Assertion failed), "), ""),
    (re.compile(r"^Input should be (?=(greater|less) than)"), "expected a number "),
    (re.compile(r"^Input should be (a valid |an? )?(?=(\w|'))"), r"expected "),
    (re.compile(r"^\w+ should have "), "expected "),
    (re.compile(r"^String should match pattern "), "expected text of the form "),
)


def complaint(error: Mapping[str, Any]) -> str:
    """One of the errors that a ``ValidationError``, or FastAPI's of a request, lists; without its place."""
    kind, text = str(error["type"]), str(error["msg"])
    if kind == "json_invalid":
        return f"is no JSON{_place(error)}"
    if kind in _WORDS:
        return _WORDS[kind]
    for theirs, ours in _OURS:
        text = theirs.sub(ours, text)
    return text[:1].lower() + text[1:]


def _place(error: Mapping[str, Any]) -> str:
    """Where JSON ends to be that: pydantic tells line and column in words, FastAPI a position."""
    if found := re.search(r"line (\d+) column (\d+)", error["msg"]):
        return f": line {found[1]}, column {found[2]} cannot be read"
    position = error["loc"][-1] if error["loc"] else None
    return f": character {position} cannot be read" if isinstance(position, int) else ""
