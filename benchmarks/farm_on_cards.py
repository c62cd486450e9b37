"""The whole farm over this machine's cards: one, some, all of them; equal and mixed limits; one killed.

Ray, coordinator, joiner and workers run as ``farm render`` runs them, with a model of full size and random
weights. Each case is a farm of its own: a short job brings the model to every worker (``cold``: from a
worker's first order to its first step), then the timed job runs with the model loaded. Random weights make
noise, which passes no gate of a seam: each segment is rendered once (``retakes: false`` in the output) unless
``--retakes``.

    python -m benchmarks.farm_on_cards --home /dev/shm/models --out $OUT/cards.json --pictures $OUT \\
        --frames 96 --cases equal:1 equal:2 equal:4 killed:4 --budget-s 560
    python -m benchmarks.farm_on_cards --model a14b --mode infill --frames 321 --steps 4 --size 832x480 ...
    python -m benchmarks.farm_on_cards --tiny --out /tmp/rehearsal.json --pictures /tmp     # on this CPU

Cases: ``equal:N`` N cards; ``mixed:N`` N cards with ``--limits`` in turn; ``own:N`` each of these limits
alone, in short; ``killed:N`` N cards, of which one worker's process is ended when half is rendered. What is
measured is written after each case, with what it is worth beside ``equal:1``: speed-up, of linear, over the
best list schedule of that run's own task times (``figures``). A case for which the budget has no time is
named in ``not_run``. The picture of a case shows what every worker did, and why it did nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.on_cards.case import Case, run
from benchmarks.on_cards.figures import compared, windows_per_s
from benchmarks.on_cards.models import clip, photo, written
from benchmarks.on_cards.picture import draw
from farm.capabilities import Worker
from farm.errors import FarmError
from farm.machines import parse_bytes
from farm.scheduling import retry
from nodes.machine import workers_here

PROMPT = "a ship sails slowly to the right under a low sun, birds fly past"
CASES = ("equal:1", "equal:2", "equal:4", "killed:4", "mixed:4", "own:4")
LIMITS = ("6GiB", "8GiB", "12GiB", "24GiB")
FPS = 8


def main() -> None:
    args = _arguments()
    if not args.retakes:
        retry.MAX_TAKES = 1
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(_measured(args, Path(scratch)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="i2vgen-xl", help="or one of benchmarks/engines/_full_size.py")
    parser.add_argument("--home", type=Path, help="where the model is written (5 to 50 GB), and kept")
    parser.add_argument("--mode", default="refine", help="refine: of a clip; else from a photo")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.6)
    parser.add_argument("--guidance", type=float, default=9.0)
    parser.add_argument("--vram-limit", default="24GiB", help="of every card of an equal case")
    parser.add_argument("--limits", nargs="+", default=LIMITS)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--retakes", action="store_true", help="segments whose seam fails are redone")
    parser.add_argument("--budget-s", type=float, default=3600.0, help="no case begins that may not end")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path, help="where a picture of each case goes")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on CPU workers")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.frames, args.steps = "64x64", min(args.frames, 29), 2
        args.limits, args.vram_limit = ("3GiB", "4GiB"), "4GiB"
    return args


async def _measured(args: argparse.Namespace, scratch: Path) -> None:
    begun = time.monotonic()
    folder = written(args.home or scratch, args.model, tiny=args.tiny)
    there = _workers(args)
    told: dict[str, Any] = {
        "model": args.model,
        "retakes": args.retakes,
        "options": {name: str(value) for name, value in vars(args).items()},
        "machine": {"cores": len(os.sched_getaffinity(0)), "workers": [w.device_name for w in there]},
        "versions": {name: version(name) for name in ("ray", "torch", "diffusers")},
        "written_s": time.monotonic() - begun,
        "cases": [],
        "figures": {},
        "not_run": [],
    }
    jobs = _jobs(args, folder, scratch)
    longest_s = 0.0
    for number, case in enumerate(_cases(args, there, jobs)):
        left_s = args.budget_s - (time.monotonic() - begun)
        if left_s < longest_s:
            told["not_run"].append(f"{case.name}: {left_s:.0f} s are left, a case took {longest_s:.0f}")
            continue
        since = time.monotonic()
        try:
            done = await run(case, scratch / f"state-{number}")
        except FarmError as error:
            told["not_run"].append(f"{case.name}: {error.message}")
            continue
        finally:
            if not case.name.startswith("own"):
                longest_s = max(longest_s, time.monotonic() - since) if number else longest_s
        told["cases"].append(done.found | {"took_s": time.monotonic() - since})
        told["figures"] = _figures(told["cases"])
        if args.pictures:
            draw(
                args.pictures / f"{case.name.replace(':', '-').replace(' ', '-')}.png", case.name, done.spans
            )
        _say(told, args.out)
    for asked in args.cases:
        if int(asked.partition(":")[2]) > len(there):
            told["not_run"].append(f"{asked}: {len(there)} workers are here")
    _say(told, args.out)


def _workers(args: argparse.Namespace) -> list[Worker]:
    amounts = ",".join("4GiB" for _ in range(max(int(c.partition(":")[2]) for c in args.cases)))
    return workers_here(amounts if args.tiny else None, None, name="bench")


def _jobs(args: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, tuple[Path, Mapping[str, Any]]]:
    """The timed job and the short one: what is rendered over, and the options."""
    width, height = map(int, args.size.split("x"))
    options: dict[str, Any] = {
        "model": str(folder),
        "mode": args.mode,
        "prompts": (PROMPT,),
        "negative_prompt": "",
        "width": width,
        "height": height,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "strength": args.strength if args.mode == "refine" else None,
        "fps": None,
        "deliver_fps": None,
        "seconds": None,
        "num_frames": None,
        "window_frames": None,
        "overlap_frames": None,
        "priority": 50,
    }
    short = min(args.frames, 16 if args.tiny else 48)
    if args.mode == "refine":
        timed = clip(scratch / "clip.mp4", width, height, args.frames, FPS)
        return {
            "timed": (timed, options),
            "short": (clip(scratch / "short.mp4", width, height, short, FPS), options | {"strength": 0.2}),
            "alone": (clip(scratch / "alone.mp4", width, height, short, FPS), options),
        }
    picture = photo(scratch / "photo.png", width, height)
    few = {"num_frames": min(args.frames, 161), "num_inference_steps": min(args.steps, 2)}
    return {
        "timed": (picture, options | {"num_frames": args.frames}),
        "short": (picture, options | few),
        "alone": (picture, options | few | {"num_inference_steps": args.steps}),
    }


def _cases(
    args: argparse.Namespace, there: Sequence[Worker], jobs: Mapping[str, tuple[Path, Mapping[str, Any]]]
) -> Iterator[Case]:
    equal = [_capped(worker, args.vram_limit) for worker in there]
    limits = [args.limits[n % len(args.limits)] for n in range(len(there))]
    mixed = [_capped(worker, limit) for worker, limit in zip(there, limits, strict=True)]
    for asked in args.cases:
        kind, _, count = asked.partition(":")
        num_cards = int(count)
        if num_cards > len(there):
            continue
        workers = tuple((mixed if kind == "mixed" else equal)[:num_cards])
        if kind == "own":
            for limit in dict.fromkeys(limits[:num_cards]):
                alone = (_capped(there[0], limit),)
                yield Case(f"own {limit}", alone, jobs["alone"], jobs["short"])
            continue
        killed = workers[-1].id if kind == "killed" else None
        yield Case(asked, workers, jobs["timed"], jobs["short"], killed)


def _capped(worker: Worker, limit: str) -> Worker:
    return worker.model_copy(update={"vram_bytes": min(worker.vram_bytes, parse_bytes(limit))})


def _figures(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_name = {case["case"]: case for case in cases}
    found: dict[str, Any] = {}
    one = by_name.get("equal:1")
    for name, case in by_name.items():
        if case["status"] != "succeeded":
            continue
        if name.startswith(("equal:", "killed:")) and one is not None and one["status"] == "succeeded":
            found[name] = compared(one, case)
        if name.startswith("mixed:"):
            limits = [worker["vram_bytes"] for worker in case["workers"].values()]
            own = {
                worker["vram_bytes"]: windows_per_s(alone)
                for alone_name, alone in by_name.items()
                if alone_name.startswith("own ") and alone["status"] == "succeeded"
                for worker in alone["workers"].values()
            }
            if all(limit in own for limit in limits):
                rate = windows_per_s(case) / sum(own[limit] for limit in limits)
                found[name] = {"rate_over_own_rates": rate, "idle_share": case["idle_share"]}
    return found


def _say(told: Mapping[str, Any], out: Path | None) -> None:
    text = json.dumps(told, indent=1)
    if out:
        out.write_text(text + "\n")
    last = told["cases"][-1] if told["cases"] else {}
    brief = {name: last.get(name) for name in ("case", "status", "reason", "wall_s", "publish_s", "idle_s")}
    print(json.dumps(brief | {"figures": told["figures"].get(brief["case"]), "not_run": told["not_run"]}))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
