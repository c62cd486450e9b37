"""The frozen base of every value that crosses a boundary: API, journal, process or machine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen, closed record: unknown fields are an error, so a typo never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
