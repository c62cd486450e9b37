"""What a farm loses when one of its processes is killed: jobs, frames, restarts by hand, seconds.

    python benchmarks/chaos.py [--kills 20] [--what worker,stitcher,coordinator,raylet,gcs,head] [--seed 0]

For each kind of process a real ``farm up`` (two CPU workers, ``procedural``) in a folder of its own renders
one job after the other; each time a process of that kind is killed (SIGKILL) at a point of the job that the
seed chooses. The named alternative is the same job undisturbed, a few times on the same farm: the figure is
the median of the seconds from the kill to the published video, less what an undisturbed job still needed with
as many segments done.

A farm that ends is started again at once. That is a service unit's part where the coordinator was killed;
where another process was, it counts as a restart by hand, and so does a farm that has to be made anew. A job
that is not published in time counts as not finished. Results are written after every kill; kinds that are not
asked for are kept as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from farm.state import JOURNAL_NAME

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"
JOB = ["--model", "procedural", "--size", "384x384", "--frames", "120", "--overlap", "3"]
WORKERS = ("--workers", "2GiB,2GiB")
#: By kind, whether a command line is that of such a process.
KINDS: dict[str, Callable[[list[str]], bool]] = {
    "worker": lambda words: words[0].startswith("ray::_Worker"),
    "stitcher": lambda words: "nodes.work.stitch_process" in words,
    "coordinator": lambda words: "farm" in words and "up" in words,
    "raylet": lambda words: words[0].endswith("/raylet"),
    "gcs": lambda words: words[0].endswith("/gcs_server"),
    "head": lambda words: "start" in words and "--head" in words,
}
POLL_S = 0.02
LOG_NAME = "farm-up.log"
UP_TIMEOUT_S = 180.0
#: From a kill to the published video.
JOB_TIMEOUT_S = 240.0


class NotInTime(Exception):
    """What was waited for did not happen."""


def until(fact: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """What ``fact`` gives once it is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := fact():
            return found
        time.sleep(POLL_S)
    raise NotInTime(f"{what} did not happen in {timeout_s:.0f} s")


@dataclass(frozen=True)
class Timeline:
    """When a job's segments were done and its video published, in seconds since it was submitted."""

    done_s: tuple[float, ...]
    published_s: float
    frames_sha256: str

    def left_s(self, num_done: int) -> float:
        """Seconds it still needed when that many segments were done."""
        return self.published_s - self.done_s[num_done - 1]


class RunningFarm:
    """A ``farm up``, what it runs, and what its journal tells."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._environment = {**os.environ, "REELFARM_STATE": str(self.state), "COLUMNS": "200"}
        self.starts = 0
        self._start()
        self.wait_until_up()

    def _start(self) -> None:
        self.starts += 1
        with open(self.folder / LOG_NAME, "ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "farm", "up", "--port", str(self._port), *WORKERS],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_again_if_ended(self) -> None:
        if self._up.poll() is not None:
            self._start()

    def wait_until_up(self) -> None:
        """Both workers are here."""

        def both() -> bool:
            self.start_again_if_ended()
            return self._num_workers() == 2

        until(both, "two workers", UP_TIMEOUT_S)

    def submit(self) -> str:
        """A job's id."""
        deadline = time.monotonic() + UP_TIMEOUT_S
        while True:
            done = subprocess.run(
                [sys.executable, "-m", "farm", "submit", str(PHOTO), *JOB],
                cwd=self.folder,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return done.stdout.strip().split()[-1]
            if time.monotonic() > deadline:
                raise NotInTime(f"no job could be submitted: {done.stderr.strip()}")

    def events(self, *types: str, job_id: str = "") -> list[tuple[float, dict[str, Any]]]:
        """(time, event) of these types, of one job or of all."""
        path = self.state / JOURNAL_NAME
        query = f"SELECT at, body FROM events WHERE type IN ({','.join('?' * len(types))})"
        if job_id:
            query += " AND job_id = ?"
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
                rows = journal.execute(query + " ORDER BY seq", types + ((job_id,) if job_id else ()))
                return [(at, json.loads(body)) for at, body in rows]
        except sqlite3.OperationalError:  # not there yet
            return []

    def _num_workers(self) -> int:
        here: set[str] = set()
        for _, event in self.events("worker_joined", "worker_left"):
            if event["type"] == "worker_joined":
                here.add(event["worker"]["id"])
            else:
                here.discard(event["worker_id"])
        return len(here)

    def num_done(self, job_id: str) -> int:
        return len(self.events("attempt_succeeded", job_id=job_id))

    def ended(self, job_id: str) -> dict[str, Any] | None:
        """The event that ended a job."""
        found = self.events("job_published", "job_failed", job_id=job_id)
        return {"at": found[-1][0], **found[-1][1]} if found else None

    def timeline(self, job_id: str) -> Timeline:
        ((began, _),) = self.events("job_submitted", job_id=job_id)
        ((at, published),) = self.events("job_published", job_id=job_id)
        done = [done - began for done, _ in self.events("attempt_succeeded", job_id=job_id)]
        return Timeline(tuple(done), at - began, published["frames_sha256"])

    def processes(self) -> list[psutil.Process]:
        """Every process of this farm: they have its state folder in their environment, or a parent has."""
        mark = f"REELFARM_STATE={self.state}".encode()
        running = list(psutil.process_iter(["ppid"]))
        own: set[int] = set()
        for process in running:
            with suppress(OSError):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                    own.add(process.pid)
        while more := {p.pid for p in running if p.info["ppid"] in own} - own:
            own |= more
        return [process for process in running if process.pid in own]

    def of_kind(self, kind: str) -> list[psutil.Process]:
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                words = process.cmdline()
                if words and process.status() != psutil.STATUS_ZOMBIE and KINDS[kind](words):
                    found.append(process)
        return found

    def said(self) -> list[str]:
        """Its last words."""
        lines = (self.folder / LOG_NAME).read_text(errors="replace").splitlines()
        return [line[:300] for line in lines[-5:]]

    def close(self) -> None:
        """End it, politely first; what is left of it then is killed."""
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._up.wait(60)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        self._up.wait()


def one_kill(farm: RunningFarm, kind: str, calm: list[Timeline], rng: random.Random) -> dict[str, Any]:
    """Kill a process of this kind in the middle of a job and see it through."""
    num_segments = len(calm[0].done_s)
    after = rng.randint(1, round(0.8 * num_segments))
    # Somewhere within the next segment, not at the moment when one ends.
    wait_s = rng.random() * calm[0].published_s / num_segments
    job_id = farm.submit()
    until(lambda: farm.num_done(job_id) >= after, f"segment {after}", JOB_TIMEOUT_S)
    time.sleep(wait_s)
    victims = until(lambda: farm.of_kind(kind), f"a {kind}", 30.0)
    num_done = farm.num_done(job_id)
    victim = rng.choice(victims)
    killed_at = time.time()
    victim.kill()

    def end() -> dict[str, Any] | None:
        farm.start_again_if_ended()
        return farm.ended(job_id)

    found: dict[str, Any] = {"segments_done": num_done, "of": num_segments, "finished": False, "by_hand": 0}
    try:
        ended = until(end, "the job's end", JOB_TIMEOUT_S)
    except NotInTime as error:
        return found | {"reason": str(error), "said": farm.said()}
    if "frames_sha256" not in ended:
        return found | {"reason": ended["reason"]}
    took_s = ended["at"] - killed_at
    needed_s = statistics.median(timeline.left_s(num_done) for timeline in calm)
    return found | {
        "finished": True,
        "same_frames": ended["frames_sha256"] == calm[0].frames_sha256,
        "kill_to_published_s": round(took_s, 2),
        "undisturbed_s": round(needed_s, 2),
        "lost_s": round(took_s - needed_s, 2),
    }


def undisturbed(farm: RunningFarm, count: int) -> list[Timeline]:
    """The job's way without a kill, a first one left out: after it engines are loaded and pages read.

    One in which a worker left all the same, as on a machine that is too busy for Ray, is no measure.
    """
    timelines: list[Timeline] = []
    first = True
    while len(timelines) < count:
        left = len(farm.events("worker_left"))
        job_id = farm.submit()
        until(lambda: farm.ended(job_id), "the job's end", JOB_TIMEOUT_S)  # noqa: B023
        if not first and len(farm.events("worker_left")) == left:
            timelines.append(farm.timeline(job_id))
        first = False
    if len({timeline.frames_sha256 for timeline in timelines}) != 1:
        raise SystemExit("undisturbed jobs differ in their frames")
    return timelines


def summary(each: list[dict[str, Any]]) -> dict[str, Any]:
    lost = [kill["lost_s"] for kill in each if kill["finished"]]
    return {
        "kills": len(each),
        "finished": sum(kill["finished"] for kill in each),
        "same_frames": sum(kill.get("same_frames", False) for kill in each),
        "by_hand": sum(kill["by_hand"] for kill in each),
        "median_lost_s": round(statistics.median(lost), 2) if lost else None,
        "worst_lost_s": max(lost, default=None),
    }


def measure(kind: str, arguments: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """All kills of one kind; ``keep`` is given what is known after each."""
    rng = random.Random(f"{arguments.seed} {kind}")
    each: list[dict[str, Any]] = []
    calm: list[Timeline] = []
    while len(each) < arguments.kills:
        folder, before = Path(tempfile.mkdtemp(prefix="reelfarm-chaos-")), len(each)
        farm = None
        try:
            farm = RunningFarm(folder)
            calm = undisturbed(farm, arguments.undisturbed)
            while len(each) < arguments.kills:
                starts = farm.starts
                each.append(one_kill(farm, kind, calm, rng))
                farm.wait_until_up()
                if kind != "coordinator":
                    each[-1]["by_hand"] = farm.starts - starts
                tell(kind, each, calm, keep)
        except NotInTime as error:
            if len(each) == before:
                raise SystemExit(f"{kind}: {error} on a fresh farm") from error
            each[-1]["by_hand"] += 1
            each[-1]["afterwards"] = str(error)
            tell(kind, each, calm, keep)
        finally:
            if farm is not None:
                farm.close()
            shutil.rmtree(folder, ignore_errors=True)


def tell(
    kind: str, each: list[dict[str, Any]], calm: list[Timeline], keep: Callable[[dict[str, Any]], None]
) -> None:
    print(f"{kind} {len(each)}: {json.dumps(each[-1])}", file=sys.stderr)
    needed_s = round(statistics.median(timeline.published_s for timeline in calm), 2)
    keep({**summary(each), "undisturbed_job_s": needed_s, "each": each})


def table(kinds: dict[str, Any]) -> str:
    rows = [
        f"{'killed':<12} {'finished':>9} {'same frames':>12} {'by hand':>8} {'median lost':>14} {'worst':>7}"
    ]
    for kind, row in kinds.items():
        n = row["kills"]
        finished, same = f"{row['finished']} of {n}", f"{row['same_frames']} of {n}"
        lost = f"{row['median_lost_s']!s:>14} {row['worst_lost_s']!s:>7}"
        rows.append(f"{kind:<12} {finished:>9} {same:>12} {row['by_hand']:>8} {lost}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--what", default=",".join(KINDS), help="kinds, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--undisturbed", type=int, default=3, help="jobs measured without a kill, by kind")
    parser.add_argument("--note", default="", help="what else the machine did meanwhile")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/chaos.json")
    arguments = parser.parse_args()
    # Ended in the middle, it ends its farm too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    chosen = arguments.what.split(",")
    if unknown := set(chosen) - KINDS.keys():
        parser.error(f"--what: {', '.join(sorted(unknown))} is none of {', '.join(KINDS)}")
    kinds: dict[str, Any] = json.loads(arguments.out.read_text())["kinds"] if arguments.out.exists() else {}
    for kind in chosen:

        def keep(row: dict[str, Any], kind: str = kind) -> None:
            load = {"cores": os.cpu_count(), "load": [round(n, 2) for n in os.getloadavg()]}
            kinds[kind] = {"seed": arguments.seed, **row, "machine": {**load, "note": arguments.note}}
            told = {"job": " ".join(JOB), "kinds": {k: kinds[k] for k in KINDS if k in kinds}}
            arguments.out.write_text(json.dumps(told, indent=2) + "\n")

        measure(kind, arguments, keep)
    print(table({kind: kinds[kind] for kind in chosen}))


if __name__ == "__main__":
    main()
