"""Frames of a job rendered again: which segments that takes, what stays, and what the video becomes."""

from __future__ import annotations

from typing import Any

import pytest

from farm.errors import InvalidInput
from farm.scheduling.retry import Keep, after_seam
from farm.state.events import (
    JobFailed,
    JobReopened,
    SeamAccepted,
    TaskReopened,
)
from farm.state.rerender import to_rerender
from farm.state.state import State

# Which segments.


def rendered(make: Any, *task_ids: str, spec: Any = None, **request: Any) -> State:
    """A job of which these segments are done."""
    state: State = make.state([*make.joined(make.worker("a/0")), make.submitted(spec=spec, **request)])
    for task_id in task_ids:
        make.happen(state, make.assigned(task_id, "a/0"), make.succeeded(task_id))
    return state


def asked(state: State, start: int, end: int) -> list[str]:
    return [task.id for task in to_rerender(state.jobs["job"], start, end)]


ALL = ("s0-0", "s0-1", "s0-2")  # windows of 8 that share 3: frames 0-7, 5-12 and 10-17


@pytest.mark.parametrize(
    ("start", "end", "again"),
    [
        (0, 1, ["s0-0"]),
        (0, 5, ["s0-0"]),
        (0, 6, ["s0-0", "s0-1"]),  # frame 5 is of both
        (7, 8, ["s0-0", "s0-1"]),
        (8, 10, ["s0-1"]),
        (17, 18, ["s0-2"]),
        (0, 18, list(ALL)),
    ],
)
def test_of_independent_segments_those_that_show_a_frame_are_rendered_again(
    make: Any, start: int, end: int, again: list[str]
) -> None:
    assert asked(rendered(make, *ALL, num_frames=18, overlap_frames=3), start, end) == again


def test_in_a_chain_all_that_follows_is_rendered_again_too(make: Any) -> None:
    state = rendered(make, *ALL, spec=make.spec(), num_frames=18, overlap_frames=3)
    assert asked(state, 8, 9) == ["s0-1", "s0-2"]
    assert asked(state, 0, 1) == list(ALL)


def test_of_a_chain_what_is_being_rendered_begins_again_and_what_is_not_begun_waits(make: Any) -> None:
    state = rendered(make, "s0-0", "s0-1", spec=make.spec(), num_frames=23, overlap_frames=3)
    make.happen(state, make.assigned("s0-2", "a/0"))
    assert asked(state, 0, 1) == ["s0-0", "s0-1", "s0-2"]


def test_windows_of_a_refined_video_are_rendered_again_over_the_keyframes_that_are_there(make: Any) -> None:
    video = {"spec": make.spec(), "inputs": (make.video(18),), "mode": "refine", "overlap_frames": 3}
    state = rendered(make, "k0-0", *ALL, **video)
    assert asked(state, 0, 1) == ["s0-0"]


def test_a_segment_that_is_not_finished_is_left_alone(make: Any) -> None:
    state = rendered(make, "s0-0", num_frames=18, overlap_frames=3)
    make.happen(state, make.assigned("s0-1", "a/0"))
    assert asked(state, 0, 18) == ["s0-0"]


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (4, 4), (5, 4), (0, 19), (18, 19)])
def test_frames_that_there_are_none_of_are_refused(make: Any, start: int, end: int) -> None:
    with pytest.raises(InvalidInput, match="expected 0 <= start < end <= 18"):
        asked(rendered(make, *ALL, num_frames=18, overlap_frames=3), start, end)


def test_where_nothing_is_rendered_yet_there_is_nothing_to_do(make: Any) -> None:
    with pytest.raises(InvalidInput, match="no segment of frames 13 to 17 is rendered yet"):
        asked(rendered(make, "s0-0", num_frames=18, overlap_frames=3), 13, 18)


# What happens to the job.


def reopen(make: Any, state: State, *task_ids: str) -> None:
    job = state.jobs["job"]
    takes = {task_id: job.tasks[task_id].next_take for task_id in task_ids}
    make.happen(state, JobReopened(job_id="job", takes=takes))


def test_a_reopened_chain_begins_with_its_first_segment_and_the_rest_waits(make: Any) -> None:
    state = rendered(make, "s0-0", "s0-1", spec=make.spec(), num_frames=18, overlap_frames=3)
    reopen(make, state, "s0-0", "s0-1")
    job = state.jobs["job"]
    assert [(t.status, t.take) for t in job.tasks.values()] == [("ready", 1), ("waiting", 1), ("waiting", 0)]
    assert (job.num_done, job.ready) == (0, [0])
    make.happen(state, make.assigned("s0-0", "a/0", attempt=2), make.succeeded("s0-0", attempt=2))
    assert [t.status for t in job.tasks.values()] == ["done", "ready", "waiting"]


def test_a_failed_job_runs_again_and_its_failures_are_forgiven(make: Any) -> None:
    state = rendered(make, "s0-0", num_frames=18, overlap_frames=3)
    make.happen(
        state, make.assigned("s0-1", "a/0"), make.failed("s0-1"), JobFailed(job_id="job", reason="no")
    )
    reopen(make, state, "s0-0")
    job = state.jobs["job"]
    assert (job.status, job.reason, job.finished_at) == ("running", "", None)
    assert job.tasks["s0-1"].failures == []


def test_seams_of_a_reopened_segment_are_measured_anew_and_its_later_neighbour_is_kept(make: Any) -> None:
    state = rendered(make, *ALL, num_frames=18, overlap_frames=3)
    job = state.jobs["job"]
    make.happen(
        state,
        make.measured("s0-1", 0),
        SeamAccepted(job_id="job", task_id="s0-1", take=0),
        make.measured("s0-2", 0, "mae"),
        TaskReopened(job_id="job", task_id="s0-2", take=1, reason="seam"),
        make.assigned("s0-2", "a/0", attempt=2),
        make.succeeded("s0-2", attempt=2),
        make.measured("s0-2", 1, "mae", "lab"),
        SeamAccepted(job_id="job", task_id="s0-2", take=0),
    )
    reopen(make, state, "s0-1")
    assert "s0-1" not in job.seams
    later = job.tasks["s0-2"]
    assert (later.status, later.take) == ("done", 0), "the take that was in the video, not the newest"
    make.happen(state, make.measured("s0-2", 0, "mae"))
    assert isinstance(after_seam(job.seams["s0-2"], may_rerender=True), Keep)
    make.happen(state, SeamAccepted(job_id="job", task_id="s0-2", take=0))
    reopen(make, state, "s0-2")
    assert later.take == 2, "a take that was never rendered"
    make.happen(state, make.assigned("s0-2", "a/0", attempt=3), make.succeeded("s0-2", attempt=3))
    make.happen(state, make.measured("s0-2", 2, "mae"))
    assert not isinstance(after_seam(job.seams["s0-2"], may_rerender=True), Keep)


def test_a_neighbour_whose_seam_was_not_decided_yet_may_still_be_rendered_again(make: Any) -> None:
    state = rendered(make, *ALL, num_frames=18, overlap_frames=3)
    make.happen(state, make.measured("s0-1", 0, "mae"))
    reopen(make, state, "s0-0")
    make.happen(state, make.measured("s0-1", 0, "mae"))
    assert not isinstance(after_seam(state.jobs["job"].seams["s0-1"], may_rerender=True), Keep)
