"""What a farm on several cards is worth follows from what its tasks took; and the command runs on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.on_cards.figures import Work, best_list_schedule_s, compared, work_of
from benchmarks.on_cards.picture import draw
from farm.reporting.worker_time import Span

ROOT = Path(__file__).parents[2]


def test_the_best_list_schedule_begins_a_window_when_what_it_starts_from_is_there() -> None:
    keys = {f"k{i}": Work(2.0, 0.5, ()) for i in range(2)}
    windows = {f"s{i}": Work(3.0, 0.0, (f"k{i % 2}",)) for i in range(4)}
    assert best_list_schedule_s(keys | windows, 1) == 16.0
    # Both keys, their results' way, then two windows on each card.
    assert best_list_schedule_s(keys | windows, 2) == 8.5


def test_the_longest_chain_goes_first_where_that_is_sooner() -> None:
    alone = {f"a{i}": Work(1.0, 0.0, ()) for i in range(4)}
    chain = {f"c{i}": Work(2.0, 0.0, (f"c{i - 1}",) if i else ()) for i in range(3)}
    assert best_list_schedule_s(alone | chain, 2) == 6.0


def run_of(cards: int, wall_s: float) -> dict[str, Any]:
    attempts = [
        {"level": "final", "num_frames": 8, "outcome": "succeeded", "wall_s": 3.0, "load_s": 1.0}
        | {"phases_s": {"transfer": 0.5}, "given_s": 0.0, "ended_s": 3.25}
    ]
    tasks = [{"id": f"s{i}", "level": "final", "num_frames": 8, "depends_on": []} for i in range(4)]
    return {
        "workers": dict.fromkeys(range(cards)),
        "wall_s": wall_s,
        "attempts": attempts,
        "tasks": tasks,
    } | {
        "publish_s": 0.1,
        "idle_share": 0.0,
    }


def test_a_tasks_own_time_leaves_out_loading_and_the_way_of_its_result() -> None:
    run = run_of(1, 10.0)
    assert work_of(run["attempts"], run["tasks"])["s3"] == Work(1.5, 0.75, ())


def test_several_cards_are_compared_with_one_and_with_the_best_schedule() -> None:
    found = compared(run_of(1, 8.0), run_of(2, 5.0))
    assert (found["speed_up"], found["of_linear"]) == (1.6, 0.8)
    assert found["best_list_schedule_s"] == 3.75
    assert found["over_best_list_schedule"] == pytest.approx(5.0 / 3.75)


def test_the_picture_has_a_row_for_every_worker(tmp_path: Path) -> None:
    spans = {"a/0": [Span(0.0, 2.0, "loading", "job/s0/1"), Span(2.0, 9.0, "working", "job/s0/1")]}
    draw(tmp_path / "two.png", "two", spans | {"b/0": [Span(0.0, 9.0, "dependency")]})
    assert (tmp_path / "two.png").stat().st_size > 1000


@pytest.mark.long
@pytest.mark.ray
def test_the_command_runs_a_farm_of_cpu_workers(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.farm_on_cards", "--tiny", "--frames", "40"]
    command += ["--cases", "equal:1", "killed:2", "--out", str(out), "--pictures", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    told = json.loads(out.read_text())
    assert [case["status"] for case in told["cases"]] == ["succeeded", "succeeded"]
    assert told["retakes"] is False
    assert told["not_run"] == []
    assert "lost" in {attempt["outcome"] for attempt in told["cases"][1]["attempts"]}
    assert set(told["figures"]) == {"equal:1", "killed:2"}
    assert (tmp_path / "killed-2.png").exists()
