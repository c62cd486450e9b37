"""Ray's own processes die under a farm, and it goes on: nobody types anything, nobody is blamed."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodes.machine.head import Head, head_pids, running_head, stop_head

pytestmark = [pytest.mark.ray, pytest.mark.long]

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
#: That of ``slow_job_sha256``.
JOB = ["--model", "procedural-mild", "--size", "256x256", "--frames", "45", "--prompt", "pan right"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The farm's state folder; a head that outlived its coordinator is ended."""
    yield tmp_path / "state"
    stop_head(tmp_path / "state")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def process_of(head: Head, name: str) -> int:
    """The head process itself, or one that it has started."""
    if name == "head":
        return head.pid
    return next(pid for pid in head_pids(head) if psutil.Process(pid).name() == name)


def the_doctor_tells_every_listener(
    ask: Callable[..., tuple[int, str, str]], coordinator_pid: int, head: Head
) -> None:
    """``farm doctor --security`` against what the kernel shows: none is left out, none is the network's."""
    for _ in range(20):  # Ray starts processes ahead: one may begin to listen between two looks
        before = listeners_of({coordinator_pid, head.pid})
        status, out, err = ask("doctor", "--security", "--json")
        assert status == 0, err
        shown = listeners_of({coordinator_pid, head.pid})
        if before == shown:
            break
    told = [finding["text"] for finding in json.loads(out)]
    opened = {(text.split()[1], int(text.split()[3].rstrip(":"))) for text in told}
    assert opened == shown
    assert head.temp_dir.stat().st_mode & 0o077 == 0, "Ray's folder is open to all; the one around is not"
    assert len(opened) >= 6, "the API, the workers' door, GCS, raylet, driver, worker"
    assert {address for address, _ in opened} == {"127.0.0.1"}
    assert all("programs on this machine; asks for " in text for text in told)
    assert not any("unknown" in text or "asks for nothing" in text for text in told)


def listeners_of(started: set[int]) -> set[tuple[str, int]]:
    """Where these processes, their sessions and descendants listen, as the kernel shows it."""
    inodes: set[str] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            ancestry = {process.pid, *(parent.pid for parent in process.parents())}
            if os.getsid(process.pid) in started or started & ancestry:
                inodes |= socket_inodes(process.pid)
    return {address for inode, address in kernel_listeners().items() if inode in inodes}


def socket_inodes(pid: int) -> set[str]:
    links = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.add(os.readlink(fd))
    return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}


def kernel_listeners() -> dict[str, tuple[str, int]]:
    """inode -> (address, port), as /proc/net tells."""
    found = {}
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                raw, _, port = fields[1].partition(":")
                words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
                address = socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:")
                found[fields[9]] = (address, int(port, 16))
    return found


@pytest.mark.parametrize("killed", ["raylet", "gcs_server", "head"])
def test_a_farm_goes_on_when_a_process_of_ray_is_killed(
    farm: Any,
    ask: Callable[..., tuple[int, str, str]],
    state: Path,
    tmp_path: Path,
    slow_job_sha256: str,
    wait_for: Callable[..., Any],
    killed: str,
) -> None:
    up = farm("up", "--port", free_port(), "--workers", "4GiB")
    wait_for(lambda: json.loads(ask("nodes", "--json")[1] or "[]"), "the farm with its worker")
    status, out, err = ask("submit", str(PHOTO), *JOB)
    assert status == 0, err
    job_id = out.strip()
    wait_for(lambda: (state / "jobs" / job_id / "logs").exists(), "the first result")
    before = running_head(state)
    assert before is not None
    os.kill(process_of(before, killed), signal.SIGKILL)

    status, _, err = ask("watch", job_id, "-o", str(tmp_path / "v.mp4"))
    assert status == 0, err
    told = json.loads(ask("report", job_id, "--json")[1])
    assert told["totals"]["frames_sha256"] == slow_job_sha256
    outcomes = {attempt["outcome"] for segment in told["segments"] for attempt in segment["attempts"]}
    assert outcomes <= {"succeeded", "cancelled"}, "what ends with Ray is nobody's failure"
    after = running_head(state)
    assert after is not None
    assert after.pid != before.pid
    if killed == "raylet":  # once is enough
        the_doctor_tells_every_listener(ask, up.process.pid, after)
    # Machines that have joined know this address and this token.
    assert (after.address, after.token) == (before.address, before.token)
    # Perhaps after the job's end, whose worker never stopped.
    stderr = up.process.stderr
    assert stderr is not None
    assert any("Ray has ended" in line for line in stderr)
    assert any("Ray is up again" in line for line in stderr)
    up.process.terminate()
    status, _, err = up.end()
    assert status == 0, err
    assert not before.temp_dir.exists()


@pytest.mark.parametrize("killed", ["raylet", "gcs_server"])
def test_a_command_that_renders_here_goes_on_too(
    farm: Any, slow_job_sha256: str, wait_for: Callable[..., Any], killed: str
) -> None:
    command = farm("render", str(PHOTO), *JOB, "--workers", "4GiB", "-o", "v.mp4", "--json")
    wait_for(lambda: command.processes("ray::_Worker.run"), "a worker at work")
    (found,) = [p for p in psutil.Process(command.process.pid).children(recursive=True) if p.name() == killed]
    found.kill()
    status, out, err = command.end()
    assert status == 0, err
    assert json.loads(out)["totals"]["frames_sha256"] == slow_job_sha256
    assert "Ray has ended" in err


def test_a_raylet_that_pauses_for_ten_seconds_is_left_alone(
    farm: Any, ask: Callable[..., tuple[int, str, str]], state: Path, wait_for: Callable[..., Any]
) -> None:
    up = farm("up", "--port", free_port(), "--workers", "4GiB")
    wait_for(lambda: json.loads(ask("nodes", "--json")[1] or "[]"), "the farm with its worker")
    head = running_head(state)
    assert head is not None
    raylet = psutil.Process(process_of(head, "raylet"))
    raylet.suspend()
    with pytest.raises(psutil.TimeoutExpired):  # what is paused does not end
        raylet.wait(10)
    raylet.resume()
    assert ask("submit", str(PHOTO), *JOB, "--watch")[0] == 0
    assert running_head(state) == head
    up.process.terminate()
    status, _, err = up.end()
    assert status == 0, err
    assert "Ray" not in err
