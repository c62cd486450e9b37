"""What the state folder remembers of a running Ray, and what became of it meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from nodes.machine import head as head_module
from nodes.machine.head import (
    HEAD_NAME,
    Head,
    ensure_head,
    remembered_head,
    restart_head,
    running_head,
    spend_token,
    stop_head,
)
from nodes.machine.member import MEMBER_NAME, Member, current


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A process with these words in its command line, which lives until it is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "print(flush=True), input()", *words]
        pipe = subprocess.PIPE
        one = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        started.append(one)
        assert one.stdout is not None
        one.stdout.readline()  # until then it may have no command line
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_file_from_before_a_restart_of_the_machine_names_no_head_and_ends_no_process(
    process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Its process id is another program's by now; `farm up` waited minutes for that one."""
    other = process("tray", "ray")
    session = tmp_path / "rf-0123"
    session.mkdir()
    head = Head(pid=other.pid, address="127.0.0.1:1", token="t", temp_dir=session, workers=())
    (tmp_path / HEAD_NAME).write_text(head.model_dump_json())
    stop_head(tmp_path)
    assert running_head(tmp_path) is None
    assert not (tmp_path / HEAD_NAME).exists()
    assert not session.exists()
    assert other.poll() is None


def test_a_head_that_runs_is_found_again(
    process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    session = tmp_path / "rf-0123"
    own = process("ray", "start", f"--temp-dir={session}/r")
    head = Head(pid=own.pid, address="127.0.0.1:1", token="t", temp_dir=session, workers=())
    (tmp_path / HEAD_NAME).write_text(head.model_dump_json())
    assert running_head(tmp_path) == head


def test_a_machine_is_in_no_farm_when_its_ray_is_gone_though_the_process_id_is_taken(
    process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    member = Member(
        pid=process("xray").pid, url="http://a:1", node="attic", node_token="t", temp_dir=tmp_path / "rf-1"
    )
    (tmp_path / MEMBER_NAME).write_text(member.model_dump_json())
    assert current(tmp_path) is None
    assert not (tmp_path / MEMBER_NAME).exists()


def test_a_head_is_started_again_with_its_token_unless_that_is_spent(
    process: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, str]] = []

    def start(given_up: Event, state: Path, address: str, token: str, *_: object) -> None:
        started.append((address, token))

    monkeypatch.setattr(head_module, "_start_head", start)
    session = tmp_path / "rf-0123"
    own = process("ray", "start", f"--temp-dir={session}/r")
    head = Head(pid=own.pid, address="127.0.0.1:77", token="t", temp_dir=session, workers=())
    (tmp_path / HEAD_NAME).write_text(head.model_dump_json())
    restart_head(Event(), tmp_path, "127.0.0.1", ())
    assert started == [("127.0.0.1:77", "t")]

    for again in (restart_head, ensure_head):
        own = process("ray", "start", f"--temp-dir={session}/r")
        head = head.model_copy(update={"pid": own.pid})
        (tmp_path / HEAD_NAME).write_text(head.model_dump_json())
        assert ensure_head(Event(), tmp_path, "127.0.0.1", ()) == head
        spend_token(tmp_path)
        again(Event(), tmp_path, "127.0.0.1", ())
        address, token = started[-1]
        assert address == "127.0.0.1:77", "where joined machines look for it"
        assert token != "t"
        assert own.wait(10) < 0, "the Ray with the old token is ended"
    assert len(started) == 3


def test_to_look_for_a_head_that_has_ended_forgets_nothing(tmp_path: Path) -> None:
    """The coordinator is about to start it again, at the same address with the same token."""
    session = tmp_path / "rf-0123"
    session.mkdir()
    head = Head(pid=2**22 + 1, address="127.0.0.1:1", token="t", temp_dir=session, workers=())
    (tmp_path / HEAD_NAME).write_text(head.model_dump_json())
    assert running_head(tmp_path) is None
    assert remembered_head(tmp_path) == head
    assert session.exists()
