"""The lines that documents tell people to type are lines that the command takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from farm.cli.main import app

ROOT = Path(__file__).parents[2]
COMMAND: Any = typer.main.get_command(app)
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines(document: Path) -> list[str]:
    """What is typed, lines that go on joined, without comments."""
    blocks = "".join(_BLOCK.findall(document.read_text())).replace("\\\n", " ")
    return [line for line in blocks.splitlines() if line.startswith(("farm ", "REELFARM_COMPILE=1 farm "))]


TYPED = [
    (document.relative_to(ROOT).as_posix(), line)
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for line in lines(document)
]


def test_there_are_lines_to_type() -> None:
    assert len(TYPED) > 20


@pytest.mark.parametrize(("document", "line"), TYPED, ids=lambda text: text[:60])
def test_a_line_of_a_document_is_one_that_the_command_takes(document: str, line: str) -> None:
    words = shlex.split(line.removeprefix("REELFARM_COMPILE=1 ").replace("...", "x"), comments=True)
    assert words.pop(0) == "farm"
    command = COMMAND.commands[words.pop(0)]
    with command.make_context("", words):
        pass


def test_the_first_line_after_the_demo_works_as_typed() -> None:
    readme = (ROOT / "README.md").read_text()
    block = _BLOCK.findall(readme.split("make demo", 1)[1].split("```", 1)[1])[0].splitlines()
    assert block[0] == "source .venv/bin/activate"
    words = shlex.split(block[1])
    assert words[:2] == ["farm", "render"]
    assert (ROOT / words[2]).is_file()
