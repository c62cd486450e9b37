"""The frozen base of every value that crosses a boundary: API, journal, process or machine."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen, closed record: unknown fields are an error, so a typo never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def share_names(value: Value) -> None:
    """Have a new value share its names with all others of its class: a third of the memory, for what a farm
    holds a million of. Which of its fields were given, and which are defaults, is forgotten.
    """
    known = _NAMES.get(type(value))
    if known is None:
        known = _NAMES[type(value)] = (type("Names", (), {}), set(type(value).model_fields))
    holder, fields = known
    held: Any = holder()
    for name, each in vars(value).items():
        setattr(held, name, each)
    object.__setattr__(value, "__dict__", vars(held))
    object.__setattr__(value, "__pydantic_fields_set__", fields)


#: By class: whose instances' tables of names are shared, and all of its fields.
_NAMES: dict[type[Value], tuple[type, set[str]]] = {}
