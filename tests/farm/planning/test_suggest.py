"""A job that no card can hold is refused with settings that one can."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

from farm.capabilities import FrameRule, RenderShape, fitting_rungs
from farm.errors import CannotRun
from farm.planning.framing import near_size
from farm.planning.planner import footprint
from farm.planning.suggest import nearest_settings, plan_over, refusal


@pytest.mark.parametrize("mode", ["independent", "chain", "refine"])
@pytest.mark.parametrize("vram_gib", [2.0, 1.5, 1.1, 1.07])
@pytest.mark.parametrize("rule", [{}, {"window_frames": 17, "frames": FrameRule(step=4, remainder=1)}])
def test_what_is_suggested_really_fits(make: Any, mode: str, vram_gib: float, rule: dict[str, int]) -> None:
    spec = make.spec(random_access=mode == "independent", side_multiple=16, **rule)
    worker = make.worker("a/0", vram_gib)
    asked = {"mode": mode, "width": 1024, "height": 576, "num_frames": 40}
    made = make.plan(spec, **asked)
    settings = nearest_settings(made, spec, worker)
    assert len(settings) == 3
    for setting in settings:
        size = {"width": setting.width, "height": setting.height, "window_frames": setting.window_frames}
        again = make.plan(spec, **(asked | size))
        assert refusal(again, spec, [worker]) is None
        assert setting.need_bytes <= worker.vram_bytes


def test_the_nearest_in_pixels_and_frames_comes_first_and_none_is_larger(make: Any) -> None:
    spec = make.spec()
    made = make.plan(spec, width=1024, height=576)
    settings = nearest_settings(made, spec, make.worker("a/0", 1.5))
    far = [log(1024 * 576 / (s.width * s.height)) + log(8 / s.window_frames) for s in settings]
    assert far == sorted(far)
    assert len(set(settings)) == 3
    assert all(s.width <= 1024 and s.height <= 576 and s.window_frames <= 8 for s in settings)


@pytest.mark.parametrize("host_gib", [None, 0.5])
@pytest.mark.parametrize("vram_gib", [2.0, 1.5, 1.1])
def test_no_setting_that_was_not_looked_at_is_nearer(
    make: Any, vram_gib: float, host_gib: float | None
) -> None:
    spec = make.spec(window_frames=17, frames=FrameRule(max_frames=17, step=4, remainder=1))
    host_bytes = None if host_gib is None else round(host_gib * 2**30)
    worker = make.worker("a/0", vram_gib, host_bytes=host_bytes)
    made = make.plan(spec, width=1024, height=576, num_frames=17)

    def fits(width: int, height: int, window: int) -> bool:
        shape = RenderShape(num_frames=window, height=height, width=width, num_inference_steps=1, guided=True)
        return bool(fitting_rungs(footprint(spec, shape, worker.kind).needs, worker))

    def distance(width: int, height: int, window: int) -> float:
        return log(1024 * 576 / (width * height)) + log(17 / window)

    sizes = {near_size(spec, 1024, 576, i / 16) for i in range(2, 17)}
    all_that_fit = sorted(distance(*size, n) for size in sizes for n in (5, 9, 13, 17) if fits(*size, n))
    told = nearest_settings(made, spec, worker)
    assert [distance(s.width, s.height, s.window_frames) for s in told] == pytest.approx(all_that_fit[:3])


def test_the_refusal_is_one_line_with_the_need_the_largest_card_and_what_to_type(make: Any) -> None:
    spec = make.spec()
    made = make.plan(spec, width=1024, height=1024)
    said = refusal(made, spec, [make.worker("a/0", 1.2), make.worker("b/0", 1.5)])
    assert said is not None
    assert said.startswith(
        "no worker can hold 1024x1024 in windows of 8 frames: "
        "b/0 has 1.50 GiB, the smallest rung (stream) needs 5.00 GiB; these fit: --size "
    )
    assert said.count("--window") == 3
    assert "\n" not in said


def test_where_nothing_fits_that_is_said(make: Any) -> None:
    spec = make.spec()
    said = refusal(make.plan(spec), spec, [make.worker("a/0", 0.25)])
    assert said is not None
    assert said.endswith("; nothing smaller fits either")


def test_one_card_that_fits_is_enough_and_an_empty_farm_waits_for_one(make: Any) -> None:
    spec = make.spec()
    made = make.plan(spec)
    assert refusal(made, spec, [make.worker("a/0", 0.25), make.worker("b/0", 24)]) is None
    assert refusal(made, spec, []) is None


def test_a_cpu_worker_is_judged_by_the_models_cpu_spec(make: Any) -> None:
    spec = make.spec(on_cpu=make.spec(context_bytes=64 * 2**30))
    worker = make.worker("a/cpu", 32, kind="cpu")
    said = refusal(make.plan(spec), spec, [worker])
    assert said is not None
    assert refusal(make.plan(spec), spec, [make.worker("a/0", 32)]) is None


# The plan for the workers that are there.


@pytest.mark.parametrize(
    ("vram_gib", "mode", "told"),
    [
        ((), "chain", None),
        ((24,), "chain", None),
        ((24, 0.25, 0.25), "chain", None),
        ((24, 2.1), "refine", "refine chosen: 2 workers"),
        ((24, 24, 0.25, 24), "refine", "refine chosen: 3 workers"),
    ],
)
def test_auto_counts_the_workers_that_can_hold_a_window(
    make: Any, vram_gib: tuple[float, ...], mode: str, told: str | None
) -> None:
    workers = [make.worker(f"{i}/0", gib) for i, gib in enumerate(vram_gib)]
    asked = make.request(num_frames=96, width=512, height=512)
    made = plan_over(asked, make.spec(min_fps=1.0), workers)
    assert made.mode == mode
    assert [note.split(",")[0] for note in made.notes] == ([told] if told else [])


def test_a_plan_for_workers_that_cannot_hold_it_is_refused(make: Any) -> None:
    with pytest.raises(CannotRun, match="no worker can hold 512x512") as refused:
        plan_over(make.request(), make.spec(), [make.worker("a/0", 0.25)])
    assert refused.value.param == "size"


@pytest.mark.parametrize(("vram_gib", "window"), [(8, 33), (3.3, 17), (2.3, 9)])
def test_windows_are_the_longest_a_model_was_trained_on_that_a_worker_can_hold(
    make: Any, vram_gib: float, window: int
) -> None:
    rule = FrameRule.causal(4, max_frames=65)
    spec = make.spec(window_frames=33, frames=rule, trained_windows=(9, 17, 33, 65))
    made = plan_over(make.request(num_frames=100), spec, [make.worker("a/0", vram_gib)])
    assert made.window_frames == window
    assert any("longest synthetic was trained on" in note for note in made.notes) == (window < 33)
    asked = plan_over(make.request(num_frames=100, window_frames=5), spec, [make.worker("a/0", vram_gib)])
    assert asked.window_frames == 5


def test_auto_keeps_a_chain_where_nobody_can_encode_the_clips_of_what_would_end_sooner(make: Any) -> None:
    spec = make.spec(min_fps=0.5)
    workers = [make.worker(f"{name}/0") for name in "abcd"]
    request = make.request(num_frames=96)
    assert plan_over(request, spec, workers).mode == "refine"
    large = spec.rungs[0].stages[0].model_copy(update={"fixed_bytes": 2**40, "clips_only": True})
    rungs = tuple(r.model_copy(update={"stages": (*r.stages, large)}) for r in spec.rungs)
    assert plan_over(request, spec.model_copy(update={"rungs": rungs}), workers).mode == "chain"
