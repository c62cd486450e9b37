"""What the documents name is there, and what is there is on the map."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("farm", "nodes", "stitching", "dashboard", "reelfarm")
DOCUMENTS = sorted(
    (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").glob("*/README.md")),
)
#: A file of this repository by its path, and perhaps what it defines: ``farm/state/changes.py: apply``.
_NAMED = re.compile(
    r"(?<![\w./-])((?:farm|nodes|stitching|dashboard|reelfarm|models|tests|benchmarks|examples|docs)/[\w./-]*\.\w+)"
    r"(?:: (\w+))?"
)
_LINKED = re.compile(r"\]\(([^)#:]+)\)")
_ROOM_ON_MAP = re.compile(r"^((?:[│ ] {3})*)(?:[├└]── )?(\w+)/ ", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    if document.name == "CHANGELOG.md":  # tells of what was, too
        return
    text = document.read_text()
    for name, defined in _NAMED.findall(text):
        path = ROOT / name
        assert path.is_file(), f"{name_of(document)} names {name}"
        if defined:
            is_there = re.search(rf"\b(def|class) {defined}\b|^{defined}\b", path.read_text(), re.MULTILINE)
            assert is_there, f"{name_of(document)} names {defined} of {name}"
    for link in _LINKED.findall(text):
        assert (document.parent / link).exists(), f"{name_of(document)} links to {link}"


def test_the_documents_name_files_at_all() -> None:
    named = {name for document in DOCUMENTS for name, _ in _NAMED.findall(document.read_text())}
    assert {"farm/planning/planner.py", "nodes/work/worker.py", "stitching/stitch.py"} <= named


def test_every_sub_package_is_on_the_map() -> None:
    on_map: set[str] = set()
    above: list[str] = []
    tree = (ROOT / "ARCHITECTURE.md").read_text().split("## The map", 1)[1].split("## ", 1)[0]
    for indent, folder in _ROOM_ON_MAP.findall(tree):
        depth = len(indent) // 4 + (folder not in (*ROOMS, "models", "tests", "benchmarks"))
        above[depth:] = [folder]
        on_map.add("/".join(above))
    packages = {name_of(path.parent) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    assert packages - on_map == set(), "not on the map"
    assert {each for each in on_map if each.split("/")[0] in ROOMS} - packages == set(), "only on the map"


def test_the_hardware_guide_says_what_was_worked_out() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "times_by_memory.json").read_text())
    guide = (ROOT / "docs" / "hardware.md").read_text()
    for model, cards in found["models"].items():
        own, largest = ([card[which] for card in cards.values()] for which in ("own", "largest"))
        cells = (f"{o['rung']}, {o['need_gib']:.1f}, {o['seconds_for_a_second']:.0f} s" for o in own)
        host = f"{max(o['host_gib'] for o in own)} GiB"
        head = f"{model}, {own[0]['size']} x {own[0]['window']}"
        assert f"| {head} | {' | '.join(cells)} | {host} |" in guide
        sizes = (f"{each['size']} x {each['window']}" for each in largest)
        assert f"| {model} | {' | '.join(sizes)} |" in guide
