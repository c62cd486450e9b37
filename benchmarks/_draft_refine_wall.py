"""One job on 1, 2 and 4 GPUs of one host: the part ``wall`` of benchmarks/draft_refine.py."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._draft_refine import (
    IMAGE_NAME,
    Asked,
    Crew,
    Hand,
    Join,
    render_segment,
    scratch_folder,
)
from benchmarks._draft_refine_figures import save
from benchmarks._draft_refine_videos import FPS, Row, job_plans, videos_of
from benchmarks.held_out import FRAME_PX
from farm.planning.plan import Plan
from farm.planning.predict import longest_path, makespan
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec


def wall(arguments: argparse.Namespace) -> None:
    deadline = time.monotonic() + arguments.minutes * 60
    asked = Asked(arguments.frames, FPS, FRAME_PX, arguments.steps)
    counts: list[int] = arguments.gpus
    spawn = multiprocessing.get_context("spawn")
    results: list[Row] = []
    with (
        Crew(arguments.model, arguments.device, max(counts), max(counts)) as crew,
        scratch_folder() as parent,
    ):
        ours, theirs = spawn.Pipe()
        joiner = spawn.Process(target=_join_jobs, args=(theirs,), daemon=True)
        joiner.start()
        theirs.close()
        video = videos_of(1)[0]
        spec = i2vgen_xl_spec(arguments.model, model=arguments.model.name)
        plans = job_plans(parent, video, asked, spec)
        crew.wait_until_loaded()
        ours.recv()
        # First what the rest is compared with, last what can only be as it was.
        order = [("chain", counts[0]), *(("refine", n) for n in counts), *(("chain", n) for n in counts[1:])]
        made: Row = {"command": "python benchmarks/draft_refine.py wall", "model": spec.model}
        made |= asdict(asked) | crew.facts()
        made |= {"carried_out_by": "a process a GPU on one host, without Ray; no video file is encoded"}
        for mode, count in order:
            folder = parent / f"{mode}-{count}"
            folder.mkdir()
            (folder / IMAGE_NAME).write_bytes((parent / IMAGE_NAME).read_bytes())
            chosen = sorted(crew.idle(), key=lambda h: h.number)[:count]
            if len(chosen) < count or time.monotonic() > deadline:
                print(f"left out: {mode} on {count} GPUs (time over, or too few processes)", flush=True)
                continue
            try:
                found = run_job(crew, chosen, ours, plans[mode], folder, deadline)
            except (RuntimeError, OSError, EOFError) as error:
                # Calls of this run may still be under way: no other run is clean.
                print(f"{mode} on {count} GPUs failed, and what comes after is left out: {error}", flush=True)
                break
            if found is None:
                print(f"left out: {mode} on {count} GPUs did not end in time", flush=True)
                break
            results.append({"mode": mode, "gpus": count, **found})
            print(f"{mode} on {count} GPUs: {found['wall_s']:.2f} s", flush=True)
            save(arguments.out, "wall", {"made": made, **wall_summary(results, plans)})
        joiner.kill()
    if results:
        print_wall(json.loads(arguments.out.read_text())["wall"])


def run_job(
    crew: Crew, hands: list[Hand], joiner: Any, plan: Plan, folder: Path, deadline: float
) -> Row | None:
    """Carry a plan out: whoever is free takes the first segment that is ready. None: not in time.

    Raises:
        RuntimeError: a process failed or died.
    """
    waiting = list(plan.segments)
    seconds: dict[str, float] = {}
    to_join = list(plan.final_segments)
    joiner.send((folder, plan.num_frames))
    started = time.perf_counter()
    rendered_s = 0.0
    while True:
        for hand in (h for h in hands if h.busy_with is None):
            ready = next((s for s in waiting if all(d in seconds for d in s.depends_on)), None)
            if ready is None:
                break
            waiting.remove(ready)
            crew.call(hand, render_segment, plan, ready, folder, about=ready)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        for heard in crew.hear(left_s, joiner):
            if heard.call is None:
                continue
            if heard.kind != "done":
                raise RuntimeError(f"segment {heard.call.id} {heard.kind}: {heard.value}")
            seconds[heard.call.id] = heard.value
            rendered_s = time.perf_counter() - started
        while to_join and to_join[0].id in seconds:
            joiner.send(to_join.pop(0))
            if not to_join:
                joiner.send(None)
        if joiner.poll():
            kind, value = joiner.recv()
            if kind != "done":
                raise RuntimeError(f"the join failed: {value}")
            return {
                "wall_s": round(time.perf_counter() - started, 3),
                "rendered_s": round(rendered_s, 3),
                "work_s": round(sum(seconds.values()), 3),
                "critical_path_s": round(longest_path(plan, lambda segment: seconds[segment.id]), 3),
                "seams": len(value),
                "seams_passed": sum(seam["passed"] for seam in value),
            }


def _join_jobs(connection: Any) -> None:
    """A process that joins one video after the other: its folder and length, its segments in order, None."""
    connection.send("ready")
    while True:
        try:
            folder, num_frames = connection.recv()
        except EOFError:
            return
        try:
            join = Join(folder)
            while (segment := connection.recv()) is not None:
                join.add(segment)
            join.finish(num_frames)
            connection.send(("done", join.seams))
        except Exception as error:
            connection.send(("failed", f"{type(error).__name__}: {error}"))


def wall_summary(results: list[Row], plans: dict[str, Plan]) -> Row:
    """Each run's speed-up over chain on the fewest GPUs, and what its plan predicts from that run."""
    base = results[0]
    second_per_work = base["work_s"] / plans["chain"].mpixel_steps
    rows = []
    for run in results:
        predicted_s = makespan(plans[run["mode"]], run["gpus"]) * second_per_work
        speedups = {
            "speedup": round(base["wall_s"] / run["wall_s"], 2),
            "predicted_rendered_s": round(predicted_s, 3),
            "predicted_speedup": round(
                makespan(plans["chain"], base["gpus"]) * second_per_work / predicted_s, 2
            ),
        }
        rows.append(run | speedups)
    on_one = {run["mode"]: run for run in reversed(rows) if run["gpus"] == base["gpus"]}
    ratios = None
    if "refine" in on_one:
        ratios = {
            name: round(on_one["refine"][f"{name}_s"] / on_one["chain"][f"{name}_s"], 3)
            for name in ("critical_path", "work")
        }
    return {"runs": sorted(rows, key=lambda r: (r["mode"], r["gpus"])), "refine_over_chain_on_fewest": ratios}


def print_wall(found: Row) -> None:
    print(
        f"{'mode':8}{'GPUs':>5}{'wall s':>9}{'times':>10}{'rendered s':>12}{'predicted s':>13}{'times':>10}"
    )
    for run in found["runs"]:
        print(
            f"{run['mode']:8}{run['gpus']:5}{run['wall_s']:9.2f}{run['speedup']:10.2f}{run['rendered_s']:12.2f}"
            f"{run['predicted_rendered_s']:13.2f}{run['predicted_speedup']:10.2f}"
        )
    print(f"refine over chain, one GPU's seconds: {found['refine_over_chain_on_fewest']}")
