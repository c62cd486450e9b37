"""What addresses may ask for behind the question mark, and the pages of a list."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from fastapi import Query, Request
from fastapi.routing import APIRoute

from farm.errors import InvalidInput

MAX_LIMIT = 200
DEFAULT_LIMIT = 50

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries of a page.", examples=[50])]
Cursor = Annotated[
    str | None,
    Query(max_length=200, description="`next_cursor` of the page before; it means nothing else."),
]
Order = Annotated[Literal["desc", "asc"], Query(description="By time: the newest first, or the oldest.")]

_Entry = TypeVar("_Entry")


async def known_query_only(request: Request) -> None:
    """Refuse what a route does not know: a misspelt filter would pass for one that finds everything.

    Raises:
        InvalidInput: names it.
    """
    if not request.url.query:
        return
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = {parameter.alias for parameter in route.dependant.query_params}
    for name in request.query_params:
        if name not in known:
            shown = name[:80]
            raise InvalidInput(
                f"{shown!r} is not known here; expected {', '.join(sorted(known)) or 'nothing'}", param=shown
            )
        if len(request.query_params.getlist(name)) > 1:
            raise InvalidInput(f"{name} is there twice; give it once", param=name)


def cursor_after(position: int) -> str:
    """A cursor for the entries that come after ``position``."""
    return base64.urlsafe_b64encode(f"after {position}".encode()).decode().rstrip("=")


def position_of(cursor: str) -> int:
    """
    Raises:
        InvalidInput: it is no cursor of ``cursor_after``.
    """
    word, _, number = _read(cursor).partition(" ")
    if word == "after" and number.isascii() and number.isdigit() and len(number) < 20:
        return int(number)
    raise _no_cursor()


def _read(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _no_cursor() from None


def _no_cursor() -> InvalidInput:
    return InvalidInput("cursor is none that this farm has given; begin without one", param="cursor")


def page_of(entries: Sequence[_Entry], cursor: str | None, limit: int) -> tuple[Sequence[_Entry], str | None]:
    """A page of a list that does not change, and the cursor of the next."""
    first = 0 if cursor is None else position_of(cursor)
    end = first + limit
    return entries[first:end], cursor_after(end) if end < len(entries) else None


def page_of_names(names: Sequence[str], cursor: str | None, limit: int) -> tuple[Sequence[str], str | None]:
    """A page of names in order, and the cursor of the next. Others may come and go in between.

    Raises:
        InvalidInput: it is no cursor of this.
    """
    first = 0
    if cursor is not None:
        word, _, name = _read(cursor).partition(" ")
        if word != "past":
            raise _no_cursor()
        first = bisect_right(names, name)
    shown = names[first : first + limit]
    if first + limit >= len(names):
        return shown, None
    return shown, base64.urlsafe_b64encode(f"past {shown[-1]}".encode()).decode().rstrip("=")
