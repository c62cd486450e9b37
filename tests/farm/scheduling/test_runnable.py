"""What is said to run can be planned and fits; what is said to be lacking is what a card would need more."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec, RungSpec, StageCost
from farm.capabilities.worker import GIB
from farm.planning.suggest import plan_over
from farm.scheduling.forecast import quote
from farm.scheduling.runnable import Runnable, runnable
from farm.state.profiles import Profiles
from farm.state.state import State
from farm.state.workers import WorkerState


def _settings(found: Runnable) -> dict[tuple[int, int], bool]:
    return {(s.width, s.window_frames): s.runs for s in found.settings}


@pytest.mark.parametrize(
    ("vram_gib", "largest", "rung", "next_larger", "lacking_gib"),
    [
        (24.0, (1024, 8), "resident", None, None),
        (3.4, (768, 8), "stream", (1024, 8), 1.6),
        (2.2, (512, 8), "stream", (576, 8), 0.07),
        (0.9, None, None, (256, 2), 0.16),
    ],
)
def test_the_largest_that_runs_and_what_the_next_lacks(
    make: Any,
    vram_gib: float,
    largest: tuple[int, int] | None,
    rung: str | None,
    next_larger: tuple[int, int] | None,
    lacking_gib: float | None,
) -> None:
    found = runnable(make.spec(), [make.worker("a/0", vram_gib)])
    at, after = (s and (s.width, s.window_frames) for s in (found.largest, found.next_larger))
    assert (at, after) == (largest, next_larger)
    assert (found.largest and found.largest.holder and found.largest.holder.rung) == rung
    if found.next_larger and next_larger:
        lack = found.next_larger.lack
        assert lack is not None
        assert (lack.worker_id, lack.memory, lack.rung) == ("a/0", "worker", "stream")
        assert lack.lacking_bytes / GIB == pytest.approx(lacking_gib, abs=0.01)
        enough = make.worker("a/0").model_copy(update={"vram_bytes": lack.needs_bytes})
        spec = make.spec(trained_windows=(found.next_larger.window_frames,))
        assert _settings(runnable(spec, [enough]))[next_larger]


def test_every_setting_that_runs_can_be_planned_and_every_other_cannot(make: Any) -> None:
    spec = make.spec(trained_windows=(8, 16, 24))
    workers = [make.worker("a/0", 2.2), make.worker("b/0", 3.0)]
    found = runnable(spec, workers)
    assert {w for _, w in _settings(found)} == {8, 16, 24}
    assert len(set(_settings(found).values())) == 2
    for setting in found.settings:
        request = make.request(
            width=setting.width, height=setting.height, window_frames=setting.window_frames, seconds=10
        )
        assert setting.runs == (setting.why_not is None) == (setting.lack is None)
        if setting.runs:
            assert plan_over(request, spec, workers).mode == setting.mode
        else:
            with pytest.raises(Exception, match="no worker can hold"):
                plan_over(request, spec, workers)


def test_the_longest_window_that_runs_counts_before_the_largest_size(make: Any) -> None:
    found = runnable(make.spec(trained_windows=(8, 24)), [make.worker("a/0", 2.2)])
    assert found.largest is not None
    assert found.next_larger is not None
    assert (found.largest.window_frames, found.next_larger.window_frames) == (24, 24)
    assert _settings(found)[found.largest.width, 8]
    assert any(runs for (width, window), runs in _settings(found).items() if width > found.largest.width)


def test_where_no_trained_window_runs_parts_of_one_are_tried(make: Any) -> None:
    spec = make.spec(trained_windows=(80,), window_frames=80, frames=FrameRule(max_frames=80))
    found = runnable(spec, [make.worker("a/0", 1.8)])
    assert found.largest is not None
    assert found.largest.window_frames < 80
    assert not any(s.runs for s in found.settings if s.window_frames == 80)


def test_a_lack_of_the_machines_memory_names_it_and_the_machine_that_comes_nearest(make: Any) -> None:
    workers = [make.worker("a/0", 8.0, host_bytes=GIB), make.worker("b/0", 8.0, host_bytes=2 * GIB)]
    spec = make.spec(rungs=(RungSpec(name="stream", stages=(StageCost(name="denoise"),)),))
    setting = runnable(spec, workers).next_larger
    assert setting is not None
    assert setting.lack is not None
    assert (setting.lack.worker_id, setting.lack.memory) == ("b/0", "machine")
    assert setting.lack.lacking_bytes == GIB
    assert setting.why_not == (
        "b/0 has 2.00 GiB of its machine's memory, rung stream keeps 3.00 GiB of weights there"
    )


def _with_encoder(make: Any) -> EngineSpec:
    """Prompts are a task of their own and take 6 GiB; a window takes much less."""
    stages = (
        StageCost(name="text_encode", components=("text",)),
        StageCost(name="denoise", components=("unet",)),
    )
    spec: EngineSpec = make.spec(
        component_bytes={"text": 6 * GIB, "unet": GIB},
        text_components=("text",),
        rungs=(RungSpec(name="evict", stages=stages),),
    )
    return spec


@pytest.mark.parametrize(("vram_gib", "runs"), [(4.0, False), (8.0, True)])
def test_a_model_whose_prompts_nobody_can_encode_does_not_run(make: Any, vram_gib: float, runs: bool) -> None:
    found = runnable(_with_encoder(make), [make.worker("a/0", vram_gib)])
    assert {setting.runs for setting in found.settings} == {runs}
    if not runs:
        why = found.settings[0].why_not
        assert why == "prompts: a/0 has 4.00 GiB, the smallest rung (evict) needs 6.50 GiB"


def test_times_are_those_of_a_quote_with_the_model_loaded(make: Any) -> None:
    spec, worker = make.spec(), make.worker("a/0", 24.0)
    profiles = Profiles(seconds_per_unit={("a/0", "synthetic"): 0.5}, join_s=0.0)
    (setting,) = (
        s for s in runnable(spec, [worker], profiles).settings if (s.width, s.window_frames) == (512, 8)
    )
    request = make.request(width=512, height=512, window_frames=8, seconds=10)
    state = State(workers={"a/0": WorkerState(worker, warm_model="synthetic")}, profiles=profiles)
    quoted = quote(state, plan_over(request, spec, [worker]), 0.0)
    assert setting.seconds_per_second == pytest.approx(quoted.predicted_s / 10)
    assert setting.measured
    assert not runnable(spec, [worker]).settings[0].measured


def test_the_worker_that_renders_soonest_is_named_and_the_others_are_counted(make: Any) -> None:
    workers = [make.worker("slow/0", 24.0), make.worker("fast/0", 3.0), make.worker("small/0", 1.0)]
    profiles = Profiles(seconds_per_unit={("slow/0", "synthetic"): 9.0, ("fast/0", "synthetic"): 0.1})
    found = runnable(make.spec(), workers, profiles)
    setting = next(s for s in found.settings if s.width == 512)
    assert setting.holder is not None
    assert (setting.holder.worker_id, setting.holder.rung) == ("fast/0", "stream")
    assert setting.num_workers == 2


def test_a_shape_that_ran_out_of_memory_counts_as_it_turned_out(make: Any) -> None:
    spec, worker = make.spec(rungs=make.spec().rungs[-1:]), make.worker("a/0", 2.2)
    plan = plan_over(make.request(width=512, height=512, window_frames=8, seconds=10), spec, [worker])
    profiles = Profiles()
    assert _settings(runnable(spec, [worker], profiles))[512, 8]
    profiles.learn_oom(plan, plan.segments[0], "stream", "cuda", worker.vram_bytes)
    assert not _settings(runnable(spec, [worker], profiles))[512, 8]


def test_without_a_worker_nothing_runs_and_nothing_is_lacking(make: Any) -> None:
    found = runnable(make.spec(), [])
    assert found.largest is None
    assert {(s.why_not, s.lack) for s in found.settings} == {("no worker is here", None)}


def test_a_model_that_takes_videos_alone_is_judged_over_one(make: Any) -> None:
    spec = make.spec(takes=frozenset({"video", "text"}))
    found = runnable(spec, [make.worker("a/0", 24.0)])
    assert {s.mode for s in found.settings} == {"refine"}
