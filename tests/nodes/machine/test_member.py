"""A machine that joins, where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun
from nodes.machine import member


def test_a_machine_that_cannot_start_gives_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[tuple[str, str]] = []

    class Client:
        def __init__(self, url: str, token: str | None) -> None: ...

        def join(self, token: str, node: str) -> dict[str, Any]:
            return {"versions": {"ray": "1.0"}, "node_token": "its own"}

        def leave(self, node: str, node_token: str) -> list[str]:
            left.append((node, node_token))
            return []

    monkeypatch.setattr(member, "FarmClient", Client)
    with pytest.raises(CannotRun, match=r"the farm has 1\.0; install ray 1\.0 here"):
        member.join(
            "http://127.0.0.1:8321", "once", node="attic", describe=lambda address: [], state=tmp_path
        )
    assert left == [("attic", "its own")]
