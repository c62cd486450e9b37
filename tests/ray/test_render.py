from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from farm.state.events import AttemptSucceeded, TaskAssigned, TaskReopened
from farm.state.journal import Journal

E = TypeVar("E")
pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
#: Some seconds of work for three workers; that of ``slow_job_sha256``.
SLOW_JOB = ["--model", "procedural-mild", "--size", "256x256", "--frames", "45", "--prompt", "pan right"]
WORKERS = ["--workers", "12GiB,12GiB,8GiB"]


def told(folder: Path, kind: type[E]) -> list[E]:
    """Events of a kind in the journal so far."""
    path = folder / "state" / "journal.sqlite"
    if not path.exists():
        return []
    with closing(Journal(path)) as journal:
        return [event for _, _, event in journal.events() if isinstance(event, kind)]


def assigned(folder: Path) -> int:
    """Attempts in the journal so far."""
    return len(told(folder, TaskAssigned))


def kill_at_work(command: Any) -> bool:
    """Kill one of its workers in the midst of a segment, if one is."""
    for worker in command.processes("ray::_Worker.run"):
        worker.suspend()  # what is seen of it now is still so when it is killed
        if " ".join(worker.cmdline()).startswith("ray::_Worker.run"):
            worker.kill()
            return True
        worker.resume()
    return False


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
    assert [line for line in err.splitlines() if "ray" in line.lower()] == [], "Ray's words are for its log"
    report = json.loads(out)
    assert report["video"] == str(tmp_path / "out" / "v.mp4")
    assert report["totals"]["frames_sha256"] == slow_job_sha256
    assert {s["status"] for s in report["segments"]} == {"done"}
    assert len({s["worker_id"] for s in report["segments"]}) >= 2, "the third may come too late for its share"
    assert (tmp_path / "out" / "v.png").stat().st_size > 0
    counted = subprocess.run(
        [sys.executable, "-c", "import sys; from stitching.video_io import probe_video; "
         "print(probe_video(sys.argv[1]).num_frames)", str(tmp_path / "out" / "v.mp4")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert counted.stdout.strip() == "45"
    assert still_running(seen) == set()


def test_a_job_whose_worker_and_coordinator_are_killed_or_interrupted_ends_in_the_same_frames(
    farm: Any,
    tmp_path: Path,
    report_of: Callable[[str], dict[str, Any]],
    only_job: Callable[[], str],
    slow_job_sha256: str,
    wait_for: Any,
    still_running: Callable[..., set[int]],
) -> None:
    killed = farm("render", str(PHOTO), *SLOW_JOB, *WORKERS, "-o", "v.mp4")
    wait_for(lambda: assigned(tmp_path) >= 2, "two attempts")
    # Ray's two agents notice within a minute that they are alone; all that works or stores ends at once.
    children = [
        child.pid
        for child in psutil.Process(killed.process.pid).children(recursive=True)
        if "Agent" not in " ".join(child.cmdline())
    ]
    killed.kill()
    wait_for(lambda: not still_running(children), "the end of Ray")
    job_id = only_job()
    again = ("retry", job_id, *WORKERS, "-o", "v.mp4")

    interrupted = farm(*again)
    wait_for(lambda: len(told(tmp_path, AttemptSucceeded)) >= 3, "three results")
    os.kill(interrupted.process.pid, signal.SIGINT)
    status, _, err = interrupted.end(60)
    assert status == 130
    assert f"farm retry {job_id}" in err
    assert "Traceback" not in err
    assert not (tmp_path / "v.mp4").exists()

    spoilt = told(tmp_path, AttemptSucceeded)[:2]
    flipped, deleted = (
        tmp_path / "state" / "blobs" / event.artifact.sha256[:2] / event.artifact.sha256 for event in spoilt
    )
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    deleted.unlink()

    last = farm(*again)
    wait_for(lambda: kill_at_work(last), "a worker at work")
    status, _, err = last.end()
    assert status == 0, err
    report = report_of(job_id)
    assert report["totals"]["frames_sha256"] == slow_job_sha256
    outcomes = [a["outcome"] for s in report["segments"] for a in s["attempts"]]
    assert "lost" in outcomes, "the killed worker's segment"
    reopened = {event.task_id for event in told(tmp_path, TaskReopened) if "seam" not in event.reason}
    assert reopened == {event.task_id for event in spoilt}
    takes = sum(s["takes"] for s in report["segments"])
    assert outcomes.count("succeeded") == takes + len(spoilt), "nothing else was done again"
