"""How the schedule grows: up to 10,000 workers under a virtual clock, beside two plain ways to share out.

    python -m benchmarks.farmsim [--case NAME ...] [--seed 1 ...] [--decisions 50000] [--out ...json]

The ledger with its journal, the state and the schedule are the real ones; workers, failures and the times
segments take are drawn. Four kinds of cards, a quarter each, take 1, 1.6, 2.5 and 6 times as long. Every
event is audited, everything every 10,000 events (``simulated/audit.py``). CPU seconds are of this process,
the garbage collector's pauses counted; ``decisions_per_s`` is of schedule and recording, not of audits.
The rivals have neither failures nor noise. ``bound_s`` is what no schedule can beat: all work over all speed,
or the longest chain. ``peak_memory_gb`` is of the process, the cases before included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.simulated.audit import Audit
from benchmarks.simulated.jobs import MODES, cards, submitted
from benchmarks.simulated.pages import asked
from benchmarks.simulated.rivals import pulled, split_evenly
from benchmarks.simulated.simulation import Simulation, Weather

#: name -> workers, segments, jobs, people, mixed memory and modes, what goes wrong
CASES: dict[str, dict[str, Any]] = {
    "64 x 2,000": {"workers": 64, "segments": 2_000},
    "1,200 x 6,000": {"workers": 1_200, "segments": 6_000},
    "1,200 x 24,000, mixed memory, 1 % lost": {
        "workers": 1_200,
        "segments": 24_000,
        "jobs": 12,
        "people": 4,
        "memory": True,
        "weather": Weather(lost=0.01),
    },
    "10,000 x 1,000,000": {
        "workers": 10_000,
        "segments": 1_000_000,
        "jobs": 200,
        "people": 20,
        "memory": True,
    },
}
SEEDS = 200
#: Segments of the largest farm on which the plain ways are tried, too.
MOST_FOR_RIVALS = 24_000


def measured(case: dict[str, Any], folder: Path, at_most: int | None, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    workers = cards(case["workers"], draw, memory=case.get("memory", False))
    num_jobs = case.get("jobs", 1)
    jobs = [
        (0.0, submitted(f"job{n}", case["segments"] // num_jobs, person=f"person{n % case.get('people', 1)}"))
        for n in range(num_jobs)
    ]
    audit = Audit()
    farm = Simulation(
        folder,
        workers,
        jobs,
        seed=seed,
        weather=case.get("weather", Weather()),
        audit=audit,
        at_most=at_most,
    )
    farm.measure_workers(submitted("before", case["workers"]))
    began = farm.now
    farm.told.record_s = 0.0
    farm.run(lambda: print(told_so_far(farm), file=sys.stderr, flush=True))
    told, whole = farm.told, farm.finished
    if whole:
        audit.end(farm.ledger.state)
    else:
        audit.full(farm.ledger.state)
    calls = sorted(told.calls_s)
    bound_s = farm.bound_s(jobs)
    row = {
        "decisions": told.decisions,
        "decisions_per_s": round(told.decisions / (told.schedule_s + told.record_s)),
        "schedule_us": round(1e6 * told.schedule_s / len(calls)),
        "record_us_a_decision": round(1e6 * told.record_s / told.decisions),
        "submit_ms_a_job": round(1e3 * told.submit_s / num_jobs, 1),
        "worst_call_ms": round(1e3 * calls[-1], 1),
        "second_worst_call_ms": round(1e3 * calls[-2], 1),
        "longest_gc_ms": round(1e3 * told.gc_s, 1),
        "copies_share": round(told.copies / told.decisions, 4),
        "bound_s": round(bound_s, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    row["asked"] = asked(farm, jobs[-1][1])
    if whole:
        makespan = farm.done_at - began
        row |= {
            "makespan_over_bound": round(makespan / bound_s, 4),
            "idle_share": round(1 - farm.worked_s / (makespan * len(workers)), 4),
        }
    if whole and case["segments"] <= MOST_FOR_RIVALS:
        row["rivals"] = {
            "pulled_over_bound": round(pulled(farm, jobs) / bound_s, 4),
            "split_over_bound": round(split_evenly(farm, jobs) / bound_s, 4),
        }
    return row


def told_so_far(farm: Simulation) -> str:
    told, held = farm.told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (
        f"{time.strftime('%X')} {told.decisions:,} decisions: {told.schedule_s:.0f} s deciding, "
        f"{told.record_s:.0f} s recording, worst call {1e3 * max(told.calls_s):.1f} ms, "
        f"collector {1e3 * told.gc_s:.1f} ms, {held:.2f} GB"
    )


def small_farms(folder: Path) -> list[str]:
    """What breaks on so many of them."""
    said = []
    for seed in range(SEEDS):
        (own := folder / str(seed)).mkdir()
        said.append(broken(seed, own))
        shutil.rmtree(own)
        if seed % 20 == 19:
            print(f"{time.strftime('%X')} {seed + 1} seeds", file=sys.stderr, flush=True)
    return [text for text in said if text]


def broken(seed: int, folder: Path) -> str | None:
    """What breaks on a small farm on which everything happens; None: nothing."""
    draw = random.Random(seed)
    try:
        small_farm(draw, folder)
    except AssertionError as error:
        return f"seed {seed}: {error}"
    return None


def small_farm(draw: random.Random, folder: Path) -> Simulation:
    """At most 64 workers and 500 segments: jobs of every mode, people, failures, machines that come, are
    drained and go, kills of the coordinator."""
    workers = cards(draw.randint(2, 64), draw)
    num_jobs = draw.randint(1, 5)
    jobs = []
    for number in range(num_jobs):
        event = submitted(
            f"job{number}",
            draw.randint(2, 430 // num_jobs),  # and drafts and keyframes
            mode=draw.choice(MODES),
            person=f"person{draw.randint(0, 2)}",
            large=draw.random() < 0.3 and any(worker.vram_bytes > 8 << 30 for worker in workers),
        )
        jobs.append((draw.uniform(0, 60), event))
    audit = Audit(full_every=500)
    # Of every size one stays: whatever is asked for can be held.
    stay = {worker.vram_bytes: worker for worker in workers}
    comes_and_goes = [w for w in workers if stay[w.vram_bytes] is not w and draw.random() < 0.25]
    farm = Simulation(
        folder,
        workers,
        jobs,
        seed=draw.randint(0, 1 << 30),
        weather=Weather(lost=0.01, error=0.01, straggles=0.02, drains=0.02, noise=0.2),
        audit=audit,
        kills=frozenset(draw.sample(range(len(workers) + num_jobs + 1, 900), 3)),
        joins={worker.id: draw.uniform(1, 60) for worker in comes_and_goes[::2]},
        leaves={worker.id: draw.uniform(60, 120) for worker in comes_and_goes},
    )
    farm.run()
    audit.end(farm.ledger.state)
    return farm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", action="append", choices=[*CASES, "seeds"])
    parser.add_argument("--decisions", type=int, help="of each case, at most; all where not given")
    parser.add_argument("--seed", type=int, action="append", help="of cards and failures; 1 where not given")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    seeds = args.seed or [1]
    found: dict[str, Any] = {}
    for name in args.case or ["seeds", *CASES]:
        for seed in seeds if name in CASES else [0]:
            started = time.monotonic()
            told = name if len(seeds) == 1 or name not in CASES else f"{name}, seed {seed}"
            with tempfile.TemporaryDirectory() as folder:
                if name in CASES:
                    found[told] = measured(CASES[name], Path(folder), args.decisions, seed)
                else:
                    found[told] = {"seeds": SEEDS, "broken": small_farms(Path(folder))}
            if args.out:
                args.out.write_text(written(found))
            print(told, json.dumps(found[told]), f"({time.monotonic() - started:.0f} s)", file=sys.stderr)
    print(json.dumps(found, indent=1))


def written(found: dict[str, Any]) -> str:
    """The results so far: a case of an hour is worth keeping when the next one fails."""
    machine = {"cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}
    command = "python -m benchmarks.farmsim " + shlex.join(sys.argv[1:])
    return json.dumps({"command": command, "machine": machine, "cases": found}, indent=1) + "\n"


if __name__ == "__main__":
    main()
