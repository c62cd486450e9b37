"""Starting and stopping this machine's Ray: environment, command lines, processes. Imports no Ray.

Token authentication is always on, Ray's dashboard always off. Health checks are tuned so that a machine that
is gone counts as dead after some fifteen seconds instead of a minute (Ray's defaults).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from farm.addresses import family_of, is_loopback
from farm.capabilities import Worker
from farm.errors import CannotRun
from farm.machines import Ports
from nodes.machine.host_cores import threads_per_worker

NAMESPACE = "farm"
RESOURCE_PREFIX = "worker-"
WORKERS_VARIABLE = "REELFARM_WORKERS"
#: On which port this machine gives models to others; unset: it does not.
MODELS_PORT_VARIABLE = "REELFARM_MODELS_PORT"
#: Ray's processes, by name, whose end is the end of a node or of the cluster.
ESSENTIAL_PROCESSES = ("gcs_server", "raylet")
OBJECT_STORE_BYTES = 300_000_000
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 40.0


def ray_environment(
    token: str, workers: Sequence[Worker], address: str, models_port: int | None = None
) -> dict[str, str]:
    """Variables that every process of a node's Ray, and the driver, must see. ``address``: the node's."""
    return {
        **({} if models_port is None else {MODELS_PORT_VARIABLE: str(models_port)}),
        # Ray takes another address of the machine for a loopback one, and listens on all of them, unless it
        # is told that there will be no second machine.
        **({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if is_loopback(address) else {}),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_worker_niceness": "0",
        # Workers were drained by the farm before a node is stopped; Ray would wait 30 s for their actors.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        # A machine counts as dead after some fifteen seconds, not after a minute, and not when its Ray pauses
        # for ten; a pulled plug is noticed sooner, by the connections of its workers.
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "1500",
        "RAY_health_check_failure_threshold": "6",
        "RAY_grpc_client_keepalive_time_ms": "10000",
        "RAY_grpc_client_keepalive_timeout_ms": "15000",
        "OMP_NUM_THREADS": str(threads_per_worker(workers)),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        WORKERS_VARIABLE: json.dumps([w.model_dump(mode="json") for w in workers]),
    }


def worker_resources(workers: Sequence[Worker]) -> dict[str, int]:
    """One Ray resource for each worker, so that its actor lands on this node and nowhere else."""
    return {f"{RESOURCE_PREFIX}{worker.id}": 1 for worker in workers}


def new_token() -> str:
    return secrets.token_hex(32)


def free_port(address: str) -> int:
    with socket.socket(family_of(address)) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class RayProcess:
    """``ray start --block`` as a child in its own session: it outlives a killed coordinator, by design."""

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], log_path: Path, *, keeps: int
    ) -> None:
        """``keeps``: a descriptor that it holds for as long as it runs (the lock of its session folder)."""
        self._log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(keeps,),
                umask=0o077,  # of Ray and of the workers it starts
            )
        self.pid = self._process.pid

    def wait_until_up(self, given_up: threading.Event | None = None) -> None:
        """Until then, or until it is given up.

        Raises:
            CannotRun: it does not come up, with the last line of Ray's own words, or it was given up.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if given_up is not None and given_up.is_set():
                stop_process(self.pid, patience_s=0.0)
                self._process.wait()
                raise CannotRun("the start of Ray was given up")
            said = self._log_path.read_text(errors="replace")
            if self._process.poll() is not None:
                break
            if "Ray runtime started" in said:
                return
            time.sleep(0.1)
        self.stop()
        raise CannotRun(f"Ray did not start: {_last_line(self._log_path)} (log: {self._log_path})")

    def wait(self) -> int:
        return self._process.wait()

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        stop_process(self.pid)
        self._process.wait()


def stop_process(pid: int, *, patience_s: float = STOP_TIMEOUT_S) -> None:
    """End a ``ray start --block`` and with it its node; after ``patience_s`` whatever is left is killed."""
    if patience_s > 0:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        if _session_ended(pid, patience_s):
            return
    for member in session_of(pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    _session_ended(pid, 5.0)


def process_alive(pid: int, word: str) -> bool:
    """Whether this process runs and is what we started: its command line has ``word`` in it.

    A session folder is a good word: no other process ever has it, whoever gets the number after a restart.
    """
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def session_of(pid: int) -> list[int]:
    """The processes of a session that run; Ray puts each worker into a group of its own.

    A zombie waits for its parent and does not count.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _session_ended(pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while session_of(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def head_arguments(
    address: str, port: int, workers: Sequence[Worker], temp_dir: Path, ports: Ports | None
) -> list[str]:
    """``ray start`` for the coordinator's machine. ``ports``: as ``_node_arguments`` says."""
    return [
        "--head",
        f"--port={port}",
        f"--temp-dir={temp_dir}",
        "--include-dashboard=false",
        "--include-log-monitor=false",
        "--no-monitor",  # of Ray's autoscaler; its port would show figures to anybody
        *_node_arguments(address, workers, ports),
    ]


def join_arguments(
    head: str, address: str, workers: Sequence[Worker], temp_dir: Path, ports: Ports
) -> list[str]:
    """``ray start`` for a machine that joins. ``head`` is host:port."""
    return [f"--address={head}", f"--temp-dir={temp_dir}", *_node_arguments(address, workers, ports)]


def _node_arguments(address: str, workers: Sequence[Worker], ports: Ports | None) -> list[str]:
    """``ports``: those of this machine that a firewall lets in; None: any that are free, for nobody comes."""
    return [
        *([] if ports is None else _port_arguments(ports)),
        f"--node-ip-address={address}",
        # No task or actor asks for a CPU; Ray starts that many processes ahead, for the actors to take.
        f"--num-cpus={len(workers)}",
        "--num-gpus=0",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--resources={json.dumps(worker_resources(workers))}",
        "--disable-usage-stats",
    ]


def _port_arguments(ports: Ports) -> list[str]:
    return [
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.environment_agent}",
        f"--dashboard-agent-listen-port={ports.agent_http}",
        f"--dashboard-agent-grpc-port={ports.agent_grpc}",
        f"--metrics-export-port={ports.metrics}",
        f"--min-worker-port={ports.first_worker}",
        f"--max-worker-port={ports.last}",
    ]


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it said nothing"])[-1]
