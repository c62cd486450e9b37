"""Jobs in a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from farm.reporting.jobs import age_words, duration_words, made_lines, print_jobs

NOW = 1_000_000.0
PROMPT = "the camera slowly pans right\nover a table in the morning, with steam over the cup"


def job(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"job-{number:012x}",
        "status": "running",
        "reason": "",
        "waiting_for": "",
        "queue_position": None,
        "segments": {"total": 1200, "done": 17},
        "prompt": PROMPT,
        "submitted_at": NOW - 7200.0,
        "finished_at": None,
        "eta_s": 190.0,
        **changes,
    }


def told(*jobs: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    print_jobs(jobs, NOW, Console(file=out, width=80))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_job_is_one_line_of_80_columns_with_its_prompt_its_age_and_its_time() -> None:
    done = job(2, status="succeeded", finished_at=NOW - 7100.0, eta_s=None, prompt="zoom in")
    heads, running, ended = told(job(1), done)
    assert heads.split() == ["job", "status", "done", "prompt", "age", "time"]
    assert running.startswith("job-000000000001  running    17/1200  the camera slow")
    assert running.endswith("…  2 h  3:10 min left")
    assert ended.split() == [
        "job-000000000002",
        "succeeded",
        "17/1200",
        "zoom",
        "in",
        "2",
        "h",
        "1:40",
        "min",
    ]
    assert max(map(len, (running, ended))) <= 80


def test_why_jobs_stand_still_or_failed_is_told_once_below() -> None:
    waits = [job(n, waiting_for="no worker is here", queue_position=n, eta_s=None) for n in range(1, 6)]
    failed = job(9, status="failed", reason="segment s0-1 failed 3 times", eta_s=None)
    lines = told(*waits, failed)
    assert lines[1].split()[1:4] == ["waiting", "(1)", "17/1200"]
    assert lines[-2:] == [
        "job-000000000001, job-000000000002, job-000000000003 and 2 more waiting: no worker is here",
        "job-000000000009 failed: segment s0-1 failed 3 times",
    ]


@pytest.mark.parametrize(
    ("seconds", "age", "duration"),
    [
        (-1.0, "0 s", "0.0 s"),
        (7.25, "7 s", "7.2 s"),
        (59.4, "59 s", "59 s"),
        (59.9, "59 s", "60 s"),
        (101.0, "1 m", "1:41 min"),
        (7500.0, "2 h", "2:05 h"),
        (200_000.0, "2 d", "55:33 h"),
    ],
)
def test_times_are_for_people(seconds: float, age: str, duration: str) -> None:
    assert (age_words(seconds), duration_words(seconds)) == (age, duration)


def test_a_video_that_is_made_is_told_with_its_place_its_time_and_its_job() -> None:
    seams = [{"before": "s0-1", "passed": True}, {"before": "s0-2", "passed": False}]
    report = {"id": "job-1", "num_frames": 80, "fps": 8.0, "seams": seams, "totals": {"wall_s": 101.0}}
    assert made_lines(report, "/v/out.mp4", "/v/out.png") == [
        "video: /v/out.mp4 (80 frames, 10.0 s, made in 1:41 min)",
        "contact sheet: /v/out.png",
        "job job-1; 1 of 2 seams are beyond a gate; `farm report job-1` tells of it",
    ]
