"""One photo's video in ``infill`` through the whole farm on this machine's cards, capped, at full size.

Ray, the coordinator and the stitcher run as ``farm render`` runs them; the model's folder has random weights.
These make noise, which passes no gate of a seam: with ``--no-retakes`` each segment is rendered once, so the
seconds are those of a job whose gates pass (said in the output).

    python benchmarks/engines/infill_farm.py --model a14b --folder /dev/shm/m --frames 321 --steps 4
    python benchmarks/engines/infill_farm.py --tiny          # the same path on a CPU, with two workers
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from farm.scheduling import retry  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ltx-2b-distilled", help="of benchmarks/engines/_full_size.py")
    parser.add_argument("--folder", type=Path, help="where the model is written, 15 to 50 GB")
    parser.add_argument("--vram-limit", default="8GiB")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--frames", type=int, default=161)
    parser.add_argument("--window", type=int)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--no-retakes", action="store_true", help="gates are measured and nothing is redone")
    parser.add_argument(
        "--state", type=Path, help="the farm's state folder, kept; a temporary one unless given"
    )
    parser.add_argument("--out", type=Path, help="JSON of the job: seconds, segments by worker, seams")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = args.folder or Path(scratch) / "models"
        found = run(args, home, Path(scratch), args.state or Path(scratch) / "state")
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


def run(args: argparse.Namespace, home: Path, scratch: Path, state: Path) -> dict[str, Any]:
    import torch

    from benchmarks.engines._farm_cases import PROMPT, picture
    from benchmarks.engines._full_size import MODELS, tiny, write_folder

    model = tiny(MODELS[args.model]) if args.tiny else MODELS[args.model]
    folder = write_folder(home, args.model, model, torch.float32 if args.tiny else torch.bfloat16)
    width, height = (128, 64) if args.tiny else map(int, args.size.split("x"))
    photo, video = scratch / "photo.png", scratch / "video.mp4"
    Image.fromarray(np.asarray(picture(width, height))).save(photo)
    options = ["--model", str(folder), "--mode", "infill", "--size", f"{width}x{height}", "-p", PROMPT]
    options += [
        "--frames",
        str(33 if args.tiny else args.frames),
        "--steps",
        str(2 if args.tiny else args.steps),
    ]
    options += ["--vram-limit", args.vram_limit, "--state", str(state), "-o", str(video), "--force"]
    options += ["--window", str(args.window)] if args.window else []
    options += ["--workers", "4GiB,4GiB"] if args.tiny else []
    start = time.perf_counter()
    code = _command("render", str(photo), *options, retakes=not args.no_retakes)
    seconds = time.perf_counter() - start
    return {
        "model": args.model,
        "size": [width, height],
        "options": options,
        "retakes": not args.no_retakes,
        "exit_code": code,
        "seconds": seconds,
        "video_bytes": video.stat().st_size if video.exists() else 0,
        "jobs": _reports(state),
    }


def _command(*words: str, retakes: bool) -> int:
    """``farm``, in this process: what is switched off is switched off in its coordinator."""
    from farm.cli import main as farm

    if not retakes:
        retry.MAX_TAKES = 1
    sys.argv = ["farm", *words]
    try:
        farm()
    except SystemExit as ended:
        return int(ended.code or 0) if isinstance(ended.code, (int, type(None))) else 1
    return 0


def _reports(state: Path) -> list[Any]:
    from farm.reporting import job_report, workers_seen
    from farm.state import past

    if not state.exists():  # refused before there was a farm
        return []
    with past(state) as ledger:
        seen = workers_seen(ledger.journal)
        return [_figures(job_report(job, seen)) for job in ledger.state.jobs.values()]


def _figures(told: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "id",
        "level",
        "start",
        "end",
        "worker_id",
        "why",
        "rung",
        "need_bytes",
        "peak_bytes",
        "wall_s",
        "takes",
    )
    told = {key: told[key] for key in ("status", "reason", "segments", "workers", "totals") if key in told}
    told["segments"] = [{key: segment[key] for key in kept} for segment in told["segments"]]
    return told


if __name__ == "__main__":
    main()
