"""What fifty jobs leave behind is told of each kind by itself, and a job that ends otherwise is named."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.engines.oom_jobs import judged

pytestmark = pytest.mark.torch


def row(job: int, end: str, allocated: int, *, fails: bool = False) -> dict[str, Any]:
    return {"job": job, "end": end, "was_to_fail": fails, "allocated_bytes": allocated}


def test_a_byte_that_stays_behind_is_found() -> None:
    rows = [row(0, "finished", 100), row(1, "oom", 0, fails=True), row(2, "finished", 100)]
    assert judged(rows)["as_it_should"]
    found = judged([*rows, row(3, "oom", 7, fails=True)])
    assert not found["as_it_should"]
    assert found["left_behind_bytes"] == {"after render, allocated_bytes": 0, "after oom, allocated_bytes": 7}


def test_a_job_that_ended_otherwise_than_it_should_is_named() -> None:
    found = judged([row(0, "finished", 5), row(1, "finished", 5, fails=True), row(2, "error", 5)])
    assert (found["wrong_ends"], found["as_it_should"]) == ([1, 2], False)
