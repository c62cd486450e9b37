"""A segment that was tried very often is told in counts, and its newest attempts whole."""

from __future__ import annotations

from typing import Any

from farm.reporting.report import job_report, segment_detail
from farm.state.events import JobRetried, TaskReopened
from farm.state.state import KEPT_ATTEMPTS, State

NUM_TRIES = 40


def tried_often(make: Any, kind: str = "lost") -> State:
    """A segment that was lost on one worker and then another, until it was rendered."""
    workers = [make.worker("a/0"), make.worker("b/0")]
    state: State = make.state([*make.joined(*workers), make.submitted(num_frames=8)])
    for number in range(1, NUM_TRIES + 1):
        worker = "ab"[number % 2] + "/0"
        make.happen(state, make.assigned("s0-0", worker, attempt=number), now=10.0 * number)
        make.happen(state, make.failed("s0-0", kind, attempt=number), now=10.0 * number + 4)
        make.happen(state, JobRetried(job_id="job"))
    return make.happen(state, make.assigned("s0-0", "a/0", attempt=NUM_TRIES + 1), now=1000.0)


def test_old_attempts_are_counted_and_the_newest_are_whole(make: Any) -> None:
    state = tried_often(make)
    task = state.jobs["job"].tasks["s0-0"]
    assert [a.id for a in task.attempts] == [
        f"job/s0-0/{n}" for n in range(NUM_TRIES + 1 - KEPT_ATTEMPTS, NUM_TRIES + 2)
    ]
    assert task.num_attempts == NUM_TRIES + 1
    assert state.jobs["job"].attempt_id(task) == f"job/s0-0/{NUM_TRIES + 2}"
    told = segment_detail(state.jobs["job"], task, {})["earlier_attempts"]
    num_old = NUM_TRIES - KEPT_ATTEMPTS
    assert told == {"count": num_old, "outcomes": {"lost": num_old}, "held_s": 4.0 * num_old}


def test_counts_of_failures_are_those_of_all_attempts(make: Any) -> None:
    job = tried_often(make).jobs["job"]
    report = job_report(job, {})
    assert report["segments"][0]["failed_attempts"] == NUM_TRIES
    by_worker = {worker: told["failed_attempts"] for worker, told in report["workers"].items()}
    assert by_worker == {"a/0": NUM_TRIES // 2, "b/0": NUM_TRIES // 2}
    withdrawn = job_report(tried_often(make, "cancelled").jobs["job"], {})
    assert withdrawn["segments"][0]["failed_attempts"] == 0
    assert withdrawn["segments"][0]["earlier_attempts"]["count"] == NUM_TRIES - KEPT_ATTEMPTS


def test_what_has_rendered_a_segment_stays_whole_however_old_it_is(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    make.happen(state, make.assigned("s0-0", "a/0"), make.succeeded("s0-0"))
    make.happen(state, TaskReopened(job_id="job", task_id="s0-0", take=1, reason="seam"))
    for number in range(2, NUM_TRIES):
        make.happen(state, make.assigned("s0-0", "a/0", attempt=number))
        make.happen(state, make.failed("s0-0", "lost", attempt=number), JobRetried(job_id="job"))
    outcomes = [attempt.outcome for attempt in state.jobs["job"].tasks["s0-0"].attempts]
    assert outcomes == ["succeeded", *["lost"] * (KEPT_ATTEMPTS + 1)]
