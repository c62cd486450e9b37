"""Quotes and remaining times against what the schedule does when every prediction comes true."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.planning.predict import Runner, all_of, makespan, outline, simulate
from farm.scheduling.forecast import eta_s, quote
from farm.scheduling.schedule import schedule
from farm.state.events import AttemptSucceeded, JobPublished, JobReopened, TaskAssigned, WorkerDraining
from farm.state.profiles import pace
from farm.state.state import State

#: Workers by their seconds for a unit of work: (million pixels x frames x steps).
EQUAL = {f"w{i}/0": 1.0 for i in range(4)}
UNEQUAL = {"fast/0": 0.25, "middle/0": 1.0, "slow/0": 3.0}
SPREAD = {f"w{i:02}/0": 0.5 + i / 8 for i in range(12)}


def farm(make: Any, speeds: dict[str, float], *, load_s: float = 0.0, **worker: Any) -> State:
    """Workers whose speed with the model ``synthetic`` is known, as is that of joining: nothing."""
    state: State = make.state(make.joined(*(make.worker(w, 24, **worker) for w in speeds)))
    for worker_id, speed in speeds.items():
        state.profiles.seconds_per_unit[worker_id, "synthetic"] = speed
        state.profiles.load_s[worker_id, "synthetic"] = load_s
    state.profiles.join_s = 0.0
    return state


def play(make: Any, state: State, *, until: float = float("inf")) -> dict[str, float]:
    """Let the schedule work, every prediction coming true. Returns when each job's newest segment ended."""
    now = 0.0
    running: list[tuple[float, str, AttemptSucceeded]] = []
    ended: dict[str, float] = {}
    while True:
        for given in schedule(state, now):
            worker, job = state.workers[given.worker_id], state.jobs[given.job_id]
            cold = worker.warm_model != job.plan.model
            load_s = state.profiles.loading_s(job.plan, worker.worker) if cold else 0.0
            number = len(job.tasks[given.task_id].attempts) + 1
            ids = {"job_id": job.id, "task_id": given.task_id}
            attempt_id = f"{job.id}/{given.task_id}/{number}"
            assigned = TaskAssigned(
                **ids,
                attempt_id=attempt_id,
                worker_id=given.worker_id,
                rung=given.rung,
                need_bytes=given.need_bytes,
                predicted_s=given.predicted_s,
                why=given.why,
            )
            done = AttemptSucceeded(
                **ids,
                attempt_id=attempt_id,
                artifact=make.artifact(),
                wall_s=given.predicted_s,
                load_s=load_s,
                peak_bytes=None,
            )
            make.happen(state, assigned, now=now)
            heappush(running, (now + given.predicted_s, attempt_id, done))
        if not running or running[0][0] > until:
            return ended
        now, _, done = heappop(running)
        make.happen(state, done, now=now)
        ended[done.job_id] = now


@pytest.mark.parametrize("speeds", [EQUAL, UNEQUAL, SPREAD])
@pytest.mark.parametrize("load_s", [0.0, 40.0])
@pytest.mark.parametrize(
    "asked",
    [
        {"mode": "independent", "num_frames": 200},
        {"mode": "chain", "num_frames": 100},
        {"mode": "chain", "num_frames": 300, "storyboard": 5},
        {"mode": "refine", "num_frames": 200, "num_inference_steps": 12},
        {"mode": "refine", "num_frames": 300, "num_inference_steps": 12, "storyboard": 3},
    ],
)
def test_a_quote_is_when_the_schedule_is_done(
    make: Any, speeds: dict[str, float], load_s: float, asked: dict[str, Any]
) -> None:
    spec = make.spec(random_access=asked["mode"] == "independent")
    inputs = tuple(make.image(i) for i in range(asked.get("storyboard", 1)))
    options = {name: value for name, value in asked.items() if name != "storyboard"}
    state = farm(make, speeds, load_s=load_s)
    submitted = make.submitted(spec=spec, inputs=inputs, **options)
    predicted = quote(state, submitted.plan, 0.0)
    make.happen(state, submitted)
    assert predicted.predicted_s == pytest.approx(play(make, state)["job"], rel=0.1)
    assert predicted.measured


@pytest.mark.parametrize("speeds", [EQUAL, UNEQUAL, SPREAD])
@pytest.mark.parametrize("mode", ["independent", "chain", "refine"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_what_is_left_of_a_job_is_predicted_wherever_it_stands(
    make: Any, speeds: dict[str, float], mode: str, share: float
) -> None:
    submitted = make.submitted(
        spec=make.spec(random_access=mode == "independent"), mode=mode, num_frames=200, num_inference_steps=12
    )
    state = make.happen(farm(make, speeds), submitted)
    whole_s = eta_s(state, state.jobs["job"], 0.0)
    assert whole_s is not None
    now = share * whole_s
    play(make, state, until=now)
    left_s = eta_s(state, state.jobs["job"], now)
    assert left_s == pytest.approx(whole_s - now, abs=0.1 * whole_s)


@pytest.mark.parametrize(
    ("own", "other", "num_frames"),
    [(50, 50, 400), (50, 50, 100), (50, 80, 400), (50, 20, 400), (50, 50, 4000)],
)
def test_other_jobs_go_first_beside_or_after_by_their_priority(
    make: Any, own: int, other: int, num_frames: int
) -> None:
    state = farm(make, EQUAL)
    make.happen(state, make.submitted("other", num_frames=num_frames, priority=other))
    submitted = make.submitted("own", num_frames=400, priority=own)
    predicted = quote(state, submitted.plan, 0.0, priority=own)
    make.happen(state, submitted)
    real_s = play(make, state)["own"]
    assert predicted.predicted_s == pytest.approx(real_s, rel=0.1)


def test_every_worker_is_in_a_quote_with_its_share_or_the_reason_why_it_has_none(make: Any) -> None:
    workers = [make.worker("a/0", 24), make.worker("b/0", 24), make.worker("tiny/0", 0.25)]
    state = make.state([*make.joined(*workers), WorkerDraining(worker_id="b/0")])
    plan = make.plan(num_frames=20)
    a, b, tiny = quote(state, plan, 0.0).workers
    assert (a.worker_id, a.segments, a.rung, a.why_not) == ("a/0", len(plan.segments), "resident", None)
    assert a.need_bytes == plan.on["cuda"].need_bytes["resident"]
    assert (b.segments, b.busy_s, b.why_not) == (0, 0.0, "is draining")
    assert (tiny.segments, tiny.rung) == (0, None)
    assert tiny.need_bytes == min(plan.on["cuda"].need_bytes.values())
    assert tiny.why_not is not None
    assert tiny.why_not.startswith("tiny/0 has 0.25 GiB")


def test_a_quote_tells_what_will_be_made_and_repeats_the_plans_notes(make: Any) -> None:
    plan = make.plan(num_frames=24, fps=8, width=512, height=512).model_copy(update={"notes": ("a note",)})
    said = quote(make.state(make.joined(make.worker("a/0", 24))), plan, 0.0)
    assert (said.num_segments, said.num_frames, said.duration_s) == (len(plan.segments), 24, 3.0)
    assert (said.mode, said.width, said.height, said.fps) == (plan.mode, 512, 512, 8.0)
    assert said.notes[0] == "a note"
    assert said.energy_wh is None


def test_without_an_able_worker_time_is_not_known_and_none_is_invented(make: Any) -> None:
    for workers in ([], [make.worker("tiny/0", 0.25)]):
        state = make.happen(make.state(make.joined(*workers)), make.submitted())
        said = quote(state, make.plan(), 0.0)
        assert (said.predicted_s, said.critical_path_s, said.cost, said.measured) == (None, None, None, False)
        assert eta_s(state, state.jobs["job"], 0.0) is None


def test_a_speed_never_learned_is_the_specs_and_the_quote_says_so(make: Any) -> None:
    state = make.state(make.joined(make.worker("a/0", 24)))
    state.profiles.join_s = 0.0
    plan = make.plan(num_frames=8)
    said = quote(state, plan, 0.0)
    footprint = plan.on["cuda"]
    prior_s = plan.mpixel_steps * footprint.prior_seconds_per_mpixel_step + footprint.prior_load_s
    assert said.predicted_s == pytest.approx(prior_s)
    assert not said.measured
    assert "1 of 1 workers have not rendered with synthetic yet" in said.notes[-1]


def test_the_vae_counts_as_steps_once_for_what_is_drawn_and_twice_for_what_is_changed(make: Any) -> None:
    spec = make.spec(decode_steps=4.0, encode_steps=2.0)
    state = farm(make, {"a/0": 1.0})
    plan = make.plan(spec, mode="refine", num_frames=40, num_inference_steps=20)
    changed = sum(bool(segment.sources) for segment in plan.segments)
    drawn = len(plan.segments) - changed
    assert (changed > 0, drawn > 0) == (True, True)
    window_mpixels = plan.window_frames * plan.width * plan.height / 1e6
    said = quote(state, plan, 0.0)
    vae_s = window_mpixels * (4.0 * drawn + 6.0 * changed)
    assert said.workers[0].busy_s == pytest.approx(plan.mpixel_steps + vae_s)
    assert said.predicted_s == pytest.approx(said.workers[0].busy_s)


def test_a_speed_learned_from_many_steps_holds_for_few(make: Any) -> None:
    """What took 3 s a step and as long as two steps for its frames takes 3 s a step whatever their number."""
    spec = make.spec(decode_steps=2.0)
    state = farm(make, {"a/0": 1.0})
    long, short = (make.plan(spec, num_frames=8, num_inference_steps=steps) for steps in (20, 4))
    (segment,) = long.segments
    step_units = long.mpixel_steps / 20
    state.profiles.seconds_per_unit.clear()
    state.profiles.learn_success(
        pace(long, segment, "cuda"), "a/0", "resident", render_s=3.0 * step_units * (20 + 2), load_s=0.0
    )
    assert quote(state, short, 0.0).predicted_s == pytest.approx(3.0 * step_units * (4 + 2))


@pytest.mark.parametrize("frames", [9, 21, 41, 81])
def test_a_small_window_that_was_measured_foretells_a_large_one(make: Any, frames: int) -> None:
    """A step of N tokens takes 2 N + N^2 / 500 milliseconds, whatever the window it was learned from."""
    causal = FrameRule.causal(4, min_frames=5, max_frames=81)
    spec = make.spec(frames=causal, window_frames=81, pixels_per_token=256, attention_per_token=1e-3)

    def step_s(num_frames: int) -> float:
        tokens = causal.num_latents(num_frames) * shape.width * shape.height / 256
        pixels_per_token = shape.width * shape.height * num_frames / tokens
        return float(2e-3 * tokens * pixels_per_token * (1 + 1e-3 * tokens))

    shape = make.plan(spec, num_frames=81)
    small = make.plan(spec, num_frames=frames, window_frames=frames)
    state = farm(make, {"a/0": 1.0})
    state.profiles.seconds_per_unit.clear()
    state.profiles.learn_success(
        pace(small, small.segments[0], "cuda"),
        "a/0",
        "resident",
        render_s=step_s(frames) * small.num_inference_steps,
        load_s=0.0,
    )
    large_s = step_s(81) * shape.num_inference_steps
    assert quote(state, shape, 0.0).predicted_s == pytest.approx(large_s)
    # As if time went by pixels, it would be foretold too short from anything smaller.
    by_pixels = step_s(frames) * 81 / frames
    assert frames == 81 or by_pixels < 0.9 * step_s(81)


def test_a_slow_rung_makes_a_worker_slower_by_what_the_spec_says(make: Any) -> None:
    plan = make.plan(num_frames=8)
    seconds = {}
    for vram_gib in (24, 3.0):
        state = make.state(make.joined(make.worker("a/0", vram_gib)))
        (share,) = quote(state, plan, 0.0).workers
        seconds[share.rung] = share.busy_s - plan.on["cuda"].prior_load_s
    assert seconds["stream"] == pytest.approx(3 * seconds["resident"])


def test_the_model_is_loaded_once_a_worker_and_not_at_all_where_it_is_warm(make: Any) -> None:
    state = farm(make, {"a/0": 1.0, "b/0": 1.0}, load_s=7.0)
    state.workers["a/0"].warm_model = "synthetic"
    plan = make.submitted(num_frames=400).plan
    a, b = quote(state, plan, 0.0).workers
    rendering_s = plan.mpixel_steps
    assert a.busy_s + b.busy_s == pytest.approx(rendering_s + 7.0)


def test_a_worker_is_free_when_what_it_does_now_is_done(make: Any) -> None:
    state = make.happen(farm(make, {"a/0": 1.0}), make.submitted("first", num_frames=8))
    make.happen(state, make.assigned("s0-0", "a/0", job="first", predicted_s=60.0), now=100.0)
    plan = make.submitted(num_frames=8).plan
    assert quote(state, plan, 110.0).predicted_s == pytest.approx(50 + plan.mpixel_steps)


def test_cost_is_the_busy_time_of_those_who_take_part_at_their_prices(make: Any) -> None:
    workers = [make.worker("a/0", 24, price_per_hour=3.6), make.worker("b/0", 24, price_per_hour=7.2)]
    state = make.state(make.joined(*workers, make.worker("tiny/0", 0.25)))
    said = quote(state, make.submitted(num_frames=400).plan, 0.0)
    a, b, _ = said.workers
    assert said.cost == pytest.approx((a.busy_s * 3.6 + b.busy_s * 7.2) / 3600)
    assert said.cost
    make.happen(state, *make.joined(make.worker("c/0", 24)))
    assert quote(state, make.submitted(num_frames=400).plan, 0.0).cost is None


def test_the_critical_path_of_a_chain_is_every_segment_on_the_fastest_worker(make: Any) -> None:
    plan = make.plan(mode="chain", num_frames=40)
    assert quote(farm(make, UNEQUAL), plan, 0.0).critical_path_s == pytest.approx(0.25 * plan.mpixel_steps)


def test_joining_that_is_slower_than_rendering_decides_when_the_video_is_done(make: Any) -> None:
    state = farm(make, {"a/0": 1e-6})
    plan = make.plan(mode="chain", num_frames=100)
    make.happen(state, make.submitted(spec=make.spec(), mode="chain", num_frames=100))
    published = {"num_frames": 100, "frames_sha256": "0" * 64, "size_bytes": 1}
    stitch_s = 50.0
    state.profiles.join_s = None
    make.happen(state, JobPublished(job_id="job", stitch_s=stitch_s, **published))
    assert quote(state, plan, 0.0).predicted_s == pytest.approx(stitch_s, rel=0.01)


def test_a_job_whose_segments_are_all_done_waits_for_the_joiner_alone(make: Any) -> None:
    state = make.happen(farm(make, {"a/0": 1.0}), make.submitted(num_frames=13, window_frames=8))
    play(make, state)
    job = state.jobs["job"]
    state.profiles.join_s = 1.0
    assert eta_s(state, job, 99.0) == pytest.approx((8 + 8 + 3) * state.profiles.joining_s(job.plan))
    make.happen(state, make.measured("s0-1", 0))
    assert eta_s(state, job, 99.0) == 0.0


def test_a_published_job_that_is_opened_again_is_joined_from_its_start(make: Any) -> None:
    state = make.happen(farm(make, {"a/0": 1e-6}), make.submitted(num_frames=13, window_frames=8))
    play(make, state)
    published = {"num_frames": 13, "frames_sha256": "0" * 64, "size_bytes": 1, "stitch_s": 26.0}
    state.profiles.join_s = None
    make.happen(state, make.measured("s0-1", 0), JobPublished(job_id="job", **published))
    make.happen(state, JobReopened(job_id="job", takes={"s0-0": 1}))
    assert eta_s(state, state.jobs["job"], 0.0) == pytest.approx(26.0, rel=0.01)


def test_a_job_that_has_ended_has_no_time_left(make: Any) -> None:
    state = make.happen(farm(make, {"a/0": 1.0}), make.submitted(num_frames=8))
    published = {"num_frames": 8, "frames_sha256": "0" * 64, "size_bytes": 1, "stitch_s": 1.0}
    play(make, state)
    make.happen(state, JobPublished(job_id="job", **published))
    assert eta_s(state, state.jobs["job"], 0.0) is None


@pytest.mark.parametrize("mode", ["chain", "refine"])
@pytest.mark.parametrize("workers", [1, 2, 7, 100])
def test_equal_workers_are_no_faster_than_the_work_and_no_slower_than_one(
    make: Any, mode: str, workers: int
) -> None:
    plan = make.plan(mode=mode, num_frames=100, num_inference_steps=12)
    time = makespan(plan, workers)
    assert plan.mpixel_steps / workers <= time * (1 + 1e-9)
    assert time <= plan.mpixel_steps * (1 + 1e-9)
    assert makespan(plan, 1) == pytest.approx(plan.mpixel_steps)


def test_a_simulation_gives_each_segment_to_who_ends_it_first(make: Any) -> None:
    drawn = outline(make.submitted(num_frames=28).plan)
    assert len(drawn.kinds) == 5
    runners = [Runner((1.0,) * len(drawn.units)), Runner((2.5,) * len(drawn.units))]
    done = simulate(drawn, all_of(drawn), runners)
    assert done.ends == [1.0, 2.0, 2.5, 3.0, 4.0]
    assert (done.num_segments, done.busy_s, done.end) == ([4, 1], [4.0, 2.5], 4.0)


def test_a_simulation_refuses_a_segment_that_nobody_can_hold(make: Any) -> None:
    drawn = outline(make.plan(num_frames=8))
    with pytest.raises(ValueError, match="no runner can hold a segment of 8 frames"):
        simulate(drawn, all_of(drawn), [Runner((float("inf"),))])
