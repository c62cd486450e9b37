from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.worker import GIB
from farm.reporting.report import job_report, job_summary, seam_list, segment_detail, timeline, workers_seen
from farm.scheduling.forecast import eta_s
from farm.state.events import (
    JobCancelled,
    JobFailed,
    JobPublished,
    JobReopened,
    SeamAccepted,
    TaskReopened,
    WorkerJoined,
    WorkerLeft,
)
from farm.state.journal import Journal

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
    summary = job_summary(job, two_segments, 120.0)
    assert summary["segments"] == {"total": 2, "done": 1, "running": 1}
    assert summary["progress"] == 0.75
    assert (summary["status"], summary["submitted_at"], summary["finished_at"]) == ("running", 100.0, None)


def test_two_copies_of_a_straggler_count_once_and_by_the_one_further_on(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"))
    make.happen(two_segments, make.assigned("s0-0", "small/0", attempt=2))
    job = two_segments.jobs["job"]
    job.tasks["s0-0"].attempts[0].done_fraction = 0.2
    job.tasks["s0-0"].attempts[1].done_fraction = 0.8
    summary = job_summary(job, None, 0.0)
    assert summary["segments"]["running"] == 1
    assert summary["progress"] == 0.4


def test_a_summary_says_that_no_worker_is_here(make: Any) -> None:
    state = make.state([make.submitted()])
    assert "no worker is here" in job_summary(state.jobs["job"], state, 0.0)["waiting_for"]
    assert not job_summary(state.jobs["job"], state, 0.0)["can_retry"], "there is nothing to forgive"


def test_a_summary_says_which_worker_is_too_small(make: Any) -> None:
    state = make.state([*make.joined(make.worker("tiny/0", 0.5)), make.submitted()])
    assert "tiny/0 has 0.50 GiB" in job_summary(state.jobs["job"], state, 0.0)["waiting_for"]
    assert job_summary(state.jobs["job"], state, 0.0)["can_retry"]


def test_a_job_with_something_running_waits_for_nothing(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, make.assigned("s0-0", "big/0"))
    assert job_summary(two_segments.jobs["job"], two_segments, 120.0)["waiting_for"] == ""
    assert not job_summary(two_segments.jobs["job"], two_segments, 120.0)["can_retry"]


def test_a_failed_job_is_summed_up_with_its_reason(make: Any, two_segments: Any) -> None:
    make.happen(two_segments, JobFailed(job_id="job", reason="no card is left"), now=130.0)
    summary = job_summary(two_segments.jobs["job"], two_segments, 120.0)
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


def test_a_summary_says_what_was_asked_by_whom_and_how_its_seams_are(make: Any) -> None:
    submitted = make.submitted(num_frames=13, window_frames=8, prompts=("a red car",))
    submitted = submitted.model_copy(update={"submitted_by": "ann", "remixed_from": "job-0"})
    state = make.state([*make.joined(make.worker("big/0", 24.0)), submitted])
    job = state.jobs["job"]
    summary = job_summary(job, state, 0.0)
    assert (summary["prompt"], summary["submitted_by"], summary["remixed_from"]) == (
        "a red car",
        "ann",
        "job-0",
    )
    assert summary["seams"] == {"measured": 0, "failed": 0}
    for task in ("s0-0", "s0-1"):
        make.happen(state, make.assigned(task, "big/0"), make.succeeded(task))
    make.happen(state, make.measured("s0-1", 0, "sharpness"))
    assert job_summary(job, state, 0.0)["seams"] == {"measured": 1, "failed": 1}
    make.happen(state, TaskReopened(job_id="job", task_id="s0-1", take=1, reason="seam"))
    make.happen(state, make.assigned("s0-1", "big/0", attempt=2), make.succeeded("s0-1", attempt=2))
    make.happen(state, make.measured("s0-1", 1))
    assert job_summary(job, state, 0.0)["seams"] == {"measured": 1, "failed": 0}
    make.happen(state, SeamAccepted(job_id="job", task_id="s0-1", take=0))
    assert job_summary(job, state, 0.0)["seams"] == {"measured": 1, "failed": 1}
    make.happen(state, JobReopened(job_id="job", takes={"s0-0": 1, "s0-1": 2}))
    assert job_summary(job, state, 0.0)["seams"] == {"measured": 0, "failed": 0}


def test_a_summary_tells_when_the_video_will_be_done_and_keeps_to_it_for_a_second(
    make: Any, two_segments: Any
) -> None:
    job = two_segments.jobs["job"]
    whole_s = eta_s(two_segments, job, 100.0)
    assert whole_s is not None
    assert job_summary(job, two_segments, 100.0)["eta_s"] == round(whole_s, 1)
    make.happen(two_segments, WorkerLeft(worker_id="big/0", reason="was pulled"), now=100.5)
    assert job_summary(job, two_segments, 100.9)["eta_s"] == pytest.approx(whole_s - 0.9, abs=0.051)
    left_s = eta_s(two_segments, job, 101.5)
    assert left_s is not None
    assert left_s > whole_s
    assert job_summary(job, two_segments, 101.5)["eta_s"] == round(left_s, 1)
    make.happen(two_segments, JobCancelled(job_id="job"), now=102.0)
    assert job_summary(job, two_segments, 102.0)["eta_s"] is None


def test_a_summary_counts_what_every_attempt_cost_failed_ones_too(make: Any) -> None:
    priced = make.worker("a/0", 24.0, price_per_hour=3.6)
    other = make.worker("b/0", 24.0, price_per_hour=7.2)
    free = make.worker("c/0", 24.0)
    state = make.state([*make.joined(priced, other, free), make.submitted(num_frames=13, window_frames=8)])
    job = state.jobs["job"]
    assert job_summary(job, state, 0.0)["cost"] is None
    make.happen(state, make.assigned("s0-0", "a/0"), make.assigned("s0-1", "b/0"), now=100.0)
    make.happen(state, make.failed("s0-0"), make.succeeded("s0-1"), now=110.0)
    assert job_summary(job, state, 0.0)["cost"] == pytest.approx(0.010 + 0.020)
    make.happen(state, make.assigned("s0-0", "a/0", attempt=2), now=110.0)
    make.happen(state, make.failed("s0-0", "coordinator_restart", attempt=2), now=9000.0)
    assert job_summary(job, state, 0.0)["cost"] == pytest.approx(0.030)
    make.happen(state, make.assigned("s0-0", "c/0", attempt=3), now=9000.0)
    make.happen(state, make.succeeded("s0-0", attempt=3), now=9010.0)
    assert job_summary(job, state, 0.0)["cost"] is None


def test_a_clock_that_is_set_back_during_an_attempt_makes_nothing_cheaper(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0", 24.0, price_per_hour=3.6)), make.submitted()])
    make.happen(state, make.assigned("s0-0", "a/0"), now=100.0)
    make.happen(state, make.failed("s0-0"), now=200.0)
    make.happen(state, make.assigned("s0-0", "a/0", attempt=2), now=200.0)
    make.happen(state, make.failed("s0-0", attempt=2), now=-7000.0)
    assert state.jobs["job"].cost == pytest.approx(0.1)


def test_a_price_is_that_of_the_worker_when_it_began_though_it_was_lost_since(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0", 24.0, price_per_hour=3.6)), make.submitted()])
    make.happen(state, make.assigned("s0-0", "a/0"), now=100.0)
    make.happen(state, WorkerLeft(worker_id="a/0", reason="died"), make.failed("s0-0", "lost"), now=200.0)
    assert job_summary(state.jobs["job"], state, 0.0)["cost"] == pytest.approx(0.1)


def test_a_timeline_has_a_column_entry_for_every_segment_and_every_attempt(
    make: Any, two_segments: Any
) -> None:
    make.happen(two_segments, make.assigned("s0-0", "small/0"), now=101.0)
    make.happen(two_segments, make.failed("s0-0"), make.assigned("s0-1", "small/0"), now=103.0)
    make.happen(two_segments, make.assigned("s0-0", "big/0", attempt=2), now=104.0)
    make.happen(two_segments, make.succeeded("s0-0", attempt=2), now=109.0)
    two_segments.jobs["job"].tasks["s0-1"].attempts[0].done_fraction = 0.25
    shown = timeline(two_segments.jobs["job"], 110.0)
    assert shown["now"] == 110.0
    assert shown["workers"] == ["small/0", "big/0"]
    assert shown["segments"] == {
        "id": ["s0-0", "s0-1"],
        "shot": [0, 0],
        "level": ["final", "final"],
        "start": [0, 5],
        "end": [8, 13],
        "head": [0, 3],
        "status": ["done", "running"],
        "take": [0, 0],
        "worker": [1, 0],
        "assigned_at": [104.0, 103.0],
        "ended_at": [109.0, None],
        "done_fraction": [1.0, 0.25],
    }
    assert shown["attempts"] == {
        "id": ["job/s0-0/1", "job/s0-1/1", "job/s0-0/2"],
        "segment": [0, 1, 0],
        "worker": [0, 0, 1],
        "take": [0, 0, 0],
        "started_at": [101.0, 103.0, 104.0],
        "ended_at": [103.0, None, 109.0],
        "outcome": ["error", "running", "succeeded"],
    }
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_a_segment_that_nobody_has_has_no_worker_and_no_times(make: Any, two_segments: Any) -> None:
    shown = timeline(two_segments.jobs["job"], 0.0)["segments"]
    assert (shown["worker"], shown["assigned_at"], shown["ended_at"]) == ([-1, -1], [None] * 2, [None] * 2)
    assert (shown["status"], shown["done_fraction"]) == (["ready", "ready"], [0.0, 0.0])


def test_one_segment_and_the_seams_are_told_as_the_report_tells_them(
    make: Any, two_segments: Any, workers: Any
) -> None:
    for task in ("s0-0", "s0-1"):
        make.happen(two_segments, make.assigned(task, "big/0"), make.succeeded(task), now=105.0)
    make.happen(two_segments, make.measured("s0-1", 0))
    job = two_segments.jobs["job"]
    report = job_report(job, workers)
    assert segment_detail(job, job.tasks["s0-1"], workers) == segment(report, "s0-1")
    assert segment(report, "s0-1")["attempts"][0]["ended_at"] == 105.0
    assert seam_list(job) == report["seams"]
    assert len(seam_list(job)) == 1


def test_a_seam_that_is_to_be_measured_anew_is_not_told_of(make: Any, two_segments: Any) -> None:
    for task in ("s0-0", "s0-1"):
        make.happen(two_segments, make.assigned(task, "big/0"), make.succeeded(task))
    job = two_segments.jobs["job"]
    make.happen(two_segments, make.measured("s0-1", 0), SeamAccepted(job_id="job", task_id="s0-1", take=0))
    make.happen(two_segments, JobReopened(job_id="job", takes={"s0-0": 1}))
    assert seam_list(job) == []
    assert job_report(job, {})["seams"] == []
