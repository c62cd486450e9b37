"""A job that waits until its keyframes were looked at: what may happen to it, and what that changes."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities.frame_rule import FrameRule
from farm.errors import InvalidInput, NotFound, NotReady
from farm.planning.suggest import plan_over
from farm.scheduling.forecast import eta_s, quote
from farm.scheduling.retry import why_not_retried
from farm.scheduling.schedule import schedule
from farm.scheduling.waiting import waiting
from farm.state.changes import refusal
from farm.state.events import (
    Event,
    JobCancelled,
    JobDeleted,
    JobRetried,
    JobSubmitted,
    KeyframeReplaced,
    KeyframesRemade,
    ReviewApproved,
)
from farm.state.review import (
    check_approvable,
    check_reviewing,
    keyframe_of,
    made_again,
    next_seed,
    to_regrow,
    to_remake,
)
from farm.state.state import Job, State


class Reviewing:
    """A job of infill in windows of 17: drafts d0-0 and d0-1, clips k0-0 to k0-23 where they are longer
    than a frame, windows s0-0 and so on."""

    def __init__(self, make: Any, *, clips: bool, **asked: Any) -> None:
        self.make = make
        spec = make.spec(
            takes=frozenset({"image", "last_image", "text"}),
            frames=FrameRule.causal(4, max_frames=33),
            window_frames=17,
            max_end_latents=2 if clips else 1,
            native_fps=8,
            min_fps=0.5,
        )
        request = make.request(**{"mode": "infill", "num_frames": 300, "review": True, **asked})
        plan = plan_over(request, spec, [])
        self.state: State = make.state(
            [*make.joined(make.worker("a/0")), JobSubmitted(job_id="job", request=request, plan=plan)]
        )
        self.job: Job = self.state.jobs["job"]

    def render(self, *segments: str) -> None:
        for number, segment in enumerate(segments):
            attempt = len(self.job.tasks[segment].attempts) + 1
            artifact = self.make.artifact(1000 + 100 * attempt + number)
            self.happen(
                self.make.assigned(segment, "a/0", attempt=attempt),
                self.make.succeeded(segment, attempt=attempt, artifact=artifact),
            )

    def render_keyframes(self) -> None:
        while ready := [self.job.order[i] for i in self.job.ready]:
            self.render(*ready)

    def happen(self, *events: Event) -> None:
        self.make.happen(self.state, *events)

    def remake(self, number: int, seed: int) -> None:
        keyframe = keyframe_of(self.job, number)
        takes = {task.id: task.next_take for task in to_remake(self.job, keyframe)}
        self.happen(
            KeyframesRemade(
                job_id="job", task_id=keyframe.segment, position=keyframe.position, takes=takes, seed=seed
            )
        )

    def replace(self, number: int, media: Any) -> None:
        keyframe = keyframe_of(self.job, number)
        takes = {task.id: task.next_take for task in to_regrow(self.job, keyframe)}
        self.happen(
            KeyframeReplaced(
                job_id="job", task_id=keyframe.segment, position=keyframe.position, takes=takes, media=media
            )
        )

    def status(self, *segments: str) -> list[str]:
        return [self.job.tasks[segment].status for segment in segments]


@pytest.fixture
def reviewing(make: Any) -> Reviewing:
    return Reviewing(make, clips=False)


def test_no_window_is_given_out_before_the_keyframes_are_approved(reviewing: Reviewing) -> None:
    assert [a.task_id for a in schedule(reviewing.state, 0.0)] == ["d0-0"]
    reviewing.render_keyframes()
    assert reviewing.job.awaits_review
    assert schedule(reviewing.state, 0.0) == []
    reviewing.happen(ReviewApproved(job_id="job"))
    assert not reviewing.job.awaits_review
    assert [a.task_id for a in schedule(reviewing.state, 0.0)] == ["s0-0"]
    assert len(reviewing.job.ready) == len(reviewing.job.plan.final_segments)


def test_a_job_that_waits_for_its_user_says_so_and_is_in_nobodys_way(reviewing: Reviewing, make: Any) -> None:
    state, job = reviewing.state, reviewing.job
    assert eta_s(state, job, 0.0) is None
    reviewing.render_keyframes()
    found = waiting(state, job)
    assert found is not None
    assert found.reason == f"its {len(job.keyframes)} keyframes wait for you; `farm review job` shows them"
    assert found.position is None
    assert "waits for you" in (why_not_retried(state, job) or "")
    other = make.submitted("other")
    assert not [note for note in quote(state, other.plan, 0.0).notes if "other jobs" in note]
    reviewing.happen(other)
    assert {a.job_id for a in schedule(state, 0.0)} == {"other"}


def test_a_quote_tells_when_it_waits_for_its_user(reviewing: Reviewing) -> None:
    plan = reviewing.job.plan
    held = quote(reviewing.state, plan, 0.0)
    at_once = quote(reviewing.state, plan.model_copy(update={"review": False}), 0.0)
    assert any(note.startswith("waits for you after about ") for note in held.notes)
    assert sum(w.segments for w in held.workers) == len(plan.segments)
    assert held.predicted_s == pytest.approx(at_once.predicted_s), "one worker is busy all the time"
    assert held.critical_path_s is not None
    assert at_once.critical_path_s is not None
    assert held.critical_path_s >= at_once.critical_path_s


@pytest.mark.parametrize(
    ("number", "again", "numbers"),
    [
        pytest.param(1, ["d0-0", "d0-1"], [*range(1, 19)], id="of the first draft window: all"),
        pytest.param(16, ["d0-0", "d0-1"], [*range(1, 19)], id="its last frame is handed over"),
        pytest.param(17, ["d0-1"], [17, 18], id="of the second: what comes with it"),
    ],
)
def test_a_keyframe_is_made_again_what_is_chained_to_it(
    reviewing: Reviewing, number: int, again: list[str], numbers: list[int]
) -> None:
    reviewing.render_keyframes()
    keyframe = keyframe_of(reviewing.job, number)
    assert [task.id for task in to_remake(reviewing.job, keyframe)] == again
    assert list(made_again(reviewing.job, keyframe.made_by)) == numbers


def test_what_is_made_again_has_its_seed_and_waits_for_what_it_starts_from(reviewing: Reviewing) -> None:
    reviewing.render_keyframes()
    job = reviewing.job
    assert next_seed(job, job.tasks["d0-0"]) == 1
    reviewing.remake(1, seed=7)
    assert reviewing.status("d0-0", "d0-1") == ["ready", "waiting"]
    assert (job.num_done, job.awaits_review) == (0, False)
    assert [job.tasks[s].seed for s in ("d0-0", "d0-1", "s0-0")] == [7, 7, None]
    task = job.plan.render_task(job.tasks["d0-0"].segment, take=1, seed=7)
    assert (task.seed, task.take) == (7, 0), "as a job of that seed would be rendered"
    assert next_seed(job, job.tasks["d0-0"]) == 8
    reviewing.remake(17, seed=9)  # impatient: before the first is there
    assert reviewing.status("d0-0", "d0-1") == ["ready", "waiting"]
    assert [job.tasks[s].seed for s in ("d0-0", "d0-1")] == [7, 9]
    reviewing.render_keyframes()
    assert job.awaits_review


def test_clips_that_grow_out_of_a_replaced_keyframe_are_made_again_and_no_others(make: Any) -> None:
    reviewing = Reviewing(make, clips=True, num_frames=40)
    reviewing.render_keyframes()
    job = reviewing.job
    reviewing.replace(2, make.image(5))
    assert reviewing.status("d0-0", "k0-0", "k0-1") == ["done", "done", "ready"]
    assert reviewing.status("s0-0", "s0-1") == ["waiting", "waiting"]
    with pytest.raises(NotReady, match="1 segments of the keyframes"):
        check_approvable(job)
    reviewing.render("k0-1")
    check_approvable(job)
    assert made_again(job, "d0-0") == (1,), "what was replaced stays"
    reviewing.remake(2, seed=3)
    assert job.pictures == {}, "but where it is itself made again"


def test_a_picture_counts_as_long_as_it_stands_for_a_keyframe(reviewing: Reviewing, make: Any) -> None:
    reviewing.render_keyframes()
    first, second = make.image(5), make.image(6)
    uses, dropped = reviewing.state.blob_uses, reviewing.state.dropped_blobs
    reviewing.replace(1, first)
    assert uses[first.sha256] == 1
    reviewing.replace(1, second)
    assert first.sha256 in dropped
    reviewing.replace(2, first)
    assert first.sha256 not in dropped
    reviewing.replace(1, None)
    assert second.sha256 in dropped
    reviewing.happen(JobCancelled(job_id="job"), JobDeleted(job_id="job"))
    assert first.sha256 in dropped
    assert not +uses


def test_a_cancelled_job_comes_back_into_its_review(reviewing: Reviewing) -> None:
    reviewing.render_keyframes()
    reviewing.happen(JobCancelled(job_id="job"))
    with pytest.raises(InvalidInput, match="job job is cancelled; `farm retry job` continues it"):
        check_reviewing(reviewing.job)
    reviewing.happen(JobRetried(job_id="job"))
    assert reviewing.job.awaits_review


@pytest.mark.parametrize(
    ("before", "event", "said"),
    [
        ("begun", ReviewApproved(job_id="job"), "are not there yet"),
        ("approved", ReviewApproved(job_id="job"), "waits for no review"),
        ("cancelled", ReviewApproved(job_id="job"), "waits for no review"),
        (
            "approved",
            KeyframesRemade(job_id="job", task_id="d0-0", position=1, takes={"d0-0": 1}, seed=1),
            "waits for no review",
        ),
        (
            "begun",
            KeyframesRemade(job_id="job", task_id="d0-0", position=1, takes={"d0-0": 1}, seed=1),
            "d0-0 is running",
        ),
        (
            "waiting",
            KeyframesRemade(job_id="job", task_id="d0-0", position=1, takes={"s0-0": 1}, seed=1),
            "s0-0 is waiting",
        ),
        (
            "waiting",
            KeyframeReplaced(job_id="job", task_id="d9-9", position=1, takes={}, media=None),
            "no task d9-9",
        ),
    ],
)
def test_what_cannot_happen_to_a_review_is_refused(
    reviewing: Reviewing, make: Any, before: str, event: Event, said: str
) -> None:
    if before == "begun":
        reviewing.happen(make.assigned("d0-0", "a/0"))
    else:
        reviewing.render_keyframes()
    if before == "approved":
        reviewing.happen(ReviewApproved(job_id="job"))
    if before == "cancelled":
        reviewing.happen(JobCancelled(job_id="job"))
    assert said in (refusal(reviewing.state, event) or "")


def test_a_job_without_a_review_says_how_to_have_one(make: Any) -> None:
    reviewing = Reviewing(make, clips=False, review=False)
    with pytest.raises(InvalidInput, match="submit it with review"):
        check_reviewing(reviewing.job)
    with pytest.raises(NotFound, match="keyframes 1 to 18, and no 19"):
        keyframe_of(reviewing.job, 19)
    reviewing.render("d0-0")
    assert reviewing.status("s0-0") == ["ready"], "its windows wait for nobody"
    assert not reviewing.job.held
