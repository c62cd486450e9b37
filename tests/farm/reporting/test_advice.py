"""Commands in what people are told name the farm that is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.reporting import console
from farm.reporting.advice import pasteable

STATE, URL = Path("/srv/my farm"), "http://10.0.0.5:8470"

TOLD = [
    # what is said, --farm, the state folder; what is printed
    ("`farm retry job-1` continues it", None, None, "`farm retry job-1` continues it"),
    ("`farm review job-1 --approve`", None, Path("/s"), "`farm review job-1 --approve --state /s`"),
    (
        "`farm retry job-1` continues it",
        None,
        STATE,
        "`farm retry job-1 --state '/srv/my farm'` continues it",
    ),
    ("`farm retry job-1` continues it", URL, STATE, f"`farm retry job-1 --farm {URL}` continues it"),
    ("`farm up`, then `farm jobs`", None, Path("/s"), "`farm up --state /s`, then `farm jobs --state /s`"),
    ("start one with `farm up`", URL, None, "start one with `farm up`"),
    ("`farm join` on a machine", None, STATE, "`farm join` on a machine"),
    ("(`farm jobs --help` shows how)", None, STATE, "(`farm jobs --help` shows how)"),
    ("`farm jobs --state /x`", None, STATE, "`farm jobs --state /x`"),
    ("a farm, a `name`", None, STATE, "a farm, a `name`"),
]


@pytest.mark.parametrize(("said", "farm", "state", "printed"), TOLD)
def test_commands_can_be_pasted_as_they_stand(
    said: str, farm: str | None, state: Path | None, printed: str
) -> None:
    assert pasteable(said, farm, state) == printed


def test_a_relative_state_folder_is_named_from_the_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pasteable("`farm up`", None, Path("state")) == f"`farm up --state {tmp_path}/state`"


def test_a_folder_of_the_environment_is_named_for_shells_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REELFARM_STATE", str(tmp_path))
    console.aim_at_farm(None)
    console.aim_at_state(None)
    assert console.advised("`farm up`") == f"`farm up --state {tmp_path}`"
    monkeypatch.delenv("REELFARM_STATE")
    console.aim_at_state(None)
    assert console.advised("`farm up`") == "`farm up`"
