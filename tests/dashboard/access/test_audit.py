"""The audit log as a file: whole lines, bounded, its owner's alone, no keys in it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from dashboard.access.audit import NUM_FILES, Audit, AuditEntry


def entry(number: int, path: str = "/api/v1/jobs", subject: str | None = None) -> AuditEntry:
    return {
        "at": float(number),
        "principal": "owner",
        "name": "owner",
        "address": "192.0.2.7",
        "method": "POST",
        "path": path,
        "status": 201,
        "subject": subject,
    }


def test_what_was_written_is_read_the_newest_first(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    assert audit.newest(10) == []
    for number in range(5):
        audit.write(entry(number))
    assert audit.newest(10) == [entry(n) for n in (4, 3, 2, 1, 0)]
    assert audit.newest(2) == [entry(4), entry(3)]
    assert Audit(tmp_path / "audit.jsonl").newest(1) == [entry(4)]
    assert [json.loads(line) for line in (tmp_path / "audit.jsonl").open()] == [entry(n) for n in range(5)]


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", max_bytes=1000)
    for number in range(1000):
        audit.write(entry(number))
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [
        "audit.jsonl",
        *(f"audit.jsonl.{n}" for n in range(1, NUM_FILES)),
    ]
    assert max(path.stat().st_size for path in files) <= 1000
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    found = audit.newest(1000)
    assert 5 < len(found) < 100
    assert found == [entry(n) for n in range(999, 999 - len(found), -1)]


def test_lines_longer_than_what_is_read_at_a_time_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    for number in range(20):
        audit.write(entry(number, subject="x" * number))
    wanted = audit.newest(20)
    for block_bytes in (1, 7, 64, 1000):
        monkeypatch.setattr("dashboard.access.audit._BLOCK_BYTES", block_bytes)
        assert audit.newest(20) == wanted
    assert [found["at"] for found in wanted] == [float(n) for n in range(19, -1, -1)]


def test_a_line_cut_off_by_a_crash_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    Audit(path).write(entry(1))
    with path.open("a") as file:
        file.write('{"at": 2.0, "princ')
    again = Audit(path)
    again.write(entry(3))
    again.write(entry(4))
    assert [found["at"] for found in again.newest(10)] == [4.0, 3.0, 1.0]


def test_a_key_where_its_id_belongs_is_not_written_down(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit.write(entry(1, "/api/v1/keys/rf_3f9a1c07_4yJ0-_secret", "rf_3f9a1c07_other"))
    text = (tmp_path / "audit.jsonl").read_text()
    assert "secret" not in text
    assert "other" not in text
    (found,) = audit.newest(1)
    assert (found["path"], found["subject"]) == ("/api/v1/keys/rf_3f9a1c07_...", "rf_3f9a1c07_...")


def test_an_entry_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit.write(entry(1, "/a\nb\u2028\ud800\x00"))
    assert (tmp_path / "audit.jsonl").read_bytes().count(b"\n") == 1
    assert audit.newest(5)[0]["path"] == "/a\nb\u2028\ud800\x00"


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    (tmp_path / "audit.jsonl" / "x").touch()
    Audit(tmp_path / "audit.jsonl").write(entry(1))
    assert "the audit log cannot be written" in caplog.text
    assert '"principal": "owner"' in caplog.text
