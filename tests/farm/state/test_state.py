"""What events do to the farm's state, and which may not happen."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities.worker import GIB, Need
from farm.planning.planner import LIBRARIES_S
from farm.scheduling.schedule import schedule
from farm.state.changes import refusal
from farm.state.events import (
    Event,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobPublished,
    JobReopened,
    JobRetried,
    NodeAdmitted,
    NodeRemoved,
    ResultRefused,
    SeamAccepted,
    TaskReopened,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
)
from farm.state.state import State, Task
from farm.state.transitions import FINAL, JOB_TRANSITIONS, TASK_TRANSITIONS


def chain(make: Any) -> State:
    """Two workers and a chain of three: s0-1 waits for s0-0, s0-2 for s0-1."""
    workers = (make.worker("a/0"), make.worker("b/0"))
    state: State = make.state(
        [*make.joined(*workers), make.submitted(spec=make.spec(), num_frames=18, overlap_frames=3)]
    )
    return state


def task_of(state: State, task_id: str = "s0-0") -> Task:
    return state.jobs["job"].tasks[task_id]


def reopened(task: str = "s0-0", take: int = 1) -> Event:
    return TaskReopened(job_id="job", task_id=task, take=take, reason="seam gates failed: mae")


# The tables.

HISTORY: dict[str, list[str]] = {
    "waiting": [],
    "ready": [],
    "running": ["task_assigned"],
    "done": ["task_assigned", "attempt_succeeded"],
}


@pytest.mark.parametrize("status", HISTORY)
@pytest.mark.parametrize(
    "event", ["task_assigned", "attempt_succeeded", "attempt_failed", "task_reopened", "job_reopened"]
)
def test_a_task_changes_as_the_table_says_and_no_other_way(make: Any, status: str, event: str) -> None:
    state = chain(make)
    task = task_of(state, "s0-1" if status == "waiting" else "s0-0")
    events: dict[str, Event] = {
        "task_assigned": make.assigned(task.id, "a/0"),
        "attempt_succeeded": make.succeeded(task.id),
        "attempt_failed": make.failed(task.id),
        "task_reopened": reopened(task.id),
        "job_reopened": JobReopened(job_id="job", takes={task.id: 1}),
    }
    make.happen(state, *(events[name] for name in HISTORY[status]))
    assert task.status == status
    after = TASK_TRANSITIONS.get((status, event))
    if after is None:
        said = refusal(state, events[event])
        assert said is not None
        assert task.id in said
    else:
        make.happen(state, events[event])
        assert task.status == after


JOB_EVENTS: dict[str, Event] = {
    "job_published": JobPublished(
        job_id="job", num_frames=18, frames_sha256="0" * 64, size_bytes=1, stitch_s=0.0
    ),
    "job_failed": JobFailed(job_id="job", reason="three failures"),
    "job_cancelled": JobCancelled(job_id="job"),
    "job_retried": JobRetried(job_id="job"),
    "job_reopened": JobReopened(job_id="job", takes={}),
}
JOB_HISTORY = {
    "running": None,
    "succeeded": "job_published",
    "failed": "job_failed",
    "cancelled": "job_cancelled",
}


@pytest.mark.parametrize("status", JOB_HISTORY)
@pytest.mark.parametrize("event", JOB_EVENTS)
def test_a_job_changes_as_the_table_says_and_no_other_way(make: Any, status: str, event: str) -> None:
    state = chain(make)
    before = JOB_HISTORY[status]
    if before:
        make.happen(state, JOB_EVENTS[before], now=5.0)
    job = state.jobs["job"]
    assert job.status == status
    assert job.finished_at == (5.0 if status in FINAL else None)
    after = JOB_TRANSITIONS.get((status, event))
    if after is None:
        assert refusal(state, JOB_EVENTS[event]) == f"job job is {status}: {event} does not follow"
    else:
        make.happen(state, JOB_EVENTS[event])
        assert job.status == after


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (WorkerLeft(worker_id="x/0", reason="died"), "no worker x/0"),
        (WorkerDraining(worker_id="x/0"), "no worker x/0"),
        (WorkerEnabled(worker_id="x/0"), "no worker x/0"),
        (JobDeleted(job_id="nojob"), "no job nojob"),
        (JobReopened(job_id="job", takes={"s9-9": 1}), "no task s9-9 in job job"),
        (JobCancelled(job_id="nojob"), "no job nojob"),
        (SeamAccepted(job_id="job", task_id="s9-9", take=0), "no task s9-9 in job job"),
        (
            SeamAccepted(job_id="job", task_id="s0-1", take=0),
            "take 0 of the seam before s0-1 was not measured",
        ),
    ],
)
def test_what_is_not_there_cannot_change(make: Any, event: Event, said: str) -> None:
    assert refusal(chain(make), event) == said


def test_a_job_or_a_worker_that_is_there_cannot_come_again(make: Any) -> None:
    state = chain(make)
    assert refusal(state, make.submitted()) == "job job exists"
    assert refusal(state, WorkerJoined(worker=make.worker("a/0"))) == "worker a/0 is here"


# The fence.


def test_a_late_success_of_a_lost_attempt_is_refused(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.failed("s0-0", "lost"))
    late = make.succeeded("s0-0")
    assert refusal(state, late) == "attempt job/s0-0/1 no longer owns task s0-0: it is lost"
    make.happen(state, make.assigned("s0-0", "b/0", attempt=2))
    assert refusal(state, late) is not None
    assert refusal(state, make.succeeded("s0-0", attempt=2)) is None


def test_a_duplicate_success_is_refused(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.succeeded("s0-0"))
    assert refusal(state, make.succeeded("s0-0")) == (
        "attempt job/s0-0/1 no longer owns task s0-0: it is succeeded"
    )


def test_an_attempt_that_was_never_given_is_refused(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"))
    assert refusal(state, make.succeeded("s0-0", attempt=9)) == (
        "attempt job/s0-0/9 was never given task s0-0"
    )


def test_of_two_copies_the_first_result_counts_and_the_other_can_only_be_cancelled(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.assigned("s0-0", "b/0", attempt=2))
    assert state.jobs["job"].num_running == 2
    make.happen(state, make.succeeded("s0-0", attempt=2))
    assert (
        refusal(state, make.succeeded("s0-0", attempt=1))
        == "task s0-0 is done: attempt_succeeded does not follow"
    )
    make.happen(state, make.failed("s0-0", "cancelled", attempt=1))
    job, task = state.jobs["job"], task_of(state)
    assert (task.status, job.num_done, job.num_running, task.failures) == ("done", 1, 0, [])
    assert state.workers["a/0"].attempts == {} == state.workers["b/0"].attempts


def test_a_task_with_one_of_two_copies_failed_goes_on_running(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.assigned("s0-0", "b/0", attempt=2))
    make.happen(state, make.failed("s0-0", attempt=1))
    assert (task_of(state).status, state.jobs["job"].ready) == ("running", [])
    make.happen(state, make.failed("s0-0", attempt=2))
    assert (task_of(state).status, state.jobs["job"].ready) == ("ready", [0])


def test_refused_results_are_counted_and_change_nothing_else(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.failed("s0-0", "lost"))
    late = ResultRefused(job_id="job", task_id="s0-0", attempt_id="job/s0-0/1", reason="it is lost")
    make.happen(state, late, late)
    assert state.jobs["job"].num_refused == 2
    assert task_of(state).status == "ready"


# Failures.


@pytest.mark.parametrize("kind", ["cancelled", "coordinator_restart"])
def test_what_was_taken_back_is_no_failure(make: Any, kind: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.failed("s0-0", kind))
    assert task_of(state).failures == []
    assert task_of(state).attempts[0].outcome == kind
    assert task_of(state).status == "ready"


def test_running_out_of_memory_raises_the_need_of_that_shape_at_that_rung(make: Any) -> None:
    state = chain(make)
    task, worker = task_of(state), state.workers["a/0"].worker
    before, on_cpu = (
        state.profiles.needs(state.jobs["job"].plan, task.segment, kind) for kind in ("cuda", "cpu")
    )
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", "oom"))
    after = state.profiles.needs(state.jobs["job"].plan, task.segment, "cuda")
    assert after == before | {"resident": Need(worker.vram_bytes + 1)}
    assert state.profiles.needs(state.jobs["job"].plan, task.segment, "cpu") == on_cpu


def test_a_worker_that_leaves_takes_its_warm_model_and_load_along(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"))
    assert state.workers["a/0"].warm_model == "synthetic"
    make.happen(state, WorkerLeft(worker_id="a/0", reason="died"), make.failed("s0-0", "lost"))
    make.happen(state, WorkerJoined(worker=make.worker("a/0")))
    assert (state.workers["a/0"].warm_model, state.workers["a/0"].attempts) == (None, {})


# Dependencies, takes, retries.


def test_a_finished_segment_makes_the_one_after_it_ready(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"))
    assert [task_of(state, t).status for t in ("s0-0", "s0-1", "s0-2")] == ["running", "waiting", "waiting"]
    make.happen(state, make.succeeded("s0-0"))
    assert [task_of(state, t).status for t in ("s0-0", "s0-1", "s0-2")] == ["done", "ready", "waiting"]


def test_a_keyframe_clip_makes_all_its_windows_ready_in_plan_order(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0"))])
    make.happen(state, make.submitted(spec=make.spec(), inputs=(make.video(40),), mode="refine"))
    job = state.jobs["job"]
    assert job.ready == [0]
    make.happen(state, make.assigned("k0-0", "a/0"), make.succeeded("k0-0"))
    assert job.ready == list(range(1, len(job.order)))


def test_a_reopened_segment_keeps_its_takes_and_forgets_its_failures(make: Any) -> None:
    first, second = make.artifact(1), make.artifact(2)
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0"))
    make.happen(
        state, make.assigned("s0-0", "a/0", attempt=2), make.succeeded("s0-0", attempt=2, artifact=first)
    )
    make.happen(state, reopened())
    task, job = task_of(state), state.jobs["job"]
    assert (task.status, task.take, task.failures, task.artifact, job.num_done) == ("ready", 1, [], None, 0)
    make.happen(
        state, make.assigned("s0-0", "a/0", attempt=3), make.succeeded("s0-0", attempt=3, artifact=second)
    )
    assert task.artifacts == {0: first, 1: second}
    assert [a.take for a in task.attempts] == [0, 0, 1]
    assert job.num_done == 1


def test_segments_that_need_a_reopened_one_wait_for_it_again(make: Any) -> None:
    state = make.happen(chain(make), make.assigned("s0-0", "a/0"), make.succeeded("s0-0"))
    make.happen(state, reopened(take=0))
    assert [task_of(state, t).status for t in ("s0-0", "s0-1", "s0-2")] == ["ready", "waiting", "waiting"]
    assert state.jobs["job"].ready == [0]
    make.happen(state, make.assigned("s0-0", "a/0", attempt=2), make.succeeded("s0-0", attempt=2))
    assert task_of(state, "s0-1").status == "ready"


def test_a_retry_forgives_failures_and_keeps_what_is_done(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=13)])
    make.happen(state, make.assigned("s0-0", "a/0"), make.succeeded("s0-0"))
    make.happen(state, make.assigned("s0-1", "a/0"), make.failed("s0-1"))
    make.happen(state, JobFailed(job_id="job", reason="no worker is left"))
    assert schedule(state, 0.0) == []
    make.happen(state, JobRetried(job_id="job"))
    job = state.jobs["job"]
    assert (job.status, job.reason, job.num_done) == ("running", "", 1)
    assert [(a.task_id, a.worker_id) for a in schedule(state, 0.0)] == [("s0-1", "a/0")]


def test_a_job_that_waits_is_retried_and_one_that_a_worker_is_at_is_not(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    make.happen(state, make.assigned("s0-0", "a/0"))
    assert refusal(state, JobRetried(job_id="job")) == "job job is running: job_retried does not follow"
    make.happen(state, make.failed("s0-0", "stalled"), JobRetried(job_id="job"))
    job = state.jobs["job"]
    assert (job.status, job.tasks["s0-0"].status, job.tasks["s0-0"].failures) == ("running", "ready", [])


def test_seams_are_kept_by_take(make: Any) -> None:
    state = make.happen(chain(make), make.measured("s0-1", 0, "mae"), make.measured("s0-1", 1))
    make.happen(state, SeamAccepted(job_id="job", task_id="s0-1", take=1))
    seam = state.jobs["job"].seams["s0-1"]
    assert ({t: m.passed for t, m in seam.measured.items()}, seam.accepted_take) == ({0: False, 1: True}, 1)


# What is learned.


def test_a_workers_speed_is_a_running_mean_without_the_load(make: Any) -> None:
    state = make.state(
        [*make.joined(make.worker("a/0")), make.submitted(num_frames=13, num_inference_steps=1)]
    )
    job = state.jobs["job"]
    segment = job.plan.segments[0]
    make.happen(state, make.assigned("s0-0", "a/0"), make.succeeded("s0-0", wall_s=12.0, load_s=2.0))
    assert state.profiles.render_s(job.plan, segment, make.worker("a/0"), "resident") == pytest.approx(10.0)
    assert state.profiles.loading_s(job.plan, make.worker("a/0")) == 2.0
    make.happen(state, make.assigned("s0-1", "a/0"), make.succeeded("s0-1", wall_s=20.0, load_s=0.0))
    assert state.profiles.render_s(job.plan, segment, make.worker("a/0"), "resident") == pytest.approx(13.0)
    assert state.profiles.loading_s(job.plan, make.worker("a/0")) == 2.0


def test_before_a_load_was_measured_it_is_taken_from_the_models_size(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    plan = state.jobs["job"].plan
    assert state.profiles.loading_s(plan, make.worker("a/0")) == pytest.approx(LIBRARIES_S + 3 * GIB / 1e9)


def test_a_speed_learned_at_a_slow_rung_predicts_the_fast_one(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    job = state.jobs["job"]
    make.happen(
        state, make.assigned("s0-0", "a/0", rung="stream"), make.succeeded("s0-0", wall_s=30, load_s=0)
    )
    segment, worker = job.plan.segments[0], make.worker("a/0")
    assert state.profiles.render_s(job.plan, segment, worker, "stream") == pytest.approx(30.0)
    assert state.profiles.render_s(job.plan, segment, worker, "resident") == pytest.approx(10.0)


def test_a_removed_node_leaves_nothing_behind_but_how_often_it_was_removed(make: Any) -> None:
    a, b = make.worker("a/0"), make.worker("b/0")
    history = [
        NodeAdmitted(node="a", key_id="k1"),
        NodeAdmitted(node="a"),
        NodeAdmitted(node="a", key_id="k2"),
        *make.joined(a, b),
    ]
    state = make.state(history)
    assert state.nodes["a"].key_ids == {"k1", "k2"}
    assert refusal(state, NodeRemoved(node="a")) == "workers of node a are here"
    assert refusal(state, NodeRemoved(node="b")) == "workers of node b are here"
    gone = [WorkerLeft(worker_id=w, reason="x") for w in ("a/0", "b/0")]
    drained = [WorkerDraining(worker_id=w) for w in ("a/0", "b/0")]
    state = make.state([*history, *drained, *gone, NodeRemoved(node="a")])
    assert set(state.drained) == {"b/0"}
    assert (state.nodes["a"].key_ids, state.nodes["a"].num_removals) == (set(), 1)
    assert state.nodes["a"].removed
    again = make.state([*history, *drained, *gone, NodeRemoved(node="a"), NodeAdmitted(node="a")])
    assert not again.nodes["a"].removed
    assert refusal(state, NodeRemoved(node="b")) == "no node b"
    assert refusal(state, NodeRemoved(node="a")) is None, "once more, should its token be about"
