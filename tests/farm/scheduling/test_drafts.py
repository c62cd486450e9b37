"""A job of two models: each task by what it needs itself, and what a worker has loaded."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import GIB, Worker
from farm.capabilities.engine_spec import EngineSpec
from farm.errors import CannotRun
from farm.planning.plan import Plan
from farm.planning.planner import plan
from farm.planning.suggest import plan_over, refusal
from farm.scheduling.forecast import quote
from farm.scheduling.schedule import able_workers, explain, schedule
from farm.state.events import JobSubmitted
from farm.state.index import index_of
from farm.state.state import State
from tests.farm.planning.modes.test_drafted_keyframes import lighter
from tests.farm.planning.modes.test_infill import TAKES, causal_spec

#: A card that holds the lighter model alone.
SMALL_GIB = 1.3


def specs(make: Any) -> tuple[EngineSpec, EngineSpec]:
    """A model of 2 GiB and more, and one of a tenth."""
    heavy = causal_spec(make, takes=TAKES | {"video"}, default_steps=20)
    return heavy, lighter(make, component_bytes={"text": 0, "unet": GIB // 4}, context_bytes=GIB // 2)


def planned(make: Any) -> Plan:
    heavy, light = specs(make)
    request = make.request(draft_model="lighter", num_frames=96)
    return plan(request, heavy, draft=light)


def farm(make: Any, *workers: Worker) -> State:
    made = planned(make)
    state: State = make.state(make.joined(*workers))
    request = make.request(draft_model="lighter", num_frames=96)
    make.happen(state, JobSubmitted(job_id="job", request=request, plan=made))
    return state


def test_a_worker_that_holds_the_draft_alone_drafts_and_does_nothing_else(make: Any) -> None:
    state = farm(make, make.worker("small/0", SMALL_GIB))
    job = state.jobs["job"]
    assert [a.task_id for a in schedule(state, 0.0)] == ["d0-0"]
    assert not able_workers(state, job, job.tasks["r0-0"])
    assert "GiB" in explain(state, job, job.tasks["s0-0"])["small/0"]


def test_what_is_loaded_is_the_model_of_the_last_task_not_of_the_job(make: Any) -> None:
    state = farm(make, make.worker("a/0", 24), make.worker("b/0", 24))
    make.happen(state, make.assigned("d0-0", "a/0"), make.succeeded("d0-0"))
    assert state.workers["a/0"].warm_model == "lighter"
    job = state.jobs["job"]
    state.workers["b/0"].warm_model = "synthetic"
    a_s, b_s = index_of(state).class_of(job, job.outline.kinds[job.tasks["r0-0"].order]).run_s
    worker = state.workers["a/0"].worker
    assert a_s - b_s == pytest.approx(state.profiles.loading_s(job.plan, worker), abs=1)
    make.happen(state, make.assigned("r0-0", "a/0"))
    assert state.workers["a/0"].warm_model == "synthetic"


def test_a_speed_and_a_need_are_learned_of_the_model_that_ran(make: Any) -> None:
    state = farm(make, make.worker("a/0", 24))
    make.happen(state, make.assigned("d0-0", "a/0"), make.succeeded("d0-0", wall_s=11.0, load_s=1.0))
    plan = state.jobs["job"].plan
    (draft,) = (s for s in plan.segments if s.level == "draft")
    assert state.profiles.seconds_per_unit == {("a/0", "lighter"): pytest.approx(10 / plan.work_units(draft))}
    assert state.profiles.load_s == {("a/0", "lighter"): 1.0}
    state.profiles.learn_oom(plan, draft, "resident", "cuda", 9 * GIB)
    assert state.profiles.needs(plan, draft, "cuda")["resident"].vram_bytes == 9 * GIB + 1
    window = plan.final_segments[0]
    assert state.profiles.needs(plan, window, "cuda")["resident"].vram_bytes < 9 * GIB


def test_a_quote_counts_who_can_do_each_part(make: Any) -> None:
    made = planned(make)
    both = make.state(make.joined(make.worker("small/0", SMALL_GIB), make.worker("large/0", 24)))
    said = quote(both, made, 0.0)
    assert said.predicted_s is not None
    small, large = said.workers
    assert (small.why_not, large.why_not) == (None, None)
    assert small.need_bytes is not None
    assert small.need_bytes <= SMALL_GIB * GIB
    assert small.segments + large.segments == len(made.segments)
    alone = quote(make.state(make.joined(make.worker("small/0", SMALL_GIB))), made, 0.0)
    assert alone.predicted_s is None, "nobody renders the windows"


def test_nobody_who_can_draft_is_a_refusal_that_names_the_draft(make: Any) -> None:
    heavy, light = specs(make)
    light = light.model_copy(update={"context_bytes": 40 * GIB})
    request = make.request(draft_model="lighter", num_frames=96)
    with pytest.raises(CannotRun, match="no worker can hold a draft by lighter, 320x320 in windows of 33"):
        plan_over(request, heavy, [make.worker("a/0", 24)], draft=light)
    assert refusal(plan(request, heavy, draft=light), heavy, []) is None


@pytest.mark.parametrize(("weights_gib", "window"), [(1, 97), (22, 33)])
def test_a_draft_has_the_longest_windows_of_its_model_that_a_worker_can_hold(
    make: Any, weights_gib: int, window: int
) -> None:
    heavy, light = specs(make)
    changes = {
        "trained_windows": (33, 97),
        "window_frames": 97,
        "min_fps": 8.0,
        "rungs": light.rungs[:1],
        "component_bytes": {"text": 0, "unet": weights_gib * GIB},
    }
    request = make.request(draft_model="lighter", num_frames=192)
    made = plan_over(request, heavy, [make.worker("a/0", 24)], draft=light.model_copy(update=changes))
    assert made.draft is not None
    assert made.draft.window_frames == window
