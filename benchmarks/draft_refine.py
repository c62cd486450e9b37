"""Is a photo refined over a draft of its own as good as a chain, and how much sooner is it there?

    python benchmarks/draft_refine.py quality --device cuda --gpus 4 --processes 48
    python benchmarks/draft_refine.py wall --device cuda --gpus 1,2,4

``quality``: 20 pictures no model here was trained on, each with 4 camera motions, as videos of 96 frames in
both modes: motion followed (benchmarks/motion_judge.py), seams within their gates, drift of lightness and
colour, sharpness kept; beside them what a real camera films. Before the others start, the first videos are
rendered alone, one a GPU: from their segments' seconds come the critical path and the work. ``wall``: one of
these jobs on 1, 2 and 4 GPUs of one host, a process a GPU, ready segments in plan order, joined as they come,
beside what farm/planning/predict.py says. Both go to benchmarks/results/draft_refine.json, each under its
name.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

# Each process has one thread: there are many of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._draft_refine import Asked, Crew, Hand, Heard, scratch_folder  # noqa: E402
from benchmarks._draft_refine_figures import contact_sheet, print_quality, save, summary  # noqa: E402
from benchmarks._draft_refine_videos import FPS, Row, Video, job_plans, made_video, videos_of  # noqa: E402
from benchmarks._draft_refine_wall import wall  # noqa: E402
from benchmarks.held_out import FRAME_PX, PHOTOGRAPHS, Frames  # noqa: E402
from farm.errors import FarmError  # noqa: E402
from farm.planning.plan import Plan  # noqa: E402
from nodes.engines.i2vgen_xl.spec import i2vgen_xl_spec  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "draft_refine.json"
#: A video is handed out when this many times the longest one of its kind would be done in time.
HASTE = 1.15
#: A process that fails so many videos in a row is ended: its card may be out of order.
MAX_FAILURES = 3
WRITE_EVERY = 8


class Quality:
    """The part ``quality``: its videos, made side by side until all are done or the time is over."""

    def __init__(self, arguments: argparse.Namespace, crew: Crew, started: float) -> None:
        self.arguments = arguments
        self.crew = crew
        self.started = started
        self.deadline = started + arguments.minutes * 60
        self.asked = Asked(arguments.frames, FPS, FRAME_PX, arguments.steps)
        self.videos = videos_of(arguments.videos)
        self.plans: dict[str, Plan] = {}
        self.rows: list[Row] = []
        self.failed: list[str] = []
        #: Frames for the contact sheets.
        self.shown: dict[tuple[int, str], tuple[Row, Frames]] = {}
        #: Longest seconds of a video, by what it is.
        self.longest_s: dict[str, float] = {}
        self.failures_in_a_row: dict[int, int] = {}
        self.tried_again: set[Video] = set()

    def run(self) -> None:
        first = self.videos[0]
        spec = i2vgen_xl_spec(self.arguments.model, model=self.arguments.model.name)
        with scratch_folder() as folder:
            self.plans = job_plans(folder, first, self.asked, spec)
        self.crew.wait_until_loaded()
        print(f"{len(self.crew.hands)} processes loaded after {self._now_s():.0f} s", flush=True)
        # Alone: one video a GPU, as many of either mode.
        gpus = range(self.arguments.gpus)
        firsts = [next((h for h in self.crew.idle() if h.gpu == gpu), None) for gpu in gpus]
        one_each = [hand for hand in firsts if hand is not None]
        count = max(2, len(one_each) // 2 * 2)
        first_ones = [v for v in self.videos if v.made != "camera"][:count]
        left = self._make(list(first_ones), one_each, alone=True)
        rest = [v for v in self.videos if v not in first_ones]
        self._make([*left, *rest], self.crew.hands, alone=False)
        self.write()

    def _make(self, waiting: list[Video], hands: list[Hand], *, alone: bool) -> list[Video]:
        """Until all are made or the time is over; returns what was not begun."""
        while time.monotonic() < self.deadline:
            for hand in self.crew.idle():
                video = self._next(waiting) if hand in hands else None
                if video is not None:
                    waiting.remove(video)
                    self.crew.call(hand, made_video, video, self.asked, about=video)
            loading = any(not h.ready for h in self.crew.hands) and not alone
            if all(h.busy_with is None for h in self.crew.hands) and not (waiting and loading):
                break
            for heard in self.crew.hear(min(5.0, self.deadline - time.monotonic())):
                if heard.call is not None and heard.kind == "done":
                    self._keep(heard, alone=alone)
                elif heard.call is not None:
                    self._failed(heard, waiting)
                elif heard.kind == "died":
                    print(f"process {heard.hand.number} died idle", file=sys.stderr, flush=True)
        return waiting

    def _next(self, waiting: list[Video]) -> Video | None:
        """The first that will be done in time."""
        left_s = self.deadline - time.monotonic()
        return next((v for v in waiting if HASTE * self.longest_s.get(v.made, 0.0) < left_s), None)

    def _keep(self, heard: Heard, *, alone: bool) -> None:
        row, thumbnails = heard.value
        row |= {"alone": alone, "seconds": round(heard.seconds, 2)}
        self.failures_in_a_row[heard.hand.number] = 0
        self.longest_s[row["made"]] = max(self.longest_s.get(row["made"], 0.0), heard.seconds)
        self.rows.append(row)
        with (self.arguments.sheets / "draft_refine.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if heard.call.on_sheet:
            self.shown[row["case"], row["made"]] = (row, thumbnails)
        said = f"{row['windows_followed']}/{row['windows']} windows"
        if "seams" in row:
            said += f", {row['seams_passed']}/{row['seams']} seams"
        at = f"{len(self.rows):4}/{len(self.videos)} {self._now_s():5.0f} s"
        print(f"{at}  {heard.call.name}: {said}, {heard.seconds:.1f} s", flush=True)
        if len(self.rows) % WRITE_EVERY == 0:
            self.write()

    def _failed(self, heard: Heard, waiting: list[Video]) -> None:
        """Said, and tried once more, by whoever is free then."""
        self.failed.append(f"{heard.call.name}: {heard.kind}: {heard.value.strip().splitlines()[-1]}")
        print(f"{self.failed[-1]}\n{heard.value}", file=sys.stderr, flush=True)
        if heard.call not in self.tried_again:
            self.tried_again.add(heard.call)
            waiting.append(heard.call)
        number = heard.hand.number
        self.failures_in_a_row[number] = self.failures_in_a_row.get(number, 0) + 1
        if self.failures_in_a_row[number] >= MAX_FAILURES:
            self.crew.dismiss(heard.hand)

    def write(self) -> None:
        made = {
            "command": "python benchmarks/draft_refine.py quality",
            "model": self.arguments.model.name,
            "gpus": self.arguments.gpus,
            "processes": self.arguments.processes,
            "pictures": len({v.picture_name for v in self.videos}),
            **asdict(self.asked),
            **self.crew.facts(),
        }
        rows = sorted(self.rows, key=lambda row: (row["case"], row["made"]))
        save(
            self.arguments.out, "quality", {"made": made, **summary(rows, self.plans), "failed": self.failed}
        )

    def draw(self) -> None:
        for name, is_photograph in (("photographs", True), ("procedural", False)):
            chosen = {
                k: v for k, v in self.shown.items() if (v[0]["picture"] in PHOTOGRAPHS) == is_photograph
            }
            if chosen:
                path = self.arguments.sheets / f"draft_refine_{name}.jpg"
                contact_sheet(chosen).save(path, quality=85)

    def _now_s(self) -> float:
        return time.monotonic() - self.started


def quality(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    arguments.sheets.mkdir(parents=True, exist_ok=True)
    (arguments.sheets / "draft_refine.jsonl").unlink(missing_ok=True)
    with Crew(arguments.model, arguments.device, arguments.processes, arguments.gpus) as crew:
        part = Quality(arguments, crew, started)
        part.run()
    part.draw()
    print_quality(json.loads(arguments.out.read_text())["quality"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name, run, minutes in (("quality", quality, 60.0), ("wall", wall, 30.0)):
        part = parts.add_parser(name)
        part.set_defaults(run=run)
        part.add_argument("--model", type=Path, default=ROOT / "models" / "tiny_i2v")
        part.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
        part.add_argument("--frames", type=int, default=96)
        part.add_argument("--steps", type=int, default=20)
        part.add_argument(
            "--minutes", type=float, default=minutes, help="what is not done by then is left out"
        )
        part.add_argument("--out", type=Path, default=RESULT)
        if name == "quality":
            part.add_argument("--gpus", type=int, default=1)
            part.add_argument(
                "--processes", type=int, default=12, help="over all GPUs, one video at a time each"
            )
            part.add_argument("--videos", type=int, default=None, help="the first so many of 80 cases")
            part.add_argument(
                "--sheets", type=Path, default=Path("out"), help="contact sheets and rows go there"
            )
        else:
            part.add_argument(
                "--gpus",
                type=lambda text: [int(n) for n in text.split(",")],
                default=[1, 2, 4],
                help="fewest first, such as 1,2,4",
            )
    arguments = parser.parse_args()
    try:
        i2vgen_xl_spec(arguments.model, model=arguments.model.name)
    except FarmError as error:
        sys.exit(str(error))
    arguments.run(arguments)


if __name__ == "__main__":
    main()
