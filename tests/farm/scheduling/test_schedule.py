"""Which worker gets which task, from states alone."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from farm.scheduling.forecast import quote
from farm.scheduling.retry import barred
from farm.scheduling.schedule import (
    LOOKS,
    MAX_ASSIGNMENTS,
    Assignment,
    able_workers,
    explain,
    schedule,
)
from farm.state.events import TaskReopened, WorkerDraining, WorkerLeft
from farm.state.fleet import remaining_s
from farm.state.index import heard, told_models
from farm.state.profiles import FETCH_BYTES_PER_S
from farm.state.state import State


def frames_of(num_segments: int) -> int:
    """The length of a shot of that many windows of 8 with an overlap of 3."""
    return 8 + 5 * (num_segments - 1)


def farm(make: Any, workers: dict[str, float], **request: Any) -> State:
    """Workers of 24 GiB that render a segment in so many seconds with the model loaded, and one job."""
    state: State = make.state([*make.joined(*(make.worker(w, 24) for w in workers))])
    make.happen(state, make.submitted(**({"num_frames": frames_of(1)} | request)))
    job = state.jobs["job"]
    units = job.plan.work_units(job.plan.segments[0])
    for worker, seconds in workers.items():
        state.profiles.seconds_per_unit[worker, "synthetic"] = seconds / units
        state.workers[worker].warm_model = "synthetic"
    return state


def placed(assignments: list[Assignment]) -> dict[str, str]:
    return {a.task_id: a.worker_id for a in assignments}


# Handing over.


def test_a_worker_gets_its_next_task_while_a_segment_is_handed_over_and_no_third(make: Any) -> None:
    state = farm(make, {"a/0": 5.0}, spec=make.spec(random_access=True), num_frames=frames_of(3))
    assert placed(schedule(state, 0.0)) == {"s0-0": "a/0"}
    make.happen(state, make.assigned("s0-0", "a/0"))
    heard(state, "job/s0-0/1", "denoise", 0.5, 3.0)
    assert schedule(state, 3.0) == []
    heard(state, "job/s0-0/1", "transfer", None, 5.0)
    assert placed(schedule(state, 5.0)) == {"s0-1": "a/0"}
    make.happen(state, make.assigned("s0-1", "a/0"), now=5.0)
    assert schedule(state, 5.0) == []
    make.happen(state, make.succeeded("s0-0", wall_s=6.0, load_s=0.0), now=6.0)
    assert schedule(state, 6.0) == [], "it renders the second"
    make.happen(state, make.failed("s0-1"), now=7.0)
    assert placed(schedule(state, 7.0)) == {"s0-1": "a/0"}


def test_a_segment_on_its_way_is_no_straggler(make: Any) -> None:
    state = straggling(make)
    heard(state, "job/s0-0/1", "transfer", None, 6.0)
    assert schedule(state, 60.0) == []


def test_a_draining_worker_gets_nothing_while_it_hands_over(make: Any) -> None:
    state = farm(make, {"a/0": 5.0}, spec=make.spec(random_access=True), num_frames=frames_of(2))
    make.happen(state, make.assigned("s0-0", "a/0"), WorkerDraining(worker_id="a/0"))
    heard(state, "job/s0-0/1", "transfer", None, 5.0)
    assert schedule(state, 5.0) == []


# Unequal tasks.


def test_a_draft_is_timed_by_its_own_steps_and_keyframes_by_those_that_are_run(make: Any) -> None:
    spec = make.spec(min_fps=1.0, default_steps=50, random_access=False)
    inputs = (make.image(0), make.image(1))
    refined = {"spec": spec, "mode": "refine", "num_frames": 40, "inputs": inputs}
    state = farm(make, {"a/0": 50.0, "b/0": 50.0}, **refined)
    make.happen(state, make.assigned("d0-0", "a/0"), make.succeeded("d0-0", wall_s=51.0))
    expected = {"d1-0": 50.0, "k0-0": 15.0}
    assert {a.task_id: a.predicted_s for a in schedule(state, 0.0)} == pytest.approx(expected)


# Models that are on some machines' disks.


@pytest.mark.parametrize(
    ("of_first", "of_second", "first", "predicted_s"),
    [
        (None, None, "a/0", 20.0),
        ({"synthetic": 1}, {"synthetic": 1}, "a/0", 20.0),
        ({}, {}, "a/0", 60.0),
        ({"other": 1}, {"synthetic": 1}, "b/0", 30.0),
        # Whoever has not told is not taken to lack anything.
        ({}, None, "b/0", 30.0),
    ],
)
def test_who_has_the_model_on_its_disk_is_preferred_while_others_would_have_to_take_it(
    make: Any, of_first: Any, of_second: Any, first: str, predicted_s: float
) -> None:
    """It has 4 GB, which is 40 seconds; the slower worker takes 10 seconds more for the segment."""
    state = farm(make, {"a/0": 20.0, "b/0": 30.0}, spec=make.spec(disk_bytes=int(40 * FETCH_BYTES_PER_S)))
    for worker in state.workers.values():
        worker.warm_model = None
    for worker_id in state.workers:
        state.profiles.load_s[worker_id, "synthetic"] = 1e-9
    assert schedule(state, 0.0), "the index is there before they tell"
    for worker_id, models in (("a/0", of_first), ("b/0", of_second)):
        if models is not None:
            told_models(state, worker_id, models)
    (found,) = schedule(state, 0.0)
    assert (found.worker_id, found.predicted_s) == (first, pytest.approx(predicted_s))
    quoted = quote(state, state.jobs["job"].plan, 0.0)
    assert quoted.predicted_s is not None
    assert quoted.predicted_s >= predicted_s


def test_all_workers_of_a_machine_have_what_one_of_them_tells(make: Any) -> None:
    state = farm(make, {"a/0": 20.0, "a/1": 20.0, "b/0": 20.0})
    told_models(state, "a/1", {"synthetic": 7})
    told_models(state, "gone/0", {"synthetic": 7})
    assert {worker_id: worker.models for worker_id, worker in state.workers.items()} == {
        "a/0": {"synthetic": 7},
        "a/1": {"synthetic": 7},
        "b/0": None,
    }


# Unequal cards.


def test_the_fast_card_takes_the_task_both_could(make: Any) -> None:
    state = farm(make, {"slow/0": 10.0, "fast/0": 1.0})
    assert placed(schedule(state, 0.0)) == {"s0-0": "fast/0"}


def test_the_slow_card_is_left_idle_when_the_fast_one_would_still_be_done_sooner(make: Any) -> None:
    state = farm(make, {"slow/0": 10.0, "fast/0": 1.0}, num_frames=frames_of(2))
    assert placed(schedule(state, 0.0)) == {"s0-0": "fast/0"}
    make.happen(state, make.assigned("s0-0", "fast/0", predicted_s=1.0))
    assert schedule(state, 0.5) == []


def test_the_slow_card_helps_when_there_is_enough_to_do(make: Any) -> None:
    state = farm(make, {"slow/0": 10.0, "fast/0": 1.0}, num_frames=frames_of(30))
    assert sorted(placed(schedule(state, 0.0)).values()) == ["fast/0", "slow/0"]


def test_equal_cards_take_one_each_in_plan_order(make: Any) -> None:
    state = farm(make, dict.fromkeys(("c/0", "a/0", "b/0"), 5.0), num_frames=frames_of(9))
    assert placed(schedule(state, 0.0)) == {"s0-0": "a/0", "s0-1": "b/0", "s0-2": "c/0"}


def test_a_worker_where_the_model_is_loaded_is_preferred(make: Any) -> None:
    state = farm(make, {"a/0": 5.0, "b/0": 5.0})
    state.workers["a/0"].warm_model = "another"
    assert placed(schedule(state, 0.0)) == {"s0-0": "b/0"}


def test_two_jobs_of_two_models_each_go_where_their_model_is(make: Any) -> None:
    state = farm(make, {"a/0": 5.0, "b/0": 5.0})
    spec = make.spec(model="other", random_access=True)
    make.happen(state, make.submitted("job2", spec=spec, model="other", num_frames=8))
    state.workers["a/0"].warm_model = "other"
    for worker in ("a/0", "b/0"):
        state.profiles.seconds_per_unit[worker, "other"] = state.profiles.seconds_per_unit[
            worker, "synthetic"
        ]
    assert {(a.job_id, a.worker_id) for a in schedule(state, 0.0)} == {("job", "b/0"), ("job2", "a/0")}


def test_a_measured_load_outweighs_the_prior(make: Any) -> None:
    state = farm(make, {"a/0": 5.0, "b/0": 5.0})
    state.workers["a/0"].warm_model = state.workers["b/0"].warm_model = None
    state.profiles.load_s["a/0", "synthetic"] = 40.0
    assert placed(schedule(state, 0.0)) == {"s0-0": "b/0"}


# Memory.


@pytest.mark.parametrize(
    ("vram_gib", "rung"),
    [(24, "resident"), (4.51, "resident"), (4.49, "evict"), (3.4, "stream"), (1.9, None)],
)
def test_a_worker_gets_the_fastest_rung_it_can_hold(make: Any, vram_gib: float, rung: str | None) -> None:
    state = make.state([*make.joined(make.worker("a/0", vram_gib)), make.submitted(num_frames=8)])
    assert [a.rung for a in schedule(state, 0.0)] == ([rung] if rung else [])


def test_after_running_out_of_memory_the_same_card_takes_the_next_rung(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0", 6)), make.submitted(num_frames=8)])
    for attempt, rung in enumerate(("resident", "evict", "stream"), 1):
        (assignment,) = schedule(state, 0.0)
        assert assignment.rung == rung
        make.happen(
            state,
            make.assigned("s0-0", "a/0", attempt=attempt, rung=rung),
            make.failed("s0-0", "oom", attempt=attempt),
        )
    assert schedule(state, 0.0) == []


def test_a_need_that_was_raised_keeps_equal_cards_away_and_larger_ones_not(make: Any) -> None:
    workers = (make.worker("a/0", 6), make.worker("b/0", 6), make.worker("c/0", 7))
    state = make.state([*make.joined(*workers), make.submitted(num_frames=frames_of(8))])
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", "oom"))
    rungs = {a.worker_id: a.rung for a in schedule(state, 0.0)}
    assert rungs == {"a/0": "evict", "b/0": "evict", "c/0": "resident"}


@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 300), marks=pytest.mark.slow)], ids=str)
def test_no_assignment_ever_breaks_a_rule_in_random_states(make: Any, seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        state = random_state(make, rng)
        now = rng.uniform(0, 60)
        before = copy.deepcopy(state)
        assignments = schedule(state, now)
        assert state == before, "schedule changed the state"
        assert schedule(before, now) == assignments, "schedule is not deterministic"
        assert len({a.worker_id for a in assignments}) == len(assignments)
        assert len({(a.job_id, a.task_id) for a in assignments}) == len(assignments)
        for a in assignments:
            worker, job = state.workers[a.worker_id], state.jobs[a.job_id]
            task = job.tasks[a.task_id]
            needs = state.profiles.needs(job.plan, task.segment, worker.worker.kind)
            assert needs[a.rung].vram_bytes == a.need_bytes <= worker.worker.vram_bytes
            assert not worker.draining
            assert not worker.attempts
            assert job.status == "running"
            assert task.status == "ready" or (task.status == "running" and len(task.running_attempts) == 1)
            able = able_workers(state, job, task)
            assert a.worker_id not in barred(task, able)


def random_state(make: Any, rng: random.Random) -> State:
    kinds = ("error", "invalid_output", "lost", "stalled", "oom", "cannot_start")
    workers = [
        make.worker(f"w{i}/0", rng.uniform(1, 8), kind=rng.choice(("cuda", "cuda", "cpu")))
        for i in range(rng.randint(1, 6))
    ]
    state: State = make.state(make.joined(*workers))
    for number in range(rng.randint(1, 3)):
        request = {
            "num_frames": rng.randint(1, 60),
            "width": 8 * rng.randint(8, 96),
            "height": 8 * rng.randint(8, 96),
            "priority": rng.choice((10, 50)),
        }
        make.happen(state, make.submitted(f"job{number}", **request))
    for _ in range(rng.randint(0, 12)):
        now = rng.uniform(0, 30)
        assignments = schedule(state, now)
        if assignments:
            a = rng.choice(assignments)
            number = len(state.jobs[a.job_id].tasks[a.task_id].attempts) + 1
            names = {"attempt": number, "job": a.job_id}
            event = make.assigned(
                a.task_id,
                a.worker_id,
                rung=a.rung,
                need_bytes=a.need_bytes,
                predicted_s=a.predicted_s,
                **names,
            )
            make.happen(state, event, now=now)
            if rng.random() < 0.6:
                end = rng.choice(("succeeded", *kinds))
                ended = (
                    make.succeeded(a.task_id, wall_s=rng.uniform(2, 30), **names)
                    if end == "succeeded"
                    else make.failed(a.task_id, end, **names)
                )
                make.happen(state, ended, now=now)
    for worker in workers:
        if rng.random() < 0.15:
            make.happen(state, WorkerDraining(worker_id=worker.id))
    return state


# Who is left out.


def test_a_copy_that_fails_after_its_task_was_opened_again_bars_its_worker_too(make: Any) -> None:
    state = farm(make, {"a/0": 10.0, "b/0": 40.0})
    make.happen(state, make.assigned("s0-0", "b/0"), make.assigned("s0-0", "a/0", attempt=2))
    make.happen(state, make.succeeded("s0-0", wall_s=41.0))
    make.happen(state, TaskReopened(job_id="job", task_id="s0-0", take=1, reason="seam"))
    make.happen(state, make.failed("s0-0", attempt=2))
    assert placed(schedule(state, 0.0)) == {"s0-0": "b/0"}


@pytest.mark.parametrize("kind", ["error", "invalid_output", "stalled", "cannot_start"])
def test_a_worker_that_failed_a_task_gets_others_but_not_that_one(make: Any, kind: Any) -> None:
    state = farm(make, {"a/0": 1.0, "b/0": 50.0}, num_frames=frames_of(2))
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", kind))
    assert placed(schedule(state, 0.0)) == {"s0-0": "b/0", "s0-1": "a/0"}


@pytest.mark.parametrize("kind", ["error", "invalid_output", "stalled", "cannot_start", "lost", "oom"])
def test_a_task_never_waits_for_an_idle_worker_that_alone_can_hold_it(make: Any, kind: Any) -> None:
    state = farm(make, {"a/0": 1.0})
    make.happen(state, *make.joined(make.worker("small/0", 1)))
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", kind))
    assert placed(schedule(state, 0.0)) == {"s0-0": "a/0"}


def test_a_bar_falls_when_the_last_other_worker_leaves_or_drains(make: Any) -> None:
    for end in (WorkerLeft(worker_id="b/0", reason="died"), WorkerDraining(worker_id="b/0")):
        state = farm(make, {"a/0": 1.0, "b/0": 1.0})
        make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", "stalled"))
        assert placed(schedule(state, 0.0)) == {"s0-0": "b/0"}
        make.happen(state, end)
        assert placed(schedule(state, 0.0)) == {"s0-0": "a/0"}


def test_a_worker_that_was_lost_and_came_back_may_try_again(make: Any) -> None:
    state = farm(make, {"a/0": 1.0})
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", "lost"))
    assert placed(schedule(state, 0.0)) == {"s0-0": "a/0"}


def test_a_draining_worker_gets_nothing_new(make: Any) -> None:
    state = farm(make, {"a/0": 1.0, "b/0": 50.0}, num_frames=frames_of(2))
    make.happen(state, WorkerDraining(worker_id="a/0"))
    assert placed(schedule(state, 0.0)) == {"s0-0": "b/0"}


def test_a_busy_worker_gets_nothing(make: Any) -> None:
    state = farm(make, {"a/0": 1.0}, num_frames=frames_of(2))
    make.happen(state, make.assigned("s0-0", "a/0"))
    assert schedule(state, 0.0) == []


def test_a_task_that_waits_for_another_is_not_handed_out(make: Any) -> None:
    state = make.state(make.joined(make.worker("a/0"), make.worker("b/0")))
    make.happen(state, make.submitted(spec=make.spec(), num_frames=frames_of(3)))
    assert [a.task_id for a in schedule(state, 0.0)] == ["s0-0"]


# Jobs beside jobs.


def test_the_higher_priority_goes_first(make: Any) -> None:
    state = farm(make, {"a/0": 1.0}, num_frames=frames_of(3))
    make.happen(state, make.submitted("urgent", priority=90, num_frames=8))
    assert [a.job_id for a in schedule(state, 0.0)] == ["urgent"]


def test_jobs_of_one_priority_share_the_farm_evenly(make: Any) -> None:
    state = farm(make, dict.fromkeys(("a/0", "b/0", "c/0", "d/0"), 5.0), num_frames=frames_of(20))
    make.happen(state, make.submitted("job2", num_frames=frames_of(20)))
    assert sorted(a.job_id for a in schedule(state, 0.0)) == ["job", "job", "job2", "job2"]


def test_a_job_that_has_less_running_catches_up_first(make: Any) -> None:
    state = farm(make, dict.fromkeys(("a/0", "b/0", "c/0", "d/0"), 5.0), num_frames=frames_of(20))
    make.happen(state, make.assigned("s0-0", "a/0"), make.assigned("s0-1", "b/0"))
    make.happen(state, make.submitted("job2", num_frames=frames_of(20)))
    assert [a.job_id for a in schedule(state, 0.0)] == ["job2", "job2"]


def test_a_large_job_that_fits_nowhere_does_not_hold_up_the_next(make: Any) -> None:
    state = make.state(make.joined(make.worker("a/0", 3)))
    many = frames_of(LOOKS + 10)
    make.happen(state, make.submitted("huge", num_frames=many, priority=90, width=2048, height=2048))
    make.happen(state, make.submitted("small", num_frames=8))
    assert [a.job_id for a in schedule(state, 0.0)] == ["small"]


def test_a_job_that_has_ended_gets_no_worker(make: Any) -> None:
    from farm.state.events import JobCancelled

    state = farm(make, {"a/0": 1.0})
    make.happen(state, JobCancelled(job_id="job"))
    assert schedule(state, 0.0) == []


# Second copies.


def straggling(make: Any, *, predicted_s: float = 5.0) -> State:
    """One segment on slow/0 since time 0; fast/0 idle with nothing to do."""
    state = farm(make, {"slow/0": predicted_s, "fast/0": 2.0})
    make.happen(state, make.assigned("s0-0", "slow/0", predicted_s=predicted_s), now=0.0)
    return state


def test_an_idle_worker_takes_a_second_copy_of_a_straggler(make: Any) -> None:
    (copy_of,) = schedule(straggling(make), 20.0)
    assert (copy_of.task_id, copy_of.worker_id) == ("s0-0", "fast/0")
    assert copy_of.why == "second copy: done in 2.0 s, slow/0 needs 20.0 s more"


def test_there_is_no_copy_before_the_prediction_is_over(make: Any) -> None:
    assert schedule(straggling(make), 4.9) == []


def test_there_is_no_copy_of_an_attempt_that_is_nearly_done(make: Any) -> None:
    state = straggling(make)
    attempt = state.jobs["job"].tasks["s0-0"].attempts[0]
    attempt.done_fraction, attempt.denoising_since = 0.95, 0.0
    assert schedule(state, 20.0) == []


def test_there_is_no_third_copy(make: Any) -> None:
    state = straggling(make)
    state = make.happen(state, *make.joined(make.worker("third/0", 24)))
    make.happen(state, make.assigned("s0-0", "fast/0", attempt=2), now=20.0)
    assert schedule(state, 60.0) == []


def test_there_is_no_copy_of_a_short_task(make: Any) -> None:
    state = farm(make, {"slow/0": 0.1, "fast/0": 0.01})
    make.happen(state, make.assigned("s0-0", "slow/0", predicted_s=0.1), now=0.0)
    assert schedule(state, 0.9) == []
    assert len(schedule(state, 1.1)) == 1


def test_a_copy_goes_neither_to_a_small_card_nor_to_one_that_failed_nor_to_a_draining_one(make: Any) -> None:
    state = straggling(make)
    task = state.jobs["job"].tasks["s0-0"]
    small = state.workers["fast/0"].worker.model_copy(update={"vram_bytes": 1})
    for spoil in ("small", "failed", "draining"):
        spoilt = copy.deepcopy(state)
        if spoil == "small":
            spoilt.workers["fast/0"].worker = small
        elif spoil == "draining":
            spoilt.workers["fast/0"].draining = True
        else:
            make.happen(spoilt, make.assigned("s0-0", "fast/0", attempt=2), make.failed("s0-0", attempt=2))
        assert schedule(spoilt, 20.0) == [], spoil
    assert task.status == "running"


# Reasons for people.


def test_an_assignment_says_what_fits_and_whom_it_beat(make: Any) -> None:
    (assignment,) = schedule(farm(make, {"slow/0": 10.0, "fast/0": 1.0}), 0.0)
    assert assignment.why == "resident fits (4.50 GiB of 24.00 GiB); done 9.0 s before slow/0"
    (alone,) = schedule(farm(make, {"a/0": 1.0}), 0.0)
    assert alone.why == "resident fits (4.50 GiB of 24.00 GiB); the only worker that can"


def test_why_a_task_does_not_run_there_has_an_answer_for_every_worker(make: Any) -> None:
    ids = ("idle/0", "busy/0", "failed/0", "draining/0")
    state = farm(make, dict.fromkeys(ids, 1.0), num_frames=frames_of(3))
    make.happen(state, *make.joined(make.worker("small/0", 1)), WorkerDraining(worker_id="draining/0"))
    make.happen(state, make.assigned("s0-0", "failed/0"), make.failed("s0-0", message="a bad pixel"))
    make.happen(state, make.assigned("s0-1", "busy/0"))
    job = state.jobs["job"]
    assert explain(state, job, job.tasks["s0-0"]) == {
        "idle/0": "can take it at resident",
        "busy/0": "is busy",
        "failed/0": "has failed this task: a bad pixel",
        "draining/0": "is draining",
        "small/0": "has 1.00 GiB, the smallest rung (stream) needs 2.00 GiB",
    }


def test_what_is_left_of_an_attempt_is_foretold_from_its_steps_and_not_from_loading(make: Any) -> None:
    events = make.submitted(), make.assigned("s0-0", "a/0", predicted_s=70.0)
    state = make.state([*make.joined(make.worker("a/0")), *events])
    attempt = state.jobs["job"].tasks["s0-0"].attempts[0]
    assert remaining_s(attempt, 60.0) == pytest.approx(10.0)
    attempt.denoising_since, attempt.done_fraction = 60.0, 0.1
    assert remaining_s(attempt, 61.0) == pytest.approx(9.0), "not 61 s nine times over"


# Many workers.


def test_what_one_call_leaves_idle_the_next_ones_give_something(make: Any) -> None:
    ids = [f"w{number:03}/0" for number in range(2 * MAX_ASSIGNMENTS + 5)]
    state = farm(make, dict.fromkeys(ids, 5.0), num_frames=frames_of(len(ids)))
    given: list[Assignment] = []
    while decided := schedule(state, 0.0):
        assert len(decided) <= MAX_ASSIGNMENTS
        given += decided
        make.happen(state, *(make.assigned(a.task_id, a.worker_id, predicted_s=5.0) for a in decided))
    assert placed(given) == {f"s0-{number}": worker_id for number, worker_id in enumerate(ids)}


def test_on_a_large_farm_alternating_jobs_share_evenly_and_slow_cards_wait_for_fast_ones(make: Any) -> None:
    speeds = {f"w{number:03}/0": 1.0 if number % 2 else 6.0 for number in range(512)}
    state = farm(make, speeds, num_frames=frames_of(300))
    make.happen(state, make.submitted("job2", num_frames=frames_of(300)))
    given: list[Assignment] = []
    while decided := schedule(state, 0.0):
        given += decided
        for a in decided:
            event = make.assigned(a.task_id, a.worker_id, predicted_s=a.predicted_s, job=a.job_id)
            make.happen(state, event)
    assert len({(a.job_id, a.task_id) for a in given}) == len(given)
    assert {speeds[a.worker_id] for a in given} == {1.0}, "256 fast ones end 600 in 3 s"
    shares = [sum(a.job_id == job_id for a in given) for job_id in ("job", "job2")]
    assert shares == [128, 128]


def test_a_person_with_many_jobs_gets_as_much_as_one_with_one(make: Any) -> None:
    state = make.state(make.joined(*(make.worker(f"w{number}/0") for number in range(6))))
    people = {"a1": "anna", "a2": "anna", "a3": "anna", "b1": "ben"}
    for job_id, person in people.items():
        submitted = make.submitted(job_id, num_frames=frames_of(9))
        make.happen(state, submitted.model_copy(update={"submitted_by_id": person}))
    assert sorted(a.job_id for a in schedule(state, 0.0)) == ["a1", "a2", "a3", "b1", "b1", "b1"]


def test_why_one_worker_does_not_run_a_task_is_told_without_the_others(make: Any) -> None:
    state = farm(make, dict.fromkeys(("a/0", "b/0"), 1.0), num_frames=frames_of(2))
    make.happen(state, make.assigned("s0-0", "a/0"))
    job = state.jobs["job"]
    assert explain(state, job, job.tasks["s0-1"], ["a/0"]) == {"a/0": "is busy"}


def test_a_lower_priority_gets_what_a_higher_one_of_many_jobs_leaves(make: Any) -> None:
    state = farm(
        make, {f"w{number:03}/0": 5.0 for number in range(300)}, num_frames=frames_of(20), priority=20
    )
    for number in range(12):
        make.happen(state, make.submitted(f"urgent{number}", num_frames=frames_of(2), priority=90))
    given = [a.job_id for a in schedule(state, 0.0)]
    assert len(given) == 12 * 2 + 20
    assert given.count("job") == 20
