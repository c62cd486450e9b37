"""A journal that an older farm wrote gives the state which that farm had."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from farm.state.journal import Journal
from farm.state.ledger import Ledger

#: Each ``.sqlite`` was written by the farm of that day. The ``.json`` beside it is the state in which that
#: farm ended.
JOURNALS = sorted((Path(__file__).parent / "journals").glob("*.sqlite"))

#: How many kinds of events each holds: the first, every kind there was; the second, those of jobs that wait
#: for their user, one approved and one not.
KINDS = {"2026-11-27": 18, "2026-11-28-reviews": 7}


def plain(value: Any) -> Any:
    """A state as JSON has it."""
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case dict():
            return {key if isinstance(key, str) else repr(key): plain(each) for key, each in value.items()}
        case set() | frozenset():
            return sorted(value)
        case list() | tuple():
            return [plain(each) for each in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def part_of(now: Any, then: Any, where: str = "state") -> None:
    """``now`` holds all that ``then`` held; what was added since may be there too."""
    if isinstance(then, dict):
        assert then.keys() <= now.keys(), where
        for key, value in then.items():
            part_of(now[key], value, f"{where}.{key}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for number, value in enumerate(then):
            part_of(now[number], value, f"{where}[{number}]")
    else:
        assert now == then, where


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_an_old_journal_replays_to_the_state_it_was_written_from(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "journal.sqlite"
    shutil.copy(path, copy)
    ledger = Ledger(Journal(copy))
    ledger.replay()
    then = json.loads(path.with_suffix(".json").read_text())
    assert len(then["jobs"]) == 2
    part_of(plain(ledger.state), then)
    assert len({type(event) for _, _, event in ledger.journal.events()}) == KINDS[path.stem]
    ledger.journal.close()
