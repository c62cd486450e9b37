"""What a job that stands still waits for, and its place in the queue."""

from __future__ import annotations

from typing import Any

import pytest

from farm.scheduling.waiting import Waiting, waiting
from farm.state.events import (
    Event,
    JobCancelled,
    JobPrioritized,
    WorkerDraining,
    WorkerEnabled,
    WorkerLeft,
)
from farm.state.state import State


def drained(worker_id: str) -> list[Event]:
    return [WorkerDraining(worker_id=worker_id), WorkerLeft(worker_id=worker_id, reason="was released")]


def of(state: State, job: str = "job") -> Waiting | None:
    return waiting(state, state.jobs[job])


def test_nothing_that_runs_is_joined_or_has_ended_waits(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    make.happen(state, make.assigned("s0-0", "a/0"))
    assert of(state) is None
    make.happen(state, make.succeeded("s0-0"))
    assert of(state) is None
    make.happen(state, make.submitted("other", num_frames=8), JobCancelled(job_id="other"))
    assert of(state, "other") is None


#: what is there -> (workers with GiB, what happens to them, the reason)
SITUATIONS: list[tuple[str, dict[str, float], list[Event], str]] = [
    ("no worker is here", {}, [], "no worker is here; `farm join` on a machine brings its cards"),
    (
        "the only worker has left for good",
        {"a/0": 8.0},
        [WorkerLeft(worker_id="a/0", reason="is gone")],
        "no worker is here; `farm join` on a machine brings its cards",
    ),
    (
        "all are drained",
        {"a/0": 8.0, "a/1": 8.0},
        [*drained("a/0"), *drained("a/1")],
        "a/0, a/1 could take it and are all drained; `farm enable a` ends that",
    ),
    (
        "the one that could take it is drained, its small neighbour is not",
        {"a/0": 8.0, "a/1": 0.5},
        drained("a/0"),
        "a/0 could take it and is drained; `farm enable a/0` ends that",
    ),
    (
        "the last drain has not ended",
        {"a/0": 8.0},
        [WorkerDraining(worker_id="a/0")],
        "a/0 could take it and is draining; `farm enable a` ends that",
    ),
    (
        "a drained one is coming back",
        {"a/0": 8.0, "b/0": 8.0},
        [*drained("a/0"), *drained("b/0"), WorkerEnabled(worker_id="b/0")],
        "b/0 is starting",
    ),
    (
        "none fits",
        {"a/0": 0.5, "b/0": 1.0},
        [],
        "no worker here can hold segment s0-0: b/0 has 1.00 GiB, the smallest rung (stream) needs 2.00 GiB",
    ),
    (
        "none fits, and that is no drain's fault",
        {"a/0": 0.5},
        drained("a/0"),
        "no worker here can hold segment s0-0: a/0 has 0.50 GiB, the smallest rung (stream) needs 2.00 GiB",
    ),
    ("one is free", {"a/0": 8.0}, [], "segment s0-0 goes to a/0 next"),
]


@pytest.mark.parametrize(
    ("workers", "happens", "reason"), [s[1:] for s in SITUATIONS], ids=[s[0] for s in SITUATIONS]
)
def test_the_reason_is_true(make: Any, workers: dict[str, float], happens: list[Event], reason: str) -> None:
    state = make.state(make.joined(*(make.worker(w, gib) for w, gib in workers.items())))
    make.happen(state, make.submitted(num_frames=8), *happens)
    found = of(state)
    assert found == Waiting(reason, 1)


def test_where_the_others_have_failed_it_the_one_that_may_try_is_named_with_their_words(make: Any) -> None:
    state = make.state(make.joined(make.worker("a/0"), make.worker("b/0")))
    make.happen(state, make.submitted(num_frames=8))
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", "error", message="no such file"))
    make.happen(state, make.submitted("other", num_frames=8), make.assigned("s0-0", "b/0", job="other"))
    assert of(state) == Waiting(
        "b/0 can take it and is busy; the others have failed it (a/0: no such file)", 1
    )


def test_of_many_workers_three_are_named(make: Any) -> None:
    ids = [f"{name}/0" for name in "abcde"]
    state = make.state(make.joined(*map(make.worker, ids)))
    for worker_id in ids:
        make.happen(
            state,
            make.submitted(worker_id[0], num_frames=8),
            make.assigned("s0-0", worker_id, job=worker_id[0]),
        )
    make.happen(state, make.submitted(num_frames=8))
    assert of(state) == Waiting("a/0, b/0, c/0 and 2 more can take it and are busy", 1)


def test_places_follow_priority_then_who_came_first_and_may_be_changed(make: Any) -> None:
    state = make.state(
        [make.submitted(job, num_frames=8, priority=p) for job, p in [("a", 50), ("b", 50), ("c", 60)]]
    )

    def places() -> list[int]:
        return [found.position for job in "abc" if (found := of(state, job))]

    assert places() == [2, 3, 1]
    make.happen(state, JobPrioritized(job_id="b", priority=90))
    assert places() == [3, 1, 2]
    make.happen(state, JobCancelled(job_id="b"))
    assert places() == [2, 1]
