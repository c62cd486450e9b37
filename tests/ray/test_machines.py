"""Machines that come and go: each "machine" is a network namespace with its own processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.state.events import AttemptSucceeded, TaskAssigned
from farm.state.journal import Journal

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and the ip command (iproute2)"
    ),
]

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
#: Some seconds of work for a worker, and seams that cost little.
JOB = ["--model", "procedural", "--size", "256x256", "--frames", "200", "--overlap", "1"]
HEAD, OTHER = "10.77.31.1", "10.77.31.2"
PORT = "8470"


class Machine:
    """A network namespace with one address, its own process ids and its own state folder."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        #: Runs a command that ends by itself; there as soon as the namespace is.
        self.warm_farm: Callable[..., Any]
        folder.mkdir()
        self.started: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, sys.executable, "-m", "farm", *arguments]

    def environment(self) -> dict[str, str]:
        own = {
            "REELFARM_STATE": str(self.folder / "state"),
            "XDG_STATE_HOME": str(self.folder / "user"),
            "REELFARM_MODELS": str(self.folder / "models"),
        }
        return {**os.environ, **own, "COLUMNS": "200"}

    def start(self, *arguments: str, own_processes: bool = False) -> subprocess.Popen[str]:
        """Start a ``farm`` command. ``own_processes``: killing it kills all it started."""
        command = self.command(*arguments)
        if own_processes:
            apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            command = [*command[:4], *apart, *command[4:]]
        log = open(self.folder / f"{arguments[0]}-{len(self.started)}.log", "w")  # noqa: SIM115
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment(), stdout=log, stderr=log, text=True
        )
        self.started.append(process)
        return process

    def ask(self, *arguments: str, timeout_s: float = 120) -> Any:
        """Run a ``farm`` command to its end, whatever it is."""
        return self.warm_farm(
            *arguments, folder=self.folder, environment=self.environment(), timeout_s=timeout_s
        )

    def run(self, *arguments: str, timeout_s: float = 120) -> str:
        done = self.ask(*arguments, timeout_s=timeout_s)
        assert done.status == 0, done.err
        out: str = done.out
        return out

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(self.folder.glob("*.log")))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines(tmp_path: Path, start_warm_farm: Callable[..., Any]) -> Iterator[tuple[Machine, Machine]]:
    """Two machines on one wire."""
    head = Machine(f"rfh{os.getpid()}", HEAD, tmp_path / "head")
    other = Machine(f"rfo{os.getpid()}", OTHER, tmp_path / "other")
    for machine in (head, other):
        ip("netns", "add", machine.name)
    ip("link", "add", "eth0", "netns", head.name, "type", "veth", "peer", "name", "eth0", "netns", other.name)
    for machine in (head, other):
        ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            ip("-n", machine.name, "link", "set", link, "up")
        machine.warm_farm = start_warm_farm("ip", "netns", "exec", machine.name)
    yield head, other
    for machine in (other, head):
        for process in machine.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in machine.started:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = subprocess.run(
            ["ip", "netns", "pids", machine.name], capture_output=True, text=True, check=True
        ).stdout.split()
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
        ip("netns", "del", machine.name)


def until(
    condition: Callable[[], Any], what: str, machines: tuple[Machine, ...], timeout_s: float = 90
) -> Any:
    deadline = time.monotonic() + timeout_s
    while (began := time.monotonic()) < deadline:
        found = condition()
        if found:
            return found
        time.sleep(max(0.05, time.monotonic() - began))
    raise AssertionError(f"{what} did not happen\n" + "\n".join(m.logs() for m in machines))


def is_up(head: Machine) -> bool:
    """It says so, which is a moment before it listens, and answers."""
    said = (head.folder / "state" / "endpoint.json").exists() and "farm is up" in head.logs()
    return said and head.ask("nodes").status == 0


def workers_of(head: Machine) -> list[dict[str, Any]]:
    return [worker for node in json.loads(head.run("nodes", "--json")) for worker in node["workers"]]


def nodes_of(head: Machine) -> set[str]:
    return {worker["node"] for worker in workers_of(head)}


def report(head: Machine, job_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(head.run("report", job_id, "--json"))
    return told


def rendered_by(head: Machine, node: str) -> int:
    """Segments that workers of a machine have rendered, read from the journal: at once, or they go on."""
    journal = Journal(head.folder / "state" / "journal.sqlite")
    try:
        events = [event for _, _, event in journal.events()]
    finally:
        journal.close()
    of_node = {
        e.attempt_id for e in events if isinstance(e, TaskAssigned) and e.worker_id.startswith(f"{node}/")
    }
    return sum(isinstance(e, AttemptSucceeded) and e.attempt_id in of_node for e in events)


def test_machines_join_a_running_job_leave_it_and_die_and_the_video_is_right(
    machines: tuple[Machine, Machine], undisturbed_sha256: Callable[..., str]
) -> None:
    head, other = machines
    head.start("up", "--listen", HEAD, "--port", PORT, "--workers", "8GiB", "--name", "head")
    until(lambda: is_up(head) and nodes_of(head) == {"head"}, "the farm", machines)
    line = next(line for line in head.logs().splitlines() if line.startswith("add a machine: "))
    join = line.removeprefix("add a machine: farm ").split()
    job_id = head.run("submit", str(PHOTO), *JOB).strip()
    until(lambda: rendered_by(head, "head") >= 1, "work of the first machine", machines)
    head.run("drain", "head")  # or it would be done with the job before another machine is here
    until(lambda: [w["status"] for w in workers_of(head)] == ["drained"], "the drain", machines)

    # One joins, once, and leaves.
    first = other.start(*join, "--name", "attic", "--workers", "8GiB")
    until(lambda: rendered_by(head, "attic") >= 2, "work of the new machine", machines)
    other.run("leave")
    assert first.wait(30) == 0
    until(lambda: nodes_of(head) == {"head"}, "the machine being gone", machines)
    told = report(head, job_id)
    outcomes = {a["outcome"] for s in told["segments"] for a in s["attempts"]}
    assert outcomes == {"succeeded"}, "leaving loses no attempt"
    assert told["status"] == "running", "the job waits for the next machine"
    again = subprocess.run(
        other.command(*join, "--state", str(other.folder / "second"), "--workers", "8GiB"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "token" in again.stderr
    assert "Traceback" not in again.stderr

    # The same one joins again under the same name, and is cut off.
    before = rendered_by(head, "attic")
    token = head.run("join-token").strip()
    joined = other.start(
        "join", f"{HEAD}:{PORT}", "--token", token, "--name", "attic", "--workers", "12GiB,12GiB",
        own_processes=True,
    )  # fmt: skip
    until(lambda: rendered_by(head, "attic") >= before + 2, "more of its work", machines)
    joined.kill()
    until(lambda: nodes_of(head) == {"head"}, "the loss being noticed", machines)
    assert report(head, job_id)["status"] == "running"

    head.run("enable", "head")
    head.run("watch", job_id, "-o", "v.mp4", timeout_s=240)
    assert [w["status"] for w in workers_of(head)] == ["idle"]
    told = report(head, job_id)
    assert told["status"] == "succeeded"
    assert (head.folder / "v.mp4").stat().st_size > 0
    # The same job with nobody joining, leaving or dying has the same frames.
    assert told["totals"]["frames_sha256"] == undisturbed_sha256(
        model="procedural", width=256, height=256, num_frames=200, overlap_frames=1
    )


@pytest.mark.long
@pytest.mark.torch
def test_a_machine_without_a_jobs_model_takes_it_from_the_farms_own(
    machines: tuple[Machine, Machine],
) -> None:
    head, other = machines
    mine = head.folder / "mine" / "my-style"
    shutil.copytree(PHOTO.parents[1] / "models" / "tiny_wan", mine, ignore=shutil.ignore_patterns("recipe"))
    head.run("models", "add", str(mine))
    head.start("up", "--listen", HEAD, "--port", PORT, "--workers", "none", "--name", "head")
    until(lambda: is_up(head), "the farm", machines)
    token = head.run("join-token").strip()
    other.start("join", f"{HEAD}:{PORT}", "--token", token, "--name", "attic", "--workers", "8GiB,8GiB")
    until(lambda: nodes_of(head) == {"attic"}, "the join", machines)
    asked = ("--model", "my-style", "--frames", "9", "--size", "128x128", "--preview", "--prompt", "zoom in")
    head.run("submit", str(PHOTO), *asked, "--watch", "-o", "v.mp4", timeout_s=240)
    for path in (head.folder / "models" / "my-style").rglob("*"):
        if path.is_file():
            came = other.folder / "models" / path.relative_to(head.folder / "models")
            assert came.read_bytes() == path.read_bytes()
    assert not (other.folder / "models" / ".coming" / "my-style").exists()


@pytest.mark.long
def test_a_machine_comes_back_by_itself_when_the_heads_ray_was_killed(
    machines: tuple[Machine, Machine],
) -> None:
    head, other = machines
    up = head.start("up", "--listen", HEAD, "--port", PORT, "--workers", "none", "--name", "head")
    until(lambda: is_up(head), "the farm", machines)
    token = head.run("join-token").strip()
    other.start("join", f"{HEAD}:{PORT}", "--token", token, "--name", "attic", "--workers", "8GiB")
    until(lambda: nodes_of(head) == {"attic"}, "the join", machines)
    os.kill(json.loads((head.folder / "state" / "head.json").read_text())["pid"], signal.SIGKILL)
    until(lambda: "attic is in the farm again" in other.logs(), "the return", machines, timeout_s=180)
    job = ("--model", "procedural", "--frames", "20", "--size", "64x64")
    head.run("submit", str(PHOTO), *job, "--watch", "-o", "v.mp4", timeout_s=240)
    assert up.poll() is None
    other.run("leave")


@pytest.mark.long
def test_a_removed_machine_is_out_with_all_it_knows_and_the_others_come_back_while_a_job_goes_on(
    machines: tuple[Machine, Machine], undisturbed_sha256: Callable[..., str]
) -> None:
    head, other = machines
    head.start("up", "--listen", HEAD, "--port", PORT, "--workers", "none", "--name", "head")
    until(lambda: is_up(head), "the farm", machines)
    joined = {}
    for name, ports in (("attic", "8471-8599"), ("cellar", "9471-9599")):  # both on one machine
        token = head.run("join-token").strip()
        where = ("--state", str(other.folder / name), "--ports", ports)
        joined[name] = other.start(
            "join", f"{HEAD}:{PORT}", "--token", token, "--name", name, "--workers", "8GiB", *where
        )
    until(lambda: nodes_of(head) == {"attic", "cellar"}, "both machines", machines, timeout_s=180)
    job_id = head.run("submit", str(PHOTO), *JOB).strip()
    for name in ("attic", "cellar"):
        until(lambda: rendered_by(head, name) >= 1, f"work of {name}", machines)  # noqa: B023
    before = json.loads((head.folder / "state" / "head.json").read_text())

    assert "attic is out" in head.run("remove", "attic")
    assert nodes_of(head) <= {"cellar"}
    until(lambda: "cellar is in the farm again" in other.logs(), "its return", machines, timeout_s=180)
    until(lambda: nodes_of(head) == {"cellar"}, "its worker", machines, timeout_s=180)
    assert joined["attic"].wait(180) == 2
    assert "attic was removed from the farm" in other.logs()

    after = json.loads((head.folder / "state" / "head.json").read_text())
    assert after["address"] == before["address"]
    assert after["token"] != before["token"]
    environment = Path(f"/proc/{after['pid']}/environ").read_bytes()
    assert f"RAY_AUTH_TOKEN={after['token']}".encode() in environment
    head.run("watch", job_id, timeout_s=240)
    told = report(head, job_id)
    outcomes = {a["outcome"] for s in told["segments"] for a in s["attempts"]}
    assert outcomes <= {"succeeded", "cancelled"}, "nobody is blamed"
    assert told["totals"]["frames_sha256"] == undisturbed_sha256(
        model="procedural", width=256, height=256, num_frames=200, overlap_frames=1
    )
    assert joined["cellar"].poll() is None


#: Lets out what it likes and nothing in, as ufw and Windows do by default.
CLOSED = """
table inet closed {
 chain in {
  type filter hook input priority 0; policy drop;
  iif lo accept
  ct state established,related accept
 }
}
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (nftables)")
def test_a_closed_port_is_named_and_a_machine_that_was_cut_off_or_restarted_comes_back(
    machines: tuple[Machine, Machine],
) -> None:
    head, other = machines
    head.start("up", "--listen", HEAD, "--port", PORT, "--workers", "none", "--name", "head")
    until(lambda: is_up(head), "the farm", machines)
    token = head.run("join-token").strip()
    join = ("join", f"{HEAD}:{PORT}", "--name", "attic", "--workers", "8GiB,8GiB")
    doctor = ("doctor", "--join", f"{HEAD}:{PORT}", "--json")

    def firewall(*arguments: str, rules: str | None = None, of: Machine = other) -> None:
        command = ["ip", "netns", "exec", of.name, "nft", *arguments]
        subprocess.run(command, input=rules, text=True, check=True)

    firewall("-f", "-", rules=CLOSED)
    refused = other.ask(*join, "--token", token)
    assert refused.status == 3
    assert f"cannot reach this machine, {OTHER}, on port 8473-8474, 8479-8599" in refused.err
    assert f"ufw allow proto tcp from {HEAD} to any port 8471:8599" in refused.err
    looked = other.ask(*doctor)
    assert looked.status == 3
    assert any("on port 8473-8474, 8479-8599" in finding["text"] for finding in json.loads(looked.out))
    firewall("delete", "table", "inet", "closed")
    assert "reach each other" in other.run(*doctor)

    # The token was not used up.
    joined = other.start(*join, "--token", token, own_processes=True)
    until(lambda: nodes_of(head) == {"attic"}, "the join", machines)
    workers = {worker["id"] for worker in workers_of(head)}

    # What is closed later is named, too, by whoever is not let in; connections that are there stay.
    for closed, by, name, port in ((other, head, "attic", 8473), (head, other, "the farm's machine", 8471)):
        firewall("-f", "-", rules=CLOSED, of=closed)
        said = f"does not reach port {port}-8474 of {name}, {closed.address}, any more"
        until(lambda: said in by.logs(), "word of the closed ports", machines, timeout_s=15)  # noqa: B023
        ufw = f"ufw: sudo ufw allow proto tcp from {by.address} to any port {port}:8474"
        assert any(line.endswith(ufw) for line in by.logs().splitlines()), "it can be pasted"
        assert {worker["id"] for worker in workers_of(head)} == workers
        firewall("delete", "table", "inet", "closed", of=closed)
        until(lambda: f"{name} is reached again" in by.logs(), "the return", machines)  # noqa: B023
    ip("-n", other.name, "link", "set", "eth0", "down")
    until(lambda: nodes_of(head) == set(), "the loss being noticed", machines)
    ip("-n", other.name, "link", "set", "eth0", "up")
    until(lambda: {w["id"] for w in workers_of(head)} == workers, "the return", machines, timeout_s=180)
    assert joined.poll() is None

    joined.kill()  # as a machine that is restarted
    until(lambda: nodes_of(head) == set(), "the loss being noticed", machines)
    other.start(*join)
    until(lambda: {w["id"] for w in workers_of(head)} == workers, "the return", machines)
    job = ("--model", "procedural", "--frames", "20", "--size", "64x64")
    head.run("submit", str(PHOTO), *job, "--watch", "-o", "v.mp4", timeout_s=240)
    other.run("leave")


@pytest.mark.long
def test_a_machine_that_was_cut_off_for_two_minutes_has_its_place_and_its_workers_and_no_late_word_counts(
    machines: tuple[Machine, Machine], undisturbed_sha256: Callable[..., str]
) -> None:
    head, other = machines
    head.start("up", "--listen", HEAD, "--port", PORT, "--workers", "none", "--name", "head")
    until(lambda: is_up(head), "the farm", machines)
    token = head.run("join-token").strip()
    joined = other.start(
        "join", f"{HEAD}:{PORT}", "--token", token, "--name", "attic", "--workers", "8GiB,8GiB"
    )
    until(lambda: nodes_of(head) == {"attic"}, "the join", machines)
    workers = {worker["id"] for worker in workers_of(head)}
    job_id = head.run("submit", str(PHOTO), *JOB).strip()
    until(lambda: rendered_by(head, "attic") >= 1, "work of the machine", machines)

    ip("-n", other.name, "link", "set", "eth0", "down")
    cut_off_at = time.monotonic()
    until(lambda: nodes_of(head) == set(), "the loss being noticed", machines)
    lost = [a for s in report(head, job_id)["segments"] for a in s["attempts"] if a["outcome"] == "lost"]
    assert lost, "it was in the middle of its work"
    time.sleep(max(0.0, cut_off_at + 120 - time.monotonic()))
    assert report(head, job_id)["status"] == "running"
    ip("-n", other.name, "link", "set", "eth0", "up")

    until(lambda: {w["id"] for w in workers_of(head)} == workers, "the return", machines, timeout_s=180)
    assert joined.poll() is None, "`farm join` has stayed"
    head.run("watch", job_id, timeout_s=240)
    told = report(head, job_id)
    assert told["status"] == "succeeded"
    by_segment = [[a["outcome"] for a in s["attempts"]] for s in told["segments"]]
    assert all(outcomes.count("succeeded") == 1 for outcomes in by_segment)
    assert told["totals"]["frames_sha256"] == undisturbed_sha256(
        model="procedural", width=256, height=256, num_frames=200, overlap_frames=1
    )


@pytest.fixture
def ssh_access(machines: tuple[Machine, Machine], tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """An SSH server on the other machine, and the key that opens it: (key, port)."""
    _, other = machines
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(sshd).exists():
        pytest.skip("needs sshd (openssh-server)")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    shutil.copy(keys / "user.pub", keys / "authorized_keys")
    config = keys / "sshd_config"
    config.write_text(
        f"Port 2222\nListenAddress {OTHER}\nHostKey {keys / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {keys / 'authorized_keys'}\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    server = subprocess.Popen(
        ["ip", "netns", "exec", other.name, *apart, sshd, "-D", "-e", "-f", str(config)],
        stderr=open(other.folder / "sshd.log", "w"),  # noqa: SIM115
    )
    yield keys / "user", 2222
    server.kill()
    server.wait()


@pytest.mark.long
def test_the_machines_of_a_cluster_file_are_started_over_ssh_and_leave_with_the_farm(
    machines: tuple[Machine, Machine], ssh_access: tuple[Path, int]
) -> None:
    head, other = machines
    key, port = ssh_access
    cluster = head.folder / "cluster.yaml"
    over_there = f"env REELFARM_STATE={other.folder / 'state'} {sys.executable} -m farm"
    cluster.write_text(
        f"head: {{listen: {HEAD}, port: {PORT}, workers: none}}\n"
        "machines:\n"
        f"  - {{name: attic, address: {OTHER}, ssh_user: root, ssh_port: {port}, ssh_key: {key},\n"
        f"     farm: {json.dumps(over_there)}, workers: [12GiB, 8GiB], price_per_hour: 0.06}}\n"
        "  - {name: nowhere, address: 10.77.31.77, workers: [8GiB]}\n"
    )
    up = head.start("up", "--cluster", str(cluster))
    until(lambda: is_up(head) and nodes_of(head) == {"attic"}, "the machine started over SSH", machines)
    assert sorted(w["vram_bytes"] >> 30 for w in workers_of(head)) == [8, 12]
    until(lambda: "nowhere ended" in head.logs(), "word of the machine that cannot be reached", machines)
    job = ("--model", "procedural", "--frames", "20", "--size", "64x64")
    head.run("submit", str(PHOTO), *job, "--watch", "-o", "v.mp4")
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0
    assert not (other.folder / "state" / "member.json").exists(), "the machine has left"
