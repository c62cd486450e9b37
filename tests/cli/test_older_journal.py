"""A start with a journal older than its folders says so and asks; where nobody can answer it refuses."""

from __future__ import annotations

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
    assert settled(state, False, True) == state
    with pytest.raises(CannotRun):
        settled(state, False, False)


def test_the_job_is_listed_again_where_that_is_wanted(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settled(state, True, False) == state
    assert f"{JOB} is listed again" in capsys.readouterr().err
    assert settled(state, False, False) == state


def test_both_ways_at_once_are_refused(state: Path) -> None:
    with pytest.raises(InvalidInput, match="exclude each other"):
        settled(state, True, True)
