"""A start with a journal older than its folders says so and asks; where nobody can answer it refuses."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from farm.cli.storage_commands import settled
from farm.errors import CannotRun, InvalidInput
from farm.running.job_records import RECORD_NAME, RecordHead
from farm.running.storage import Storage
from farm.state.events import event_adapter
from tests.farm.conftest import Make

JOB = "job-0123456789ab"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """With the folder of a job that no journal knows."""
    storage = Storage(tmp_path)
    event = Make().submitted(JOB, num_frames=8)
    lines = [
        RecordHead(job_id=JOB, last_seq=1).model_dump_json(),
        f'{{"at": 1.5, "event": {event_adapter.dump_json(event).decode()}}}',
    ]
    storage.write_text(storage.job_path(JOB) / RECORD_NAME, "\n".join((*lines, "")))
    return tmp_path


def test_without_anybody_to_ask_it_refuses_and_names_both_ways(state: Path) -> None:
    for _ in range(2):
        with pytest.raises(CannotRun, match=rf"it lacks what they tell of {JOB}; --adopt .* --ignore"):
            settled(state, False, False)


def test_who_goes_on_without_the_job_is_not_asked_again_until_its_folder_tells_of_more(state: Path) -> None:
    for ignore in (True, False, True, False):
        assert settled(state, False, ignore) == state
    record = Storage(state).job_path(JOB) / RECORD_NAME
    _, *events = record.read_text().splitlines()
    record.write_text("\n".join((RecordHead(job_id=JOB, last_seq=2).model_dump_json(), *events, "")))
    with pytest.raises(CannotRun, match=f"it lacks what they tell of {JOB}"):
        settled(state, False, False)
    assert settled(state, True, False) == state, "it may still be listed again"


@pytest.mark.slow
def test_in_a_terminal_it_asks(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``no`` goes on without the job, and is remembered."""
    ask = "import pathlib, farm.cli.storage_commands as c; c.settled(pathlib.Path(), False, False)"
    terminal, end = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", ask], cwd=state, stdin=end, stdout=end, stderr=end, close_fds=True
        )
        os.close(end)
        said = b""
        while b"?" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"n\n")
        with suppress(OSError):  # so Linux says that nobody holds the other end any more
            while more := os.read(terminal, 4096):
                said += more
        assert process.wait(60) == 0, said
    finally:
        os.close(terminal)
    told = " ".join(said.decode().split())
    assert f"it lacks what they tell of {JOB}" in told
    assert "List these jobs again (no: go on without them from now on)?" in told
    assert settled(state, False, False) == state
    assert "listed again" not in capsys.readouterr().err


def test_the_job_is_listed_again_where_that_is_wanted(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settled(state, True, False) == state
    assert f"{JOB} is listed again" in capsys.readouterr().err
    assert settled(state, False, False) == state


def test_both_ways_at_once_are_refused(state: Path) -> None:
    with pytest.raises(InvalidInput, match="exclude each other"):
        settled(state, True, True)
