"""``farm storage`` of a farm that is not up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.cli.storage_commands import size, storage
from farm.errors import InvalidInput
from farm.running.storage import Storage
from farm.state.journal import Journal


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Journal(tmp_path / "journal.sqlite").close()
    Storage(tmp_path).put(b"of a journal that is lost")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], state: Path, **options: bool) -> dict[str, object]:
    storage(state=state, as_json=True, **options)  # type: ignore[arg-type]
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_unknown_content_stays_until_it_is_asked_for_and_said_yes_to(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, state)["unknown"] == {"files": 1, "size_bytes": 25}
    with pytest.raises(InvalidInput, match="--remove-unknown asks first; add --yes"):
        storage(state=state, remove_unknown=True)
    assert told(capsys, state)["unknown"] == {"files": 1, "size_bytes": 25}
    assert told(capsys, state, remove_unknown=True, yes=True)["unknown"] == {"files": 0, "size_bytes": 0}


def test_it_is_told_in_words(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage(state=state)
    said = capsys.readouterr().out
    assert "1 files, 25 B" in said
    assert "not in the journal; --remove-unknown removes it" in said


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (4_200_000_000, "4.2 GB")],
)
def test_sizes_are_for_people(num_bytes: int, said: str) -> None:
    assert size(num_bytes) == said
