"""What docs/trouble-shooting.md quotes of the farm is what the farm says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("farm", "nodes", "stitching", "dashboard")
GUIDE = (ROOT / "docs" / "trouble-shooting.md").read_text()
#: What a shell or a browser says, and commands.
OF_OTHERS = {"farm: command not found"}
#: Where one string ends and the next goes on.
_JOINT = re.compile(r"\"\s*\n\s*f?\"")


@pytest.fixture(scope="module")
def said() -> str:
    """The farm's sources, strings over several lines joined; what varies in them is an ellipsis."""
    sources = (path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return re.sub(r"\{[^{}]*\}", "…", _JOINT.sub("", "\n".join(sources)))


def quoted() -> list[str]:
    """What the first column of a table holds as words of the farm."""
    rows = [line.split(" | ")[0] for line in GUIDE.splitlines() if line.startswith("| ")]
    found = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    return [text for text in found if text not in OF_OTHERS and not text.startswith("farm ")]


def test_symptoms_are_quoted_at_all() -> None:
    assert len(quoted()) > 15


@pytest.mark.parametrize("text", quoted())
def test_the_farm_says_what_is_quoted_of_it(text: str, said: str) -> None:
    for part in filter(None, map(str.strip, text.split("…"))):
        assert part in said, part
