"""The journal keeps every event, in order, whatever happens to the process or the disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun
from farm.state.events import Event, JobCancelled, JobDeleted, WorkerLeft
from farm.state.journal import Journal
from farm.state.ledger import Ledger


def left(number: int) -> Event:
    return WorkerLeft(worker_id=f"a/{number}", reason="died")


def test_events_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    numbers = [journal.append(left(i), at=10.0 + i) for i in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    assert list(journal.events()) == [(i + 1, 10.0 + i, left(i)) for i in range(5)]


def test_one_jobs_events_are_found_among_many(make: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    events = [make.submitted("job1"), left(0), make.submitted("job2"), JobCancelled(job_id="job1")]
    for event in events:
        journal.append(event, at=0.0)
    assert [seq for seq, _, _ in journal.events(job_id="job1")] == [1, 4]
    assert [seq for seq, _, _ in journal.events(job_id="job1", after=1)] == [4]
    assert [seq for seq, _, _ in journal.events(after=2)] == [3, 4]
    assert list(journal.events(job_id="job3")) == []


def test_a_journal_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    for number in range(3):
        journal = Journal(path)
        assert journal.append(left(number), at=0.0) == number + 1
        journal.close()
    assert [event for _, _, event in Journal(path).events()] == [left(0), left(1), left(2)]


def test_none_of_its_files_can_be_read_by_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "journal.sqlite")
    journal.append(left(0), at=0.0)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert modes == dict.fromkeys(("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"), 0o600)


def test_another_process_can_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    count = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM events'))"
    for number in range(3):
        journal.append(left(number), at=0.0)
        seen = subprocess.run([sys.executable, "-c", count, path], capture_output=True, text=True, check=True)
        assert seen.stdout.strip() == f"({number + 1},)"


def test_a_reader_in_the_middle_sees_what_is_appended_meanwhile(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for number in range(3):
        journal.append(left(number), at=0.0)
    seen = []
    for seq, _, _ in journal.events():
        seen.append(seq)
        if seq == 2:
            journal.append(left(3), at=0.0)
    assert seen == [1, 2, 3, 4]


FILL = """
import resource, sys
from pathlib import Path
from farm.errors import CannotRun
from farm.state.events import WorkerLeft
from farm.state.journal import Journal

journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
number = 0
try:
    while True:
        journal.append(WorkerLeft(worker_id=f"a/{number}", reason="died"), at=0.0)
        number += 1
except CannotRun as error:
    print(number, len(list(journal.events())), error.message, sep="|")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(journal.append(WorkerLeft(worker_id="after", reason="died"), at=0.0))
"""


@pytest.mark.slow
def test_a_full_disk_is_said_changes_nothing_and_passes_when_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", FILL, path],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    first, second = done.stdout.splitlines()
    appended, readable, message = first.split("|")
    assert int(appended) > 10
    assert readable == appended
    assert message.startswith("the journal cannot be written (")
    assert message.endswith("); free disk space and start again")
    assert int(second) == int(appended) + 1
    events = [event for _, _, event in Journal(path).events()]
    assert events == [*map(left, range(int(appended))), WorkerLeft(worker_id="after", reason="died")]


def test_a_journal_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotRun, match=r"the journal .* cannot be opened .*--state"):
        Journal(tmp_path / "file" / "journal.sqlite")
    (tmp_path / "text").write_text("this is no database, and long enough for SQLite to see it " * 20)
    with pytest.raises(CannotRun, match="cannot be opened"):
        Journal(tmp_path / "text")


def test_a_journal_of_a_newer_farm_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    sqlite3.connect(path, isolation_level=None).execute("PRAGMA user_version = 99")
    with pytest.raises(CannotRun, match="was written by a newer farm; start that one"):
        Journal(path)


def test_a_snapshot_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.append(left(0), at=0.0)
    journal.add_part(1, 0, b"half a part")
    journal.compact(1, 1, {})
    with pytest.raises(CannotRun, match=r"^the snapshot of the journal .* is damaged \(error Error -3"):
        Ledger(journal).replay()


@pytest.mark.slow
def test_the_sequence_of_a_killed_writer_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom farm.state.events import WorkerLeft\n"
        "from farm.state.journal import Journal\njournal = Journal(Path(sys.argv[1]))\n"
        "for i in range(7):\n    journal.append(WorkerLeft(worker_id=f'a/{i}', reason='died'), at=0.0)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, path], cwd=Path(__file__).parents[3], check=False)
    assert died.returncode == -9
    assert [event for _, _, event in Journal(path).events()] == [left(i) for i in range(7)]
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"type": "worker_left", "worker_id": "a/1", "re', "Invalid JSON"),
        (b'{"type": "worker_left", "worker_id": 7, "reason": ""}', "worker_left.worker_id: Input should be"),
        (b'{"type": "worker_vanished"}', "does not match any of the expected tags"),
    ],
)
def test_an_event_that_cannot_be_read_is_named_with_its_cause(
    tmp_path: Path, body: bytes, cause: str
) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for number in range(3):
        journal.append(left(number), at=0.0)
    sqlite3.connect(journal.path, isolation_level=None).execute(
        "UPDATE events SET body = ? WHERE seq = 2", (body,)
    )
    with pytest.raises(CannotRun) as refused:
        list(journal.events())
    said = refused.value.message
    assert said.startswith(f"event 2 of the journal {journal.path} is damaged (")
    assert cause in said
    assert "`farm restore`" in said
    assert "\n" not in said


def test_an_event_that_cannot_have_happened_is_named_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.append(left(0), at=0.0)
    journal.append(JobCancelled(job_id="job-0123456789ab"), at=0.0)
    with pytest.raises(CannotRun, match=r"event 2 of .* \(a job_cancelled cannot follow what is before it"):
        Ledger(journal).replay()


def test_a_damaged_database_is_named_by_its_event(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for number in range(2000):
        journal.append(left(number), at=0.0)
    journal.close()
    with journal.path.open("r+b") as file:
        file.seek(journal.path.stat().st_size // 2)
        file.write(b"\xff" * 16384)
    with pytest.raises(CannotRun, match=r"event \d+ of the journal .* is damaged"):
        list(Journal(journal.path).events())


def test_what_files_follow_is_on_the_disk_before_them(tmp_path: Path, make: Any) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    modes = {}
    for event in (make.submitted(num_frames=8), JobCancelled(job_id="job"), JobDeleted(job_id="job")):
        journal.append(event, at=0.0)
        modes[event.type] = journal._db.execute("PRAGMA synchronous").fetchone()[0]
    normal, full = 1, 2
    assert modes == {"job_submitted": full, "job_cancelled": normal, "job_deleted": full}
