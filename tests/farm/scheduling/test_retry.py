"""What follows a failure, a silence and a failed seam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from farm.scheduling.retry import (
    MAX_FAILURES,
    MAX_TAKES,
    STALL_S,
    Keep,
    Rerender,
    StopJob,
    TryAgain,
    after_failure,
    after_fill,
    after_seam,
    barred,
    stall_limit_s,
    why_not_retried,
)
from farm.state.events import (
    Event,
    FailureKind,
    Fill,
    JobCancelled,
    JobFailed,
    JobPublished,
    WorkerDraining,
    WorkerLeft,
)
from farm.state.state import Failure, Seam, State, Task


def after(
    make: Any, workers: dict[str, float], failures: list[tuple[str, FailureKind]]
) -> TryAgain | StopJob:
    """The decision once a task has failed like this, one attempt after another."""
    state = make.state(make.joined(*(make.worker(w, gib) for w, gib in workers.items())))
    make.happen(state, make.submitted(num_frames=8))
    for number, (worker, kind) in enumerate(failures, 1):
        rung = ("resident", "evict", "stream")[min(number, 3) - 1]
        make.happen(
            state,
            make.assigned("s0-0", worker, attempt=number, rung=rung),
            make.failed("s0-0", kind, attempt=number, message=f"try {number}"),
        )
    return decide(state)


def decide(state: State) -> TryAgain | StopJob:
    job = state.jobs["job"]
    return after_failure(state, job, job.tasks["s0-0"])


FOUR = {"a/0": 8.0, "b/0": 8.0, "c/0": 8.0, "d/0": 8.0}

TRIED_AGAIN: list[tuple[str, dict[str, float], list[tuple[str, FailureKind]]]] = [
    ("after one error with another worker there", FOUR, [("a/0", "error")]),
    ("after two errors with a third worker there", FOUR, [("a/0", "error"), ("b/0", "invalid_output")]),
    ("after a loss, even on the only worker", {"a/0": 8.0}, [("a/0", "lost")]),
    ("after an error on the only worker", {"a/0": 8.0}, [("a/0", "error")]),
    ("after two black videos of the only worker", {"a/0": 8.0}, [("a/0", "invalid_output")] * 2),
    ("after a stall of the only worker", {"a/0": 8.0}, [("a/0", "stalled")]),
    ("when one failed and the other is too small", {"a/0": 8.0, "b/0": 1.0}, [("a/0", "error")]),
    ("when both have failed it once", {"a/0": 8.0, "b/0": 8.0}, [("a/0", "error"), ("b/0", "stalled")]),
    ("when one refuses it and the other has failed it", {"a/0": 8.0, "b/0": 8.0},
     [("b/0", "error"), ("a/0", "cannot_start")]),
    ("after a stall with another worker there", FOUR, [("a/0", "stalled")]),
    ("after running out of memory with a rung left", {"a/0": 8.0}, [("a/0", "oom"), ("a/0", "oom")]),
    ("after many refusals to start", FOUR, [("a/0", "cannot_start"), ("b/0", "cannot_start"),
                                             ("c/0", "cannot_start")]),
    ("out of memory counts as no failure", FOUR, [("a/0", "oom"), ("a/0", "oom"), ("b/0", "error"),
                                                   ("c/0", "error")]),
    ("withdrawals count as none", {"a/0": 8.0}, [("a/0", "cancelled")] * 5),
    ("restarts count as none", {"a/0": 8.0}, [("a/0", "coordinator_restart")] * 5),
]  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "failures"), [r[1:] for r in TRIED_AGAIN], ids=[r[0] for r in TRIED_AGAIN]
)
def test_a_task_is_tried_again(
    make: Any, workers: dict[str, float], failures: list[tuple[str, FailureKind]]
) -> None:
    assert after(make, workers, failures) == TryAgain()


STOPPED: list[tuple[str, dict[str, float], list[tuple[str, FailureKind]], str]] = [
    ("after three failures", FOUR, [("a/0", "error"), ("b/0", "lost"), ("c/0", "stalled")],
     "segment s0-0 failed 3 times (a/0: try 1; b/0: try 2; c/0: try 3)"),
    ("after three losses of one worker", {"a/0": 8.0}, [("a/0", "lost")] * 3,
     "segment s0-0 failed 3 times (a/0: try 1; a/0: try 2; a/0: try 3)"),
    ("after three stalls of the only worker", {"a/0": 8.0}, [("a/0", "stalled")] * 3,
     "segment s0-0 failed 3 times (a/0: try 1; a/0: try 2; a/0: try 3)"),
    ("after two errors of one worker and one of the other", {"a/0": 8.0, "b/0": 8.0},
     [("a/0", "error"), ("b/0", "error"), ("a/0", "error")],
     "segment s0-0 failed 3 times (a/0: try 1; b/0: try 2; a/0: try 3)"),
    ("when the only worker refuses it", {"a/0": 8.0}, [("a/0", "cannot_start")],
     "no worker is left for segment s0-0 (a/0 refused it: try 1)"),
    ("when one refuses it and the other is too small", {"a/0": 8.0, "b/0": 1.0}, [("a/0", "cannot_start")],
     "no worker is left for segment s0-0 (a/0 refused it: try 1; "
     "b/0 has 1.00 GiB, the smallest rung (stream) needs 2.00 GiB)"),
    ("when all have refused it", {"a/0": 8.0, "b/0": 8.0}, [("a/0", "cannot_start"), ("b/0", "cannot_start")],
     "no worker is left for segment s0-0 (a/0 refused it: try 1; b/0 refused it: try 2)"),
    ("when memory ran out at every rung", {"a/0": 8.0}, [("a/0", "oom")] * 3,
     "no worker is left for segment s0-0 "
     "(a/0 has 8.00 GiB, the smallest rung (resident) needs more than 8.00 GiB)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "failures", "reason"), [r[1:] for r in STOPPED], ids=[r[0] for r in STOPPED]
)
def test_a_job_is_stopped_with_the_reason(
    make: Any, workers: dict[str, float], failures: list[tuple[str, FailureKind]], reason: str
) -> None:
    assert after(make, workers, failures) == StopJob(reason)


def test_a_job_waits_when_no_worker_is_there_at_all(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    make.happen(state, make.assigned("s0-0", "a/0"), WorkerLeft(worker_id="a/0", reason="died"))
    make.happen(state, make.failed("s0-0", "lost"))
    assert decide(state) == TryAgain()


def test_a_job_waits_for_a_draining_worker_rather_than_stopping(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8)])
    make.happen(state, WorkerDraining(worker_id="a/0"))
    assert decide(state) == TryAgain()


def test_a_job_waits_for_the_only_worker_that_can_hold_it_when_that_is_lost(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0"), make.worker("small/0", 1)), make.submitted()])
    make.happen(state, make.assigned("s0-0", "a/0"), WorkerLeft(worker_id="a/0", reason="died"))
    make.happen(state, make.failed("s0-0", "lost"))
    assert decide(state) == TryAgain()


def test_a_refusal_is_the_last_where_all_others_drain(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0"), make.worker("b/0")), make.submitted(num_frames=8)])
    make.happen(state, WorkerDraining(worker_id="b/0"))
    make.happen(state, make.assigned("s0-0", "a/0"), make.failed("s0-0", "cannot_start"))
    assert decide(state) == StopJob("no worker is left for segment s0-0 (a/0 refused it: no)")


AB = ("a/0", "b/0")

BARS: list[tuple[str, tuple[str, ...], list[tuple[str, FailureKind]], set[str]]] = [
    ("nobody before a failure", AB, [], set()),
    ("whoever raised", AB, [("a/0", "error")], {"a/0"}),
    ("whose frames were black", AB, [("a/0", "invalid_output")], {"a/0"}),
    ("who was silent", AB, [("a/0", "stalled")], {"a/0"}),
    ("who refused", AB, [("a/0", "cannot_start")], {"a/0"}),
    ("not whoever was lost", AB, [("a/0", "lost")] * 2, set()),
    ("not whose memory ran out", AB, [("a/0", "oom")] * 2, set()),
    ("nobody when all have failed it", AB, [("a/0", "error"), ("b/0", "stalled")], set()),
    ("whoever failed it most when all have", AB, [("a/0", "error"), ("b/0", "error"), ("a/0", "error")],
     {"a/0"}),
    ("never the only one that can hold it", ("a/0",), [("a/0", "stalled")] * 2, set()),
    ("not for what one that is gone did not fail", ("a/0",), [("a/0", "error"), ("b/0", "lost")], set()),
    ("nobody where nobody can hold it", (), [("a/0", "error")], set()),
]  # fmt: skip


@pytest.mark.parametrize(("able", "failures", "out"), [r[1:] for r in BARS], ids=[r[0] for r in BARS])
def test_a_worker_is_barred_while_another_has_failed_the_task_less_often(
    make: Any, able: tuple[str, ...], failures: list[tuple[str, FailureKind]], out: set[str]
) -> None:
    state = make.state([make.submitted(num_frames=8)])
    task = state.jobs["job"].tasks["s0-0"]
    task.failures = [Failure(worker, kind, "no") for worker, kind in failures]
    assert barred(task, able) == out


PUBLISHED = JobPublished(job_id="job", num_frames=8, frames_sha256="0" * 64, size_bytes=1, stitch_s=0.0)
GONE = WorkerLeft(worker_id="a/0", reason="died")

RETRIES: list[tuple[str, Callable[[Any], list[Event]], str]] = [
    ("one that failed", lambda make: [JobFailed(job_id="job", reason="no")], ""),
    ("one that was cancelled", lambda make: [JobCancelled(job_id="job")], ""),
    ("one that has succeeded", lambda make: [PUBLISHED], "is succeeded"),
    ("one that a worker is at", lambda make: [make.assigned("s0-0", "a/0")],
     "is running and a worker is at it"),
    ("one whose worker was lost",
     lambda make: [make.assigned("s0-0", "a/0"), GONE, make.failed("s0-0", "lost")], ""),
    ("one that waits for the first worker", lambda make: [GONE], "waits for a worker, and no worker is here"),
    ("one that waits though a worker is here", lambda make: [], ""),
]  # fmt: skip


@pytest.mark.parametrize(("happened", "refused"), [r[1:] for r in RETRIES], ids=[r[0] for r in RETRIES])
def test_what_failed_was_cancelled_or_waits_is_retried(
    make: Any, happened: Callable[[Any], list[Event]], refused: str
) -> None:
    state = make.state([*make.joined(make.worker("a/0")), make.submitted(num_frames=8), *happened(make)])
    said = why_not_retried(state, state.jobs["job"]) or ""
    assert said.startswith(refused) if refused else not said


def test_three_failures_is_the_limit_that_is_written_down() -> None:
    assert MAX_FAILURES == 3


@pytest.mark.parametrize(("phase", "limit_s"), STALL_S.items())
def test_every_phase_has_its_own_patience(phase: str, limit_s: float) -> None:
    assert stall_limit_s(phase, predicted_s=1.0) == limit_s


def test_a_long_prediction_buys_more_patience_and_an_unknown_phase_has_denoisings() -> None:
    assert stall_limit_s("denoise", predicted_s=1000.0) == 3000.0
    assert stall_limit_s("dreaming", predicted_s=1.0) == STALL_S["denoise"]


# Seams.


def seam(make: Any, *takes: tuple[str, ...]) -> Seam:
    return Seam(measured={i: make.measured("s0-1", i, *gates) for i, gates in enumerate(takes)})


BAD, WORSE = ("mae",), ("mae", "residual")

SEAMS: list[tuple[str, list[tuple[str, ...]], bool, Rerender | Keep]] = [
    ("passed at once", [()], True, Keep(0)),
    ("passed where nothing may be rendered again", [()], False, Keep(0)),
    ("failed once", [BAD], True, Rerender(1, "seam gates failed: mae")),
    ("failed twice", [BAD, WORSE], True, Rerender(2, "seam gates failed: mae, residual")),
    ("passed the second time", [WORSE, ()], True, Keep(1)),
    ("failed three times: the fewest gates win", [WORSE, BAD, WORSE], True,
     Keep(1, "kept with failed gates after 3 takes: mae")),
    ("failed three times alike: the first wins", [BAD, BAD, BAD], True,
     Keep(0, "kept with failed gates after 3 takes: mae")),
    ("failed where nothing may be rendered again", [WORSE], False,
     Keep(0, "kept with failed gates after 1 takes: mae, residual")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("takes", "may_rerender", "decision"), [r[1:] for r in SEAMS], ids=[r[0] for r in SEAMS]
)
def test_a_seam_is_kept_or_its_segment_rendered_again(
    make: Any, takes: list[tuple[str, ...]], may_rerender: bool, decision: Rerender | Keep
) -> None:
    assert after_seam(seam(make, *takes), may_rerender=may_rerender) == decision


FILLS: list[tuple[str, list[tuple[str, ...] | None], bool, Rerender | None]] = [
    ("not measured", [None], True, None),
    ("passed", [()], True, None),
    ("failed once", [("fade",)], True, Rerender(1, "gates failed: fade")),
    ("failed twice", [("fade",), ("fade", "static_fill")], True,
     Rerender(2, "gates failed: fade, static_fill")),
    ("passed the second time", [("fade",), ()], True, None),
    ("failed three times", [("fade",)] * 3, True, None),
    ("failed where nothing may be rendered again", [("fade",)], False, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("takes", "may_rerender", "decision"), [r[1:] for r in FILLS], ids=[r[0] for r in FILLS]
)
def test_a_window_between_given_frames_is_rendered_again_or_left(
    make: Any, takes: list[tuple[str, ...] | None], may_rerender: bool, decision: Rerender | None
) -> None:
    task = Task(make.plan().segments[0], 0, set())
    for take, gates in enumerate(takes):
        fill = None if gates is None else fill_of(*gates)
        task.take, task.artifacts[take] = take, make.artifact().model_copy(update={"fill": fill})
    assert after_fill(task, may_rerender=may_rerender) == decision


def fill_of(*gates: Any) -> Fill:
    return Fill(fade=0.0, hold_fraction=0.0, still_fraction=0.0, end_step=0.0, failed_gates=gates)


def test_no_segment_is_rendered_more_than_three_times_for_a_seam(make: Any) -> None:
    takes: list[tuple[str, ...]] = []
    decision: Rerender | Keep = Rerender(0, "")
    while isinstance(decision, Rerender):
        takes.append(BAD)
        decision = after_seam(seam(make, *takes), may_rerender=True)
    assert len(takes) == MAX_TAKES == 3
