"""The state folder is its user's alone, and one farm's at a time."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from farm.errors import CannotRun
from farm.state.state_folder import FolderInUse, Holder, in_use, locked, make_private, usual_mode


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_closed_to_others_and_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_private(tmp_path / "a" / "state")
    assert mode(tmp_path / "a" / "state") == 0o700
    assert caplog.records == []


@pytest.mark.parametrize("opened", [0o755, 0o770, 0o701, 0o777])
def test_a_folder_that_was_open_is_closed_and_that_is_said(
    opened: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(opened)
    with caplog.at_level(logging.WARNING), locked(folder, "up"):
        assert mode(folder) == 0o700
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} was open to other users of this machine (mode {opened:o}); it is closed now"
    ]


def test_a_folder_of_everybody_is_left_as_it_is_and_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    with (
        pytest.raises(CannotRun, match="is everybody's; choose one inside it with --state"),
        locked(folder, "up"),
    ):
        pass
    assert mode(folder) == 0o1777


def test_what_is_made_while_a_farm_works_is_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert usual_mode() == 0o644
        with locked(tmp_path / "state", "up"):
            (tmp_path / "state" / "file").touch()
            (tmp_path / "state" / "folder").mkdir()
        (tmp_path / "later").touch()
    finally:
        os.umask(before)
    assert mode(tmp_path / "state" / "file") == 0o600
    assert mode(tmp_path / "state" / "folder") == 0o700
    assert mode(tmp_path / "later") == 0o644


@pytest.mark.parametrize(
    ("what", "works"),
    [("up", "`farm submit` gives it a job"), ("render", "ends with its video, and takes no other job")],
)
def test_whoever_comes_second_is_told_who_works_in_the_folder_and_what_works(
    what: Holder, works: str, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    assert in_use(folder) is None
    with locked(folder, what):
        with pytest.raises(FolderInUse) as refused, locked(folder, "render"):
            pass
        assert refused.value.message.startswith(f"farm {what} (process {os.getpid()}) is working in {folder}")
        assert works in refused.value.message
        assert (used := in_use(folder)) is not None
        assert used.by == what
    assert in_use(folder) is None


def test_a_folder_that_an_older_farm_holds_is_in_use_too(tmp_path: Path) -> None:
    with locked(tmp_path, "up"):
        (tmp_path / "lock").write_text("")
        used = in_use(tmp_path)
        assert used is not None
        assert used.message.startswith("another farm is working in")
