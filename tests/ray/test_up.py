"""A farm that stays up: its coordinator is killed and comes back, the workers stay."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodes.machine.head import Head, running_head, stop_head

pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
#: Its model takes a while to load, and none to be found loaded.
JOB = ["--frames", "13", "--size", "64x64", "--steps", "2", "--window", "8", "--overlap", "3"]


@pytest.fixture
def state(tmp_path: Path) -> Any:
    """The farm's state folder; a head that outlived its coordinator is ended."""
    yield tmp_path / "state"
    stop_head(tmp_path / "state")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def worker_pids(head: Head) -> set[int]:
    """The worker processes of a head."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        if title.startswith("ray::_Worker") and str(head.temp_dir) in " ".join(_ancestors(process)):
            found.add(process.pid)
    return found


def _ancestors(process: psutil.Process) -> list[str]:
    try:
        return [" ".join(parent.cmdline()) for parent in process.parents()]
    except psutil.Error:
        return []


def test_a_killed_coordinator_finds_its_workers_again_with_their_models_loaded(
    farm: Any,
    ask: Any,
    state: Path,
    tmp_path: Path,
    wait_for: Callable[..., Any],
    still_running: Callable[..., set[int]],
    tiny_i2vgen_xl_folder: Path,
) -> None:
    port = free_port()
    job = [str(PHOTO), "--model", str(tiny_i2vgen_xl_folder), *JOB, "--watch", "-o", str(tmp_path / "v.mp4")]

    def client(*arguments: str) -> str:
        status, out, err = ask(*arguments)
        assert status == 0, err
        return str(out)

    def is_up() -> bool:
        if not (state / "endpoint.json").exists():
            return False
        done = ask("nodes", "--json")
        return done[0] == 0 and len(json.loads(done[1])) == 1

    first = farm("up", "--port", port, "--workers", "4GiB")
    wait_for(is_up, "the farm")
    client("submit", *job)
    head = running_head(state)
    assert head is not None
    before = worker_pids(head)
    assert len(before) == 1
    first.kill()
    assert worker_pids(head) == before, "the worker outlives the coordinator"

    second = farm("up", "--port", port, "--workers", "4GiB")
    wait_for(lambda: second.process.poll() is None and is_up(), "the farm again")
    client("submit", *job)
    assert worker_pids(head) == before, "the same process serves the new coordinator"
    jobs = json.loads(client("jobs", "--json"))
    attempts = [
        attempt
        for job_id in (j["id"] for j in jobs)
        for segment in json.loads(client("report", job_id, "--json"))["segments"]
        for attempt in segment["attempts"]
    ]
    assert {a["outcome"] for a in attempts} == {"succeeded"}
    assert sum(a["load_s"] > 0.05 for a in attempts) == 1, "the model was loaded once for both jobs"

    second.process.terminate()
    status, _, err = second.end()
    assert status == 0, err
    assert running_head(state) is None
    assert still_running(before) == set()


def test_a_worker_serves_one_coordinator_after_the_other(
    farm: Any, ask: Any, state: Path, wait_for: Callable[..., Any]
) -> None:
    """Each killed coordinator leaves a call behind that waits in the worker for its death."""
    port, seen = free_port(), []
    for _ in range(5):
        command = farm("up", "--port", port, "--workers", "4GiB")
        wait_for(lambda: json.loads(ask("nodes", "--json")[1] or "[]"), "the farm with its worker")
        head = running_head(state)
        assert head is not None
        seen.append(worker_pids(head))
        command.kill()
    assert len(seen[0]) == 1
    assert seen == [seen[0]] * 5


def test_jobs_of_a_killed_farm_go_on_by_themselves(
    farm: Any, ask: Any, state: Path, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    port = free_port()
    first = farm("up", "--port", port, "--workers", "4GiB")
    wait_for(lambda: ask("nodes")[0] == 0, "the farm")
    _, out, _ = ask(
        "submit",
        str(PHOTO),
        "--model",
        "procedural",
        "--size",
        "384x384",
        "--frames",
        "400",
        "--overlap",
        "1",
    )
    job_id = out.strip()

    def done() -> int:
        return int(json.loads(ask("jobs", "--json")[1])[0]["segments"]["done"])

    wait_for(lambda: done() >= 5, "five segments")
    first.kill()
    second = farm("up", "--port", port, "--workers", "4GiB")
    wait_for(lambda: ask("nodes")[0] == 0, "the farm again")
    status, _, err = ask("watch", job_id, "-o", str(tmp_path / "v.mp4"))
    assert status == 0, err
    counted = subprocess.run(
        [sys.executable, "-c", "import sys; from stitching.video_io import probe_video; "
         "print(probe_video(sys.argv[1]).num_frames)", str(tmp_path / "v.mp4")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert counted.stdout.strip() == "400"
    second.process.terminate()
    assert second.end()[0] == 0
