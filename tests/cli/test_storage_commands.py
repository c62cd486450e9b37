"""``farm storage`` of a farm that is not up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from farm.cli.storage_commands import delete, ended_before, size, storage
from farm.errors import InvalidInput
from farm.running.storage import Storage
from farm.state.events import JobCancelled
from farm.state.journal import Journal
from farm.state.ledger import past
from tests.farm.conftest import Make

NEW, OLD, GOING = (f"job-{number:012x}" for number in (1, 2, 3))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Journal(tmp_path / "journal.sqlite").close()
    Storage(tmp_path).put(b"of a journal that is lost")
    return tmp_path


@pytest.fixture
def used_state(state: Path) -> Path:
    """With a job that ended an hour ago, one that ended 40 days ago, and one that has not ended."""
    now, make = time.time(), Make()
    journal = Journal(state / "journal.sqlite")
    for number, (job, ago_s) in enumerate(((NEW, 3600.0), (OLD, 40 * 86400.0), (GOING, None))):
        journal.append(make.submitted(job, inputs=(make.image(number),)), now - 50 * 86400.0)
        if ago_s is not None:
            journal.append(JobCancelled(job_id=job), now - ago_s)
        (state / "jobs" / job).mkdir()
        (state / "jobs" / job / "video.mp4").write_bytes(b"a video")
    journal.close()
    return state


def told(capsys: pytest.CaptureFixture[str], state: Path, **options: Any) -> dict[str, object]:
    storage(state=state, as_json=True, **options)
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_unknown_content_stays_until_it_is_asked_for_and_said_yes_to(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, state)["unknown"] == {"files": 1, "size_bytes": 25}
    with pytest.raises(InvalidInput, match="--remove-unknown asks first; add --yes"):
        storage(state=state, remove_unknown=True)
    assert told(capsys, state)["unknown"] == {"files": 1, "size_bytes": 25}
    assert told(capsys, state, remove_unknown=True, yes=True)["unknown"] == {"files": 0, "size_bytes": 0}


def test_it_is_told_in_words(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage(state=state)
    said = capsys.readouterr().out
    assert "1 files, 25 B" in said
    assert "not in the journal; --remove-unknown removes it" in said


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (4_200_000_000, "4.2 GB")],
)
def test_sizes_are_for_people(num_bytes: int, said: str) -> None:
    assert size(num_bytes) == said


def test_the_folder_is_told_and_what_is_free_on_its_disk(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage(state=state)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"the storage in {state}"
    assert lines[-1].split()[0] == "free"
    assert told(capsys, state)["folder"] == str(state)


def test_jobs_that_ended_long_ago_go_with_their_files_when_that_is_asked_for(
    used_state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, used_state, older_than="30d")["older_jobs"] == [OLD]
    assert told(capsys, used_state, older_than="1y")["older_jobs"] == []
    with pytest.raises(InvalidInput, match="--delete asks first; add --yes"):
        storage(state=used_state, older_than="30d", remove=True)
    with pytest.raises(InvalidInput, match="--delete goes with --older-than"):
        storage(state=used_state, remove=True)
    with pytest.raises(InvalidInput, match="older-than is 'ages', expected one such as 12h"):
        storage(state=used_state, older_than="ages")
    gone = told(capsys, used_state, older_than="30d", remove=True, yes=True)
    assert (gone["older_jobs"], gone["deleted"]) == ([OLD], True)
    assert sorted(path.name for path in (used_state / "jobs").iterdir()) == [NEW, GOING]
    with past(used_state) as ledger:
        assert list(ledger.state.jobs) == [NEW, GOING]


def test_jobs_are_deleted_where_no_farm_is_up(used_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput, match=f"job {GOING} has not ended"):
        delete([NEW, GOING], state=used_state)
    delete([NEW], state=used_state)
    assert capsys.readouterr().out == f"{NEW} is deleted\n"
    assert sorted(path.name for path in (used_state / "jobs").iterdir()) == [OLD, GOING]


def test_a_job_has_ended_before_a_moment_or_not_at_all() -> None:
    jobs = [{"id": name, "finished_at": at} for name, at in (("a", 1.0), ("b", 9.0), ("c", None))]
    assert [job["id"] for job in ended_before(jobs, 5.0)] == ["a"]
