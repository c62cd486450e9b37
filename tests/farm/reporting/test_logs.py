"""What the farm writes down can be read by a program and by a person, and never gets in the farm's way."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from farm.reporting import logs
from farm.reporting.logs import log_events, logging_to
from farm.state.events import JobFailed, WorkerLeft
from farm.state.journal import Journal
from farm.state.ledger import Ledger

log = logging.getLogger("farm.anything")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "farm.log").read_text().splitlines()]


def test_a_line_is_json_with_the_ids_of_what_it_is_about(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        ids = {"job_id": "job-1", "task_id": "s0-0", "attempt_id": "job-1/s0-0/1", "worker_id": "a/0"}
        log.info("%s began", "s0-0", extra=ids)
        log.warning("two\nlines")
    first, second = lines(tmp_path)
    assert first.pop("at") > 1_000_000_000
    assert first == {"level": "info", "logger": "farm.anything", "message": "s0-0 began", **ids}
    assert second["message"] == "two\nlines"
    assert "job_id" not in second


def test_an_exception_is_written_with_its_traceback(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        try:
            raise ValueError("so it is")
        except ValueError:
            log.exception("it failed")
    assert "ValueError: so it is" in lines(tmp_path)[0]["exception"]


def test_of_other_libraries_only_what_goes_wrong_is_written(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        logging.getLogger("chatty.library").info("hello")
        logging.getLogger("chatty.library").warning("oh")
        log.debug("detail")
    assert [line["message"] for line in lines(tmp_path)] == ["oh"]


def test_a_terminal_shows_warnings_on_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_to(tmp_path):
        log.info("quiet")
        log.warning("file \x1b[31m\nfake")
    shown = capsys.readouterr().err
    assert "quiet" not in shown
    assert shown.endswith(" WARNING file  [31m fake\n")


def test_a_supervisor_gets_everything_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(tmp_path, "json"):
        log.info("told")
    assert json.loads(capsys.readouterr().err)["message"] == "told"


def test_the_file_is_private_and_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    with logging_to(tmp_path):
        for number in range(100):
            log.info("line %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["farm.log", *(f"farm.log.{n}" for n in range(1, 6))]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 1000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "farm.log").mkdir()
    with logging_to(tmp_path):
        log.info("one")
        log.info("two")
    assert capsys.readouterr().err.count("cannot be written") == 1


async def test_what_happens_is_logged_with_its_ids(make: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    ledger = Ledger(journal)
    with logging_to(tmp_path):
        following = asyncio.ensure_future(log_events(ledger))
        await asyncio.sleep(0)
        for event in (
            *make.joined(make.worker("a/0")),
            make.submitted(num_frames=8),
            make.assigned("s0-0", "a/0"),  # the coordinator says it
            JobFailed(job_id="job", reason="so be it"),
            WorkerLeft(worker_id="a/0", reason="was released"),
        ):
            ledger.record(event)
        await asyncio.sleep(0.01)
        following.cancel()
    journal.close()
    found = lines(tmp_path)
    assert [line.get("worker_id") or line.get("job_id") for line in found] == ["a/0", "job", "job", "a/0"]
    assert "1 segments" in found[1]["message"]
    assert found[2]["message"] == "job job failed: so be it"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers), logging.getLogger("farm").level
    with logging_to(tmp_path):
        pass
    assert (list(logging.getLogger().handlers), logging.getLogger("farm").level) == before
