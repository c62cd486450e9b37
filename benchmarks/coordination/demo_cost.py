"""What ``make demo`` costs, and its preview: wall time, seconds to the first segment, peak memory.

    python benchmarks/coordination/demo_cost.py

Memory is proportional set size (each shared page counted once, shared out), summed over the command and all
its descendants, sampled twice a second. The named alternative is the same video rendered in one process
by one worker with all the cores, without Ray.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from farm.capabilities.worker import GIB, Worker
from farm.request.job import JobRequest
from farm.request.options import DEFAULT_MODEL
from farm.state.events import JobPublished, TaskAssigned
from farm.state.journal import Journal
from nodes.hosting.host import coordinating, take_in
from nodes.work.local_cluster import LocalCluster

ROOT = Path(__file__).parents[2]
#: A look at every process takes tens of milliseconds of a core.
SAMPLE_INTERVAL_S = 0.5


def demo_command() -> list[str]:
    """The command of ``make demo``, read from the Makefile."""
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    line = next(line for line in lines if "farm render" in line)
    words = line.strip().split("farm render", 1)[1]
    return [sys.executable, "-m", "farm", "render", *shlex.split(words)]


def memory_bytes(process: psutil.Process) -> int:
    """Proportional set size of a process and its descendants."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def on_ray(folder: Path, *more: str) -> dict[str, float]:
    """The demo as a user runs it, with more options."""
    command = [*demo_command(), *more, "--state", str(folder / "state")]
    command[command.index("-o") + 1] = str(folder / "demo.mp4")
    began_at, started = time.time(), time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    process = psutil.Process(child.pid)
    reading = threading.Thread(target=child.stderr.read if child.stderr else lambda: b"", daemon=True)
    reading.start()
    while child.poll() is None:
        try:
            peak = max(peak, memory_bytes(process))
        except psutil.Error:
            break
        time.sleep(SAMPLE_INTERVAL_S)
    wall_s = time.perf_counter() - started
    if child.wait() != 0:
        raise SystemExit("the demo failed")
    journal = Journal(folder / "state" / "journal.sqlite")
    first = next(at for _, at, event in journal.events() if isinstance(event, TaskAssigned))
    published = next(event for _, _, event in journal.events() if isinstance(event, JobPublished))
    attempts = sum(isinstance(event, TaskAssigned) for _, _, event in journal.events())
    return {
        "wall_s": wall_s,
        "first_segment_s": first - began_at,
        "peak_memory_gb": peak / 1e9,
        "num_frames": published.num_frames,
        "attempts": attempts,
        "load_average_after": psutil.getloadavg()[0],
    }


def in_one_process(folder: Path) -> float:
    """Seconds of the same video by one worker of this process."""
    words = demo_command()
    value = {words[i]: words[i + 1] for i in range(len(words) - 1) if words[i].startswith("-")}
    photo = next(ROOT / word for word in words if word.startswith("examples/"))

    async def render() -> None:
        worker = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
        async with coordinating(folder, LocalCluster([worker])) as coordinator:
            options: dict[str, Any] = {
                "model": value.get("--model", DEFAULT_MODEL),
                # Two workers choose it; one alone would render a chain.
                "mode": "infill",
                "prompts": (value["--prompt"],),
                "seconds": float(value["--seconds"]),
            }
            if "--overlap" in value:
                options["overlap_frames"] = int(value["--overlap"])
            if "--size" in value:
                options["width"], options["height"] = map(int, value["--size"].split("x"))
            job_id = coordinator.submit(JobRequest(inputs=take_in([photo], folder), **options))
            async for _ in coordinator.ledger.follow(job_id):
                pass

    started = time.perf_counter()
    asyncio.run(render())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/demo_cost.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = on_ray(Path(folder) / "demo")
        result["preview"] = on_ray(Path(folder) / "preview", "--preview")
        result["one_process_s"] = in_one_process(Path(folder) / "one")
    result["ratio_to_one_process"] = result["wall_s"] / result["one_process_s"]
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
