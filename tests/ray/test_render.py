from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.state.events import TaskAssigned
from farm.state.journal import Journal

pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
SLOW_JOB = ["--model", "procedural-mild", "--size", "448x448", "--frames", "45", "--prompt", "pan right"]
WORKERS = ["--workers", "12GiB,12GiB,8GiB"]


def assigned(folder: Path) -> int:
    """Attempts in the journal so far."""
    path = folder / "state" / "journal.sqlite"
    if not path.exists():
        return 0
    journal = Journal(path)
    try:
        return sum(isinstance(event, TaskAssigned) for _, _, event in journal.events())
    finally:
        journal.close()


def test_a_photo_becomes_a_video_of_the_exact_length_and_nothing_is_left_running(
    farm: Any, tmp_path: Path, slow_job_sha256: str, still_running: Callable[..., set[int]]
) -> None:
    command = farm("render", str(PHOTO), *SLOW_JOB, *WORKERS, "-o", "out/v.mp4", "--json")
    seen: set[int] = set()
    while command.process.poll() is None:
        try:
            seen |= {p.pid for p in psutil.Process(command.process.pid).children(recursive=True)}
            command.process.wait(0.2)
        except (psutil.Error, subprocess.TimeoutExpired):
            continue
    status, out, err = command.end()
    assert status == 0, err
    told = json.loads(out)
    assert told["totals"]["frames_sha256"] == slow_job_sha256
    assert {s["status"] for s in told["segments"]} == {"done"}
    assert len({s["worker_id"] for s in told["segments"]}) == 3
    assert (tmp_path / "out" / "v.png").stat().st_size > 0
    counted = subprocess.run(
        [sys.executable, "-c", "import sys; from stitching.video_io import probe_video; "
         "print(probe_video(sys.argv[1]).num_frames)", str(tmp_path / "out" / "v.mp4")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert counted.stdout.strip() == "45"
    assert still_running(seen) == set()


def test_a_killed_worker_costs_its_segment_only(
    farm: Any,
    report_of: Callable[[str], dict[str, Any]],
    only_job: Callable[[], str],
    slow_job_sha256: str,
    wait_for: Any,
) -> None:
    command = farm("render", str(PHOTO), *SLOW_JOB, *WORKERS, "-o", "v.mp4")
    busy = wait_for(lambda: command.processes("ray::_Worker.run"), "a worker at work")
    busy[0].send_signal(signal.SIGKILL)
    status, _, err = command.end()
    assert status == 0, err
    told = report_of(only_job())
    outcomes = [a["outcome"] for s in told["segments"] for a in s["attempts"]]
    assert "lost" in outcomes
    assert told["totals"]["frames_sha256"] == slow_job_sha256


@pytest.mark.parametrize("attempts_before_the_kill", [2, 7])
def test_a_killed_coordinator_goes_on_where_it_was_and_ends_in_the_same_frames(
    farm: Any,
    tmp_path: Path,
    report_of: Callable[[str], dict[str, Any]],
    only_job: Callable[[], str],
    slow_job_sha256: str,
    wait_for: Any,
    still_running: Callable[..., set[int]],
    attempts_before_the_kill: int,
) -> None:
    first = farm("render", str(PHOTO), *SLOW_JOB, *WORKERS, "-o", "v.mp4")
    wait_for(lambda: assigned(tmp_path) >= attempts_before_the_kill, "that many attempts")
    # Ray's two agents notice within a minute that they are alone; all that works or stores ends at once.
    children = [
        child.pid
        for child in psutil.Process(first.process.pid).children(recursive=True)
        if "Agent" not in " ".join(child.cmdline())
    ]
    first.kill()
    wait_for(lambda: not still_running(children), "the end of Ray")
    job_id = only_job()
    status, _, err = farm("retry", job_id, *WORKERS, "-o", "v.mp4").end()
    assert status == 0, err
    told = report_of(job_id)
    assert told["totals"]["frames_sha256"] == slow_job_sha256
    succeeded = [a for s in told["segments"] for a in s["attempts"] if a["outcome"] == "succeeded"]
    assert len(succeeded) == sum(s["takes"] for s in told["segments"]), "nothing that was done was done again"


def test_ctrl_c_stops_cleanly_and_the_job_can_be_resumed(
    farm: Any, tmp_path: Path, only_job: Callable[[], str], report_of: Callable[[str], dict[str, Any]],
    slow_job_sha256: str, wait_for: Any,
) -> None:  # fmt: skip
    command = farm("render", str(PHOTO), *SLOW_JOB, *WORKERS, "-o", "v.mp4")
    wait_for(lambda: assigned(tmp_path) >= 3, "three attempts")
    os.kill(command.process.pid, signal.SIGINT)
    status, _, err = command.end(60)
    assert status == 130
    job_id = only_job()
    assert f"farm retry {job_id}" in err
    assert "Traceback" not in err
    assert not (tmp_path / "v.mp4").exists()
    status, _, err = farm("retry", job_id, *WORKERS, "-o", "v.mp4").end()
    assert status == 0, err
    assert report_of(job_id)["totals"]["frames_sha256"] == slow_job_sha256
