"""A farm that stays up: its coordinator is killed and comes back, the workers stay."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.state.events import AttemptSucceeded
from farm.state.journal import Journal
from nodes.machine.head import Head, running_head, stop_head
from stitching.video_io import probe_video

pytestmark = pytest.mark.ray

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
#: Its model takes a while to load, and none to be found loaded. Some seconds of work, little to be joined.
NUM_FRAMES = 43
JOB = ["--frames", str(NUM_FRAMES), "--size", "64x64", "--steps", "3", "--window", "8", "--overlap", "3"]


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


def open_to_others(folder: Path) -> dict[str, str]:
    """What of a folder other users of this machine may read, write or enter."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            found[str(path.relative_to(folder))] = stat.filemode(mode)
    return found


def test_a_job_goes_on_under_one_coordinator_after_the_other_with_its_worker_and_model_still_there(
    farm: Any,
    ask: Any,
    state: Path,
    tmp_path: Path,
    wait_for: Callable[..., Any],
    still_running: Callable[..., set[int]],
    tiny_i2vgen_xl_folder: Path,
) -> None:
    """Each killed coordinator leaves a call behind that waits in the worker for its death."""
    port, seen = free_port(), []
    job = [str(PHOTO), "--model", str(tiny_i2vgen_xl_folder), *JOB, "--watch", "-o", str(tmp_path / "v.mp4")]

    def client(*arguments: str) -> str:
        status, out, err = ask(*arguments)
        assert status == 0, err
        return str(out)

    def is_up() -> bool:
        if not (state / "endpoint.json").exists():
            return False
        status, out, _ = ask("nodes", "--json")
        return status == 0 and len(json.loads(out)) == 1

    def coordinator() -> Any:
        command = farm("up", "--port", port, "--workers", "4GiB")
        wait_for(lambda: command.process.poll() is None and is_up(), "the farm with its worker")
        head = running_head(state)
        assert head is not None
        seen.append(worker_pids(head))
        return command

    def done() -> int:
        journal = Journal(state / "journal.sqlite")
        try:
            return sum(isinstance(event, AttemptSucceeded) for _, _, event in journal.events())
        finally:
            journal.close()

    command = coordinator()
    head = running_head(state)
    assert head is not None
    assert open_to_others(state) == {}
    # Ray opens what it makes to everybody; nobody gets there.
    assert stat.S_IMODE(head.temp_dir.stat().st_mode) == 0o700
    assert list((head.temp_dir / "r").glob("session_*/sockets/*"))
    by_address = ["--farm", f"http://localhost:{port}"]
    client("nodes", *by_address)  # the token is found by the address
    assert ask("nodes", *by_address, "--token", "wrong")[0] == 2
    assert client("login", *by_address).startswith(f"http://localhost:{port}/login#key=")

    job_id = client("submit", *job[:-3]).strip()
    for _ in range(2):
        before = done()
        wait_for(lambda before=before: done() > before, "one more segment")
        command.kill()
        head = running_head(state)
        assert head is not None
        assert worker_pids(head) == seen[0], "the worker outlives the coordinator"
        command = coordinator()
    client("watch", job_id, *job[-2:])
    assert len(seen[0]) == 1
    assert seen == [seen[0]] * 3, "the same process serves every coordinator"
    assert probe_video(tmp_path / "v.mp4").num_frames == NUM_FRAMES

    client("submit", *job[:-1], str(tmp_path / "again.mp4"))
    jobs = [listed["id"] for listed in json.loads(client("jobs", "--json"))]
    reports = [json.loads(client("report", job, "--json")) for job in jobs]
    first, second = (told["totals"]["frames_sha256"] for told in reports)
    assert first == second
    ended = [attempt for told in reports for s in told["segments"] for attempt in s["attempts"]]
    loads_s = [attempt["load_s"] for attempt in ended if attempt["outcome"] == "succeeded"]
    assert sum(load_s > 0.05 for load_s in loads_s) == 1, "the model was loaded once for both jobs"

    command.process.terminate()
    status, out, err = command.end()
    assert status == 0, err
    assert (len(out.splitlines()), err) == (3, ""), "what Ray says is for its log"
    assert running_head(state) is None
    assert still_running(seen[0]) == set()
