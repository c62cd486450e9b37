"""How good are the ways in which the farm makes a long video of one photo, and how soon is it there?

    python benchmarks/modes.py --clips photographs --side 128                    # on a CPU
    python benchmarks/modes.py --device cuda --processes 12                      # on a GPU

20 pictures no model here was trained on, each with 4 camera motions, as videos of 96 frames: ``chain``,
``refine``, ``infill`` between one-frame keyframes and between clips of two latents; beside them what a real
camera films, and what the autoencoder keeps of it. Motion followed (benchmarks/motion_judge.py), seams within
their gates, jerk of the flow at shared frames, fine detail and lightness beside the camera's. From the
seconds of each kind of segment come work, critical path, and the time of four cards. What is done is in
``--rows`` and is not made again. docs/modes.md shows what came of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Each process has one thread: there are many of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from benchmarks._modes import Asked, Crew, Heard, scratch_folder  # noqa: E402
from benchmarks._modes_figures import contact_sheets, print_figures, summary  # noqa: E402
from benchmarks._modes_videos import FPS, Row, Video, job_plans, made_video, videos_of  # noqa: E402
from benchmarks.held_out import Frames  # noqa: E402
from farm.errors import FarmError  # noqa: E402
from farm.planning.plan import Plan  # noqa: E402
from nodes.engines.wan.spec import wan_spec  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "modes.json"
#: What the four cards of the simulation are asked for beside it.
LONG_FRAMES = 384
#: A process that fails so many videos in a row is ended: its card may be out of order.
MAX_FAILURES = 3


class Modes:
    """The videos, made side by side until all are done or the time is over."""

    def __init__(self, arguments: argparse.Namespace, crew: Crew) -> None:
        self.arguments = arguments
        self.crew = crew
        self.started = time.monotonic()
        self.deadline = self.started + arguments.minutes * 60
        self.asked = Asked(arguments.frames, FPS, arguments.side)
        self.rows_file: Path = arguments.rows / f"{arguments.side}.jsonl"
        self.strips: Path = arguments.rows / str(arguments.side)
        self.rows = read_rows(self.rows_file)
        done = {(row["case"], row["made"]) for row in self.rows}
        chosen = selected(videos_of(arguments.side), arguments.clips)
        self.waiting = [v for v in chosen if (v.case, v.made) not in done]
        self.failures_in_a_row: dict[int, int] = {}
        self.tried_again: set[Video] = set()

    def run(self) -> None:
        print(f"{len(self.rows)} videos are there, {len(self.waiting)} to be made", flush=True)
        self.crew.wait_until_loaded()
        if self.arguments.alone:
            self._make(self.arguments.alone, alone=True)
        self._make(None, alone=False)

    def _make(self, limit: int | None, *, alone: bool) -> None:
        """Until all are made or the time is over; ``limit``: so many videos, one at a time."""
        begun = 0
        while True:
            for hand in self.crew.idle()[: 1 if alone else None]:
                in_time = time.monotonic() < self.deadline and (limit is None or begun < limit)
                if alone and any(h.busy_with for h in self.crew.hands):
                    break
                if in_time and self.waiting:
                    video, begun = self.waiting.pop(0), begun + 1
                    self.crew.call(hand, made_video, video, self.asked, about=video)
            if all(h.busy_with is None for h in self.crew.hands):
                return
            for heard in self.crew.hear(5.0):
                if heard.call is not None and heard.kind == "done":
                    self._keep(heard, alone=alone)
                elif heard.call is not None:
                    self._failed(heard)

    def _keep(self, heard: Heard, *, alone: bool) -> None:
        row, shown = heard.value
        row |= {"alone": alone, "seconds": round(heard.seconds, 2), "device": self.crew.device_name}
        self.failures_in_a_row[heard.hand.number] = 0
        self.rows.append(row)
        with self.rows_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        strip(shown).save(self.strips / f"{row['case']} {row['made']}.png")
        said = f"{row['windows_followed']}/{row['windows']} windows"
        if "seams" in row:
            said += f", {row['seams_passed']}/{row['seams']} seams"
        now_s = time.monotonic() - self.started
        print(
            f"{len(self.rows):4} {now_s:5.0f} s  {heard.call.name}: {said}, {heard.seconds:.1f} s", flush=True
        )

    def _failed(self, heard: Heard) -> None:
        """Said, and tried once more, by whoever is free then."""
        print(f"{heard.call.name}: {heard.kind}:\n{heard.value}", file=sys.stderr, flush=True)
        if heard.call not in self.tried_again:
            self.tried_again.add(heard.call)
            self.waiting.append(heard.call)
        number = heard.hand.number
        self.failures_in_a_row[number] = self.failures_in_a_row.get(number, 0) + 1
        if self.failures_in_a_row[number] >= MAX_FAILURES:
            self.crew.dismiss(heard.hand)


def read_rows(path: Path) -> list[Row]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix("").mkdir(exist_ok=True)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def selected(videos: list[Video], clips: str) -> list[Video]:
    """ "all", "photographs", or cases by number, such as ``0,3,10-20``."""
    if clips == "all":
        return videos
    if clips == "photographs":
        return [v for v in videos if v.is_photograph]
    bounds = [part.partition("-") for part in clips.split(",")]
    numbers = {n for first, _, last in bounds for n in range(int(first), int(last or first) + 1)}
    return [v for v in videos if v.case in numbers]


def strip(frames: Frames) -> Image.Image:
    """(N, H, W, 3) side by side."""
    return Image.fromarray(frames.transpose(1, 0, 2, 3).reshape(frames.shape[1], -1, 3))


def plans_of(arguments: argparse.Namespace) -> dict[int, dict[str, Plan]]:
    """Of the first video in every form, as long as asked for and longer."""
    spec = wan_spec(arguments.model, model=arguments.model.name)
    video = videos_of(arguments.side)[0]
    with scratch_folder() as folder:
        return {
            frames: job_plans(folder, video, Asked(frames, FPS, arguments.side), spec)
            for frames in (arguments.frames, 2 * arguments.frames, LONG_FRAMES)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny_wan")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clips", default="all", help="all, photographs, or cases such as 0,3,10-20")
    parser.add_argument("--side", type=int, default=256, help="of a frame, in pixels")
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="over all GPUs, one video at a time each")
    parser.add_argument("--alone", type=int, default=0, help="the first so many are made one at a time")
    parser.add_argument("--minutes", type=float, default=60.0, help="no video is begun after them")
    parser.add_argument("--rows", type=Path, default=ROOT / "out" / "modes", help="rows and strips go there")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    try:
        plans = plans_of(arguments)
    except FarmError as error:
        sys.exit(str(error))
    with Crew(arguments.model, arguments.device, arguments.processes, arguments.gpus, arguments.side) as crew:
        modes = Modes(arguments, crew)
        if modes.waiting and arguments.minutes:
            modes.run()
        made: dict[str, Any] = {"command": "python benchmarks/modes.py", "model": arguments.model.name}
        made |= asdict(modes.asked) | {"clips": arguments.clips} | crew.facts()
    rows = sorted(modes.rows, key=lambda row: (row["case"], row["made"]))
    made["device"] = ", ".join(sorted({row["device"] for row in rows}))
    found = {"made": made, **summary(rows, plans, arguments.frames)}
    whole = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    whole[f"{arguments.side}x{arguments.side}"] = found
    arguments.out.write_text(json.dumps(whole, indent=1) + "\n")
    contact_sheets(rows, modes.strips, arguments.rows / f"strips_{arguments.side}.jpg")
    print_figures(found)


if __name__ == "__main__":
    main()
