"""Starting Ray's processes: what becomes of one that nobody waits for any more."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from farm.errors import CannotRun
from nodes.machine import ray_node
from nodes.machine.ray_node import RayProcess, session_of


def test_a_start_that_is_given_up_ends_at_once_with_all_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while Ray hangs on its way up; waiting for it would take a minute and a half."""
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nsleep 600 & exec sleep 600\n")
    hangs.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hangs))
    given_up, keeps = threading.Event(), os.open(os.devnull, os.O_RDONLY)
    process = RayProcess([], {}, tmp_path / "log", keeps=keeps)
    os.close(keeps)
    threading.Timer(0.1, given_up.set).start()
    monkeypatch.setattr(ray_node, "START_TIMEOUT_S", 60.0)
    with pytest.raises(CannotRun, match="the start of Ray was given up"):
        process.wait_until_up(given_up)
    assert session_of(process.pid) == []
