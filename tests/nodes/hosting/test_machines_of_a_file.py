"""The machines of a cluster file that a farm starts over SSH, and those that it does not."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.machines.cluster_file import ClusterFile, Machine
from farm.state.state import State
from farm.state.workers import NodeState

keep_up: Any = import_module("nodes.hosting.keep_up")


async def test_a_machine_that_was_removed_is_not_let_in_again_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def start_node(machine: Machine, *_: Any) -> Any:
        asked.append(machine.name)
        raise OSError("nobody is there")

    monkeypatch.setattr(keep_up, "RETURN_S", 0.0)
    monkeypatch.setattr(keep_up.ssh, "start_node", start_node)
    names = ("here", "removed", "new", "let-in-again")
    state = State(nodes={"removed": NodeState(removed=True), "let-in-again": NodeState(num_removals=1)})
    coordinator: Any = SimpleNamespace(
        has_node=lambda name: name == "here", ledger=SimpleNamespace(state=state)
    )
    cluster = ClusterFile(machines=[Machine(name=name, address="10.0.0.2") for name in names])
    await keep_up._start_machines(coordinator, cluster, "http://10.0.0.1:1", lambda: "t", tmp_path, [])
    assert asked == ["new", "let-in-again"]
    assert "removed was removed and is not started" in " ".join(capsys.readouterr().err.split())
