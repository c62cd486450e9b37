"""Planning a 100,000-frame job, and replaying a journal of 100,000 events.

    python benchmarks/coordination/planning.py [--frames 100000] [--events 100000]

The named alternative for the replay is SQLite alone reading the same rows without making events of them.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from farm.capabilities.worker import GIB, Worker
from farm.planning.planner import plan
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.state.events import Artifact, AttemptSucceeded, JobSubmitted, TaskAssigned, WorkerJoined
from farm.state.journal import Journal
from farm.state.ledger import Ledger
from nodes.engines.table import spec_of


def photo() -> MediaInfo:
    return MediaInfo(
        kind="image", width=600, height=400, num_frames=1, sha256="0" * 64, path=Path("photo.png")
    )


def planning(frames: int) -> dict[str, float]:
    """Seconds to plan, in the mode of one photo (independent) and of one video (refine)."""
    image = JobRequest(inputs=(photo(),), model="procedural", num_frames=frames)
    video = JobRequest(
        inputs=(photo().model_copy(update={"kind": "video", "num_frames": frames, "fps": Fraction(24)}),),
        model="procedural",
    )
    timed = {}
    for name, request in (("independent", image), ("refine", video)):
        started = time.perf_counter()
        made = plan(request, spec_of("procedural"))
        timed[f"plan_{name}_s"] = time.perf_counter() - started
        timed[f"plan_{name}_segments"] = len(made.segments)
    return timed


def replaying(events: int) -> dict[str, float]:
    """Seconds to write a journal of that many events and to replay it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        ledger = Ledger(Journal(path))
        ledger.record(
            WorkerJoined(
                worker=Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
            )
        )
        request = JobRequest(
            inputs=(photo(),), model="procedural", num_frames=events, window_frames=4, overlap_frames=2
        )
        made = plan(request, spec_of("procedural"))
        ledger.record(JobSubmitted(job_id="job-0", request=request, plan=made))
        started = time.perf_counter()
        count = 2
        for segment in made.segments:
            attempt_id = f"job-0/{segment.id}/1"
            ledger.record(
                TaskAssigned(
                    job_id="job-0",
                    task_id=segment.id,
                    attempt_id=attempt_id,
                    worker_id="here/cpu0",
                    rung="resident",
                    need_bytes=10**9,
                    predicted_s=1.0,
                    why="resident fits (0.20 GiB of 1.00 GiB); the only worker that can",
                )
            )
            ledger.record(
                AttemptSucceeded(
                    job_id="job-0",
                    task_id=segment.id,
                    attempt_id=attempt_id,
                    artifact=Artifact(
                        sha256="1" * 64, size_bytes=10**6, num_frames=8, frames_sha256="2" * 64
                    ),
                    wall_s=1.0,
                    load_s=0.0,
                    peak_bytes=10**9,
                )
            )
            count += 2
        writing_s = time.perf_counter() - started
        started = time.perf_counter()
        again = Ledger(Journal(path))
        again.replay()
        replay_s = time.perf_counter() - started
        if again.state != ledger.state:
            raise SystemExit("the replayed state differs")
        started = time.perf_counter()
        for _, body in sqlite3.connect(path).execute("SELECT at, body FROM events ORDER BY seq"):
            len(body)
        rows_s = time.perf_counter() - started
    return {
        "events": count,
        "record_us_per_event": 1e6 * writing_s / count,
        "replay_s": replay_s,
        "rows_alone_s": rows_s,
        "ratio_to_rows_alone": replay_s / rows_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/planning.json")
    arguments = parser.parse_args()
    result = {"frames": arguments.frames, **planning(arguments.frames), **replaying(arguments.events)}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
