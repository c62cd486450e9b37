"""What somebody wants of a job's keyframes, as it is typed: made again, replaced, as they were, good."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TypeAlias

from farm.errors import InvalidInput
from farm.values import Value

HOW = "render, again N [SEED], replace N FILE, back N, or quit"


class Remake(Value):
    """Make a keyframe again; without a seed, with one that it was not made with yet."""

    number: int
    seed: int | None = None


class Replace(Value):
    """Let a picture stand for a keyframe."""

    number: int
    path: Path


class TakeBack(Value):
    """Let what was rendered count again."""

    number: int


class Approve(Value):
    """Render the windows."""


class Leave(Value):
    """Decide later."""


ReviewChange: TypeAlias = Remake | Replace | TakeBack | Approve


def parse_replacement(text: str) -> Replace:
    """``3=photo.jpg``.

    Raises:
        InvalidInput: it is no such thing.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*=(.+)", text)
    if not found:
        raise InvalidInput(f"replace is {text!r}, expected N=FILE such as 3=photo.jpg", param="replace")
    return Replace(number=int(found[1]), path=Path(found[2]).expanduser())


def parse_review(line: str) -> ReviewChange | Leave:
    """What is typed where a render asks, such as ``again 3`` or ``replace 2 photo.jpg``.

    Raises:
        InvalidInput: it is none of ``HOW``.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    match words:
        case ["render" | "r"]:
            return Approve()
        case ["again" | "a", number] if number.isdecimal():
            return Remake(number=int(number))
        case ["again" | "a", number, seed] if number.isdecimal() and seed.isdecimal():
            return Remake(number=int(number), seed=int(seed))
        case ["replace", number, path] if number.isdecimal():
            return Replace(number=int(number), path=Path(path).expanduser())
        case ["back" | "b", number] if number.isdecimal():
            return TakeBack(number=int(number))
        case ["quit" | "q"]:
            return Leave()
    raise InvalidInput(f"{line.strip()[:80]!r} is nothing that can be done here; type {HOW}", param="review")
