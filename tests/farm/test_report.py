from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities import GIB
from farm.events import JobCancelled, JobFailed, JobPublished, SeamAccepted, TaskReopened, WorkerJoined
from farm.journal import Journal
from farm.report import job_report, job_summary, workers_seen

PUBLISHED = JobPublished(job_id="job", num_frames=13, frames_sha256="0" * 64, size_bytes=500, stitch_s=1.5)


def segment(report: dict[str, Any], segment_id: str) -> dict[str, Any]:
    return next(s for s in report["segments"] if s["id"] == segment_id)


@pytest.fixture
def two_segments(make: Any) -> Any:
    """A job of s0-0 and s0-1 (frames 0-8 and 5-13), submitted at 100, on a large and a small worker."""
    joined = make.joined(make.worker("big/0", 24.0), make.worker("small/0", 6.0))
    submitted = make.submitted(num_frames=13, window_frames=8, overlap_frames=3)
    return make.state([*joined, submitted], now=100.0)


@pytest.fixture
def workers(make: Any) -> Any:
    return {w.id: w for w in (make.worker("big/0", 24.0), make.worker("small/0", 6.0))}


def test_a_summary_counts_segments_and_measures_progress_by_steps(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"), make.assigned("s0-1", "small/0"), now=101.0)
    make.happen(two_segments, make.succeeded("s0-0"), now=111.0)
    job = two_segments.jobs["job"]
    job.tasks["s0-1"].attempts[0].done_fraction = 0.5
    summary = job_summary(job, two_segments)
    assert summary["segments"] == {"total": 2, "done": 1, "running": 1}
    assert summary["progress"] == 0.75
    assert (summary["status"], summary["submitted_at"], summary["finished_at"]) == ("running", 100.0, None)


def test_two_copies_of_a_straggler_count_once_and_by_the_one_further_on(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"))
    make.happen(two_segments, make.assigned("s0-0", "small/0", attempt=2))
    job = two_segments.jobs["job"]
    job.tasks["s0-0"].attempts[0].done_fraction = 0.2
    job.tasks["s0-0"].attempts[1].done_fraction = 0.8
    summary = job_summary(job, None)
    assert summary["segments"]["running"] == 1
    assert summary["progress"] == 0.4


def test_a_summary_says_that_no_worker_is_here(make: Any) -> None:
    state = make.state([make.submitted()])
    assert "no worker is here" in job_summary(state.jobs["job"], state)["waiting_for"]


def test_a_summary_says_which_worker_is_too_small(make: Any) -> None:
    state = make.state([*make.joined(make.worker("tiny/0", 0.5)), make.submitted()])
    assert "tiny/0 has 0.50 GiB" in job_summary(state.jobs["job"], state)["waiting_for"]


def test_a_job_with_something_running_waits_for_nothing(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"))
    assert job_summary(two_segments.jobs["job"], two_segments)["waiting_for"] == ""


def test_a_failed_job_is_summed_up_with_its_reason(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, JobFailed(job_id="job", reason="no card is left"), now=130.0)
    summary = job_summary(two_segments.jobs["job"], two_segments)
    assert (summary["status"], summary["reason"]) == ("failed", "no card is left")
    assert summary["finished_at"] == 130.0


def test_a_report_says_who_rendered_what_why_and_how_full_the_card_was(
    make: Any, two_segments: Any, workers: Any
) -> None:
    assigned = make.assigned("s0-0", "small/0", need_bytes=4 * GIB, rung="evict", why="soonest")
    make.happen(two_segments, assigned, make.succeeded("s0-0", wall_s=7.0, peak_bytes=3 * GIB))
    rendered = segment(job_report(two_segments.jobs["job"], workers), "s0-0")
    assert (rendered["worker_id"], rendered["rung"], rendered["why"]) == ("small/0", "evict", "soonest")
    assert (rendered["need_bytes"], rendered["vram_bytes"]) == (4 * GIB, 6 * GIB)
    assert (rendered["wall_s"], rendered["peak_bytes"]) == (7.0, 3 * GIB)
    assert (rendered["start"], rendered["end"]) == (0, 8)


def test_a_worker_nobody_remembers_is_reported_without_its_memory(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "small/0"), make.succeeded("s0-0"))
    report = job_report(two_segments.jobs["job"], {})
    assert segment(report, "s0-0")["vram_bytes"] is None
    assert report["workers"]["small/0"]["vram_bytes"] is None


def test_a_report_counts_failures_apart_from_withdrawals(make: Any, two_segments: Any, workers: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "small/0"))
    make.happen(two_segments, make.failed("s0-0", "oom", message="out of memory"))
    make.happen(two_segments, make.assigned("s0-0", "small/0", attempt=2))
    make.happen(two_segments, make.assigned("s0-0", "big/0", attempt=3))
    make.happen(two_segments, make.succeeded("s0-0", attempt=3), make.failed("s0-0", "cancelled", attempt=2))
    report = job_report(two_segments.jobs["job"], workers)
    rendered = segment(report, "s0-0")
    assert rendered["failed_attempts"] == 1
    assert [a["outcome"] for a in rendered["attempts"]] == ["oom", "cancelled", "succeeded"]
    assert rendered["attempts"][0]["message"] == "out of memory"
    assert rendered["worker_id"] == "big/0"
    assert report["workers"]["small/0"] | {"kind": "", "device_name": ""} == {
        "kind": "",
        "device_name": "",
        "vram_bytes": 6 * GIB,
        "segments": 0,
        "busy_s": 0.0,
        "failed_attempts": 1,
    }


def test_a_report_shows_the_take_that_was_kept_and_every_take_of_its_seam(
    make: Any, two_segments: Any, workers: Any
) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"), make.succeeded("s0-0"))
    make.happen(two_segments, make.assigned("s0-1", "big/0"), make.succeeded("s0-1", wall_s=4.0))
    make.happen(two_segments, make.measured("s0-1", 0, "sharpness"))
    make.happen(two_segments, TaskReopened(job_id="job", task_id="s0-1", take=1, reason="seam"))
    make.happen(two_segments, make.assigned("s0-1", "small/0", attempt=2))
    make.happen(two_segments, make.succeeded("s0-1", attempt=2, wall_s=9.0))
    make.happen(two_segments, make.measured("s0-1", 1, "sharpness", "lab_step"))
    undecided = job_report(two_segments.jobs["job"], workers)["seams"]
    assert [(s["accepted_take"], s["decision"]) for s in undecided] == [(None, "not decided yet")]
    make.happen(two_segments, SeamAccepted(job_id="job", task_id="s0-1", take=0))
    report = job_report(two_segments.jobs["job"], workers)
    (seam,) = report["seams"]
    assert (seam["after"], seam["before"], seam["start"], seam["overlap"]) == ("s0-0", "s0-1", 5, 3)
    assert (seam["accepted_take"], seam["passed"], seam["failed_gates"]) == (0, False, ["sharpness"])
    assert "kept with failed gates after 2 takes: sharpness" in seam["decision"]
    assert [t["failed_gates"] for t in seam["takes"]] == [["sharpness"], ["sharpness", "lab_step"]]
    rendered = segment(report, "s0-1")
    assert (rendered["take"], rendered["takes"], rendered["worker_id"]) == (0, 2, "big/0")
    assert rendered["wall_s"] == 4.0


def test_a_later_take_that_was_kept_is_credited_to_the_worker_that_made_it(
    make: Any, two_segments: Any, workers: Any
) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"), make.succeeded("s0-0"))
    make.happen(two_segments, make.assigned("s0-1", "big/0"), make.succeeded("s0-1"))
    make.happen(two_segments, make.measured("s0-1", 0, "sharpness"))
    make.happen(two_segments, TaskReopened(job_id="job", task_id="s0-1", take=1, reason="seam"))
    make.happen(two_segments, make.assigned("s0-1", "small/0", attempt=2), make.succeeded("s0-1", attempt=2))
    make.happen(two_segments, make.measured("s0-1", 1))
    make.happen(two_segments, SeamAccepted(job_id="job", task_id="s0-1", take=1))
    report = job_report(two_segments.jobs["job"], workers)
    assert (segment(report, "s0-1")["take"], segment(report, "s0-1")["worker_id"]) == (1, "small/0")
    assert (report["seams"][0]["passed"], report["seams"][0]["decision"]) == (True, "gates passed")


def test_a_report_totals_wall_time_joining_and_each_workers_share(
    make: Any, two_segments: Any, workers: Any
) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"), make.succeeded("s0-0", wall_s=3.0))
    make.happen(two_segments, make.assigned("s0-1", "big/0"), make.succeeded("s0-1", wall_s=4.0))
    make.happen(two_segments, PUBLISHED, now=112.5)
    report = job_report(two_segments.jobs["job"], workers)
    totals = report["totals"]
    assert (totals["wall_s"], totals["stitch_s"], totals["size_bytes"]) == (12.5, 1.5, 500)
    assert totals["critical_path_s"] == 4.0
    assert (report["workers"]["big/0"]["segments"], report["workers"]["big/0"]["busy_s"]) == (2, 7.0)
    assert list(report["workers"]) == ["big/0"]


def test_the_critical_path_of_a_chain_is_the_sum_of_its_segments(make: Any, workers: Any) -> None:
    submitted = make.submitted(mode="chain", num_frames=13, window_frames=8)
    state = make.state([*make.joined(*workers.values()), submitted])
    for task, wall_s in zip(state.jobs["job"].order, (3.0, 4.0), strict=True):
        make.happen(state, make.assigned(task, "big/0"), make.succeeded(task, wall_s=wall_s))
    assert job_report(state.jobs["job"], workers)["totals"]["critical_path_s"] == 7.0


def test_an_unfinished_job_is_reported_without_the_figures_it_has_not(make: Any, two_segments: Any) -> None:
    report = job_report(two_segments.jobs["job"], {})
    assert (report["totals"]["wall_s"], report["totals"]["stitch_s"]) == (None, None)
    assert (report["seams"], report["workers"]) == ([], {})
    assert segment(report, "s0-0")["worker_id"] is None


def test_a_report_is_plain_json_and_tells_no_folder(make: Any, two_segments: Any, workers: Any) -> None:
    make.happen(two_segments, JobCancelled(job_id="job"))
    report = job_report(two_segments.jobs["job"], workers)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "path" not in report["shots"][0]["media"]


def test_workers_are_remembered_as_they_last_joined(make: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.append(WorkerJoined(worker=make.worker("big/0", 24.0)), 1.0)
    journal.append(make.submitted(), 2.0)
    journal.append(WorkerJoined(worker=make.worker("big/0", 12.0)), 3.0)
    assert workers_seen(journal) == {"big/0": make.worker("big/0", 12.0)}
    journal.close()
