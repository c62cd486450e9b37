"""Where Ray keeps its files: nobody else gets in, and a power cut leaves nothing for good."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nodes.machine.session_folder import new_session_folder, remove_stale, scratch_folder

SOMEBODY = 65534


def test_a_session_folder_is_closed_to_others_and_removed_with_its_end(tmp_path: Path) -> None:
    session = new_session_folder(tmp_path)
    assert session.ray.parent == session.path
    assert stat.S_IMODE(session.path.stat().st_mode) == 0o700
    assert len(str(session.ray)) - len(str(tmp_path)) <= 14, "Ray's sockets need the rest"
    session.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_puts_no_link_where_ray_writes(tmp_path: Path) -> None:
    """The attack that wrote over a file of root's: Ray gives its folders the mode 0777."""
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o005)
    session = new_session_folder(tmp_path)
    session.ray.mkdir()
    session.ray.chmod(0o777)
    child = os.fork()
    if child == 0:
        os.setuid(SOMEBODY)
        tries = (
            lambda: os.symlink("/etc/passwd", session.ray / "ray_current_cluster"),
            lambda: os.listdir(session.ray),
            lambda: os.rename(session.path, tmp_path / "rf-mine"),
        )
        refused = 0
        for attempt in tries:
            try:
                attempt()
            except PermissionError:
                refused += 1
        os._exit(0 if refused == len(tries) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    session.remove()


def test_what_a_power_cut_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left = new_session_folder(tmp_path)
    left.let_go()
    used = new_session_folder(tmp_path)
    assert not left.path.exists(), "making one removes what nobody uses"
    assert used.path.exists()
    # A process that was given the lock goes on using the folder.
    holder = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(used.lock,), text=True
    )
    used.let_go()
    remove_stale(tmp_path)
    assert used.path.exists()
    holder.communicate("\n")
    remove_stale(tmp_path)
    assert not used.path.exists()


def test_what_is_no_session_folder_of_ours_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "rf-inner").mkdir(parents=True)
    (kept / "lock").touch()
    (tmp_path / "rf-link").symlink_to(kept)
    (tmp_path / "rf-without-a-lock").mkdir()
    # A farm's state folder may be called anything, and has a lock that nobody holds while the farm is down.
    (tmp_path / "rf-state").mkdir()
    (tmp_path / "rf-state" / "lock").touch()
    (tmp_path / "rf-state" / "journal.sqlite").touch()
    (tmp_path / "rf-file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lock").touch()
    before = sorted(tmp_path.rglob("*"))
    remove_stale(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_inputs_on_their_way_in_go_with_the_block_or_with_the_next_one_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        with scratch_folder() as folder:
            (folder / "photo.png").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert (left / "photo.png").exists()
    (tmp_path / "reelfarm-state").mkdir()
    (tmp_path / "reelfarm-state" / "lock").touch()
    with scratch_folder() as first, scratch_folder() as second:
        assert first.exists(), "it is in use"
        assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "reelfarm-state"}
    assert [path.name for path in tmp_path.iterdir()] == ["reelfarm-state"]
