"""What a state folder holds, looked at while the farm goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from farm.keeping.survey import survey
from farm.running import Storage


def test_what_goes_while_it_is_looked_at_is_not_counted_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    trash = storage.root / "trash"
    for name in "ab":
        (trash / name / "logs").mkdir(parents=True)
        (trash / name / "logs" / "s0-0.log").write_text("rendered")
    stat = Path.stat

    def emptied_first(path: Path, **options: Any) -> Any:
        if trash in path.parents:
            shutil.rmtree(trash, ignore_errors=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", emptied_first)
    assert survey(storage, frozenset(), frozenset()).trash.files == 0
