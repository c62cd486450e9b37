"""Which mode ``auto`` takes: by what an engine was trained for, how long the video is, who is there."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec
from farm.planning.plan import Plan
from farm.planning.planner import plan
from farm.planning.predict import makespan
from farm.planning.suggest import plan_over

_BOTH_ENDS = frozenset({"image", "last_image", "keyframes", "prefix", "text"})
_CAUSAL = FrameRule.causal(4, min_frames=5, max_frames=81)
_WAN: dict[str, Any] = {"frames": _CAUSAL, "window_frames": 17, "overlap_frames": 5, "default_steps": 4}
#: What of each engine decides, as its spec tells it.
ENGINES: dict[str, dict[str, Any]] = {
    # A U-Net that starts from an image, and can refine a draft of slow motion.
    "i2vgen_xl": {"takes": frozenset({"image", "text", "video"}), "min_fps": 1.0, "default_steps": 20},
    # Told rates, trained at both ends, not to be given a video.
    "tiny_wan": {
        **_WAN,
        "takes": _BOTH_ENDS | {"video"},
        "untrained": frozenset({"video"}),
        "min_fps": 0.5,
        "max_end_latents": 2,
        "max_prefix_latents": 2,
    },
    # One pace, two experts.
    "a14b": {
        **_WAN,
        "takes": _BOTH_ENDS | {"video"},
        "untrained": frozenset({"keyframes", "prefix"}),
        "min_fps": 16.0,
        "native_fps": 16,
        "knows_rates": False,
        "draft_steps": 2,
        "default_steps": 40,
    },
    # Its last frame is none that it was trained to be given.
    "ti2v": {**_WAN, "takes": frozenset({"image", "prefix", "text"}), "min_fps": 24.0, "knows_rates": False},
    "ltx 0.9.0": {
        **_WAN,
        "takes": _BOTH_ENDS,
        "untrained": frozenset({"last_image", "keyframes", "prefix"}),
        "min_fps": 1.0,
    },
    # Starts anywhere.
    "procedural": {"takes": frozenset({"image", "text", "video"}), "random_access": True},
}


def engine(make: Any, name: str) -> EngineSpec:
    spec: EngineSpec = make.spec(model=name, **ENGINES[name])
    return spec


def chosen(make: Any, name: str, num_frames: int, workers: int) -> Plan:
    request = make.request(model=name, num_frames=num_frames)
    return plan_over(request, engine(make, name), [make.worker(f"{i}/0", 24) for i in range(workers)])


@pytest.mark.parametrize(
    ("name", "num_frames", "modes"),
    [
        # Modes with 1, 2, 4 and 8 workers.
        ("i2vgen_xl", 8, ("chain", "chain", "chain", "chain")),
        ("i2vgen_xl", 96, ("chain", "refine", "refine", "refine")),
        ("tiny_wan", 17, ("chain", "chain", "chain", "chain")),
        ("tiny_wan", 29, ("chain", "infill", "infill", "infill")),
        ("tiny_wan", 96, ("chain", "infill", "infill", "infill")),
        ("tiny_wan", 384, ("chain", "infill", "infill", "infill")),
        ("a14b", 17, ("chain", "chain", "chain", "chain")),
        ("a14b", 96, ("chain", "infill", "infill", "infill")),
        ("a14b", 384, ("chain", "infill", "infill", "infill")),
        ("ti2v", 384, ("chain", "chain", "chain", "chain")),
        ("ltx 0.9.0", 384, ("chain", "chain", "chain", "chain")),
        ("procedural", 384, ("independent", "independent", "independent", "independent")),
    ],
)
def test_infill_is_taken_where_an_engine_has_both_ends_as_trained_and_it_ends_sooner(
    make: Any, name: str, num_frames: int, modes: tuple[str, ...]
) -> None:
    assert tuple(chosen(make, name, num_frames, workers).mode for workers in (1, 2, 4, 8)) == modes


@pytest.mark.parametrize("name", ["tiny_wan", "a14b", "i2vgen_xl"])
@pytest.mark.parametrize("num_frames", [18, 25, 40, 96, 200])
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_chain_is_taken_where_nothing_ends_sooner(
    make: Any, name: str, num_frames: int, workers: int
) -> None:
    made = chosen(make, name, num_frames, workers)
    spec = engine(make, name)
    parallel = "infill" if "last_image" in spec.takes else "refine"
    plans = {
        mode: plan(make.request(model=name, num_frames=num_frames, mode=mode), spec)
        for mode in ("chain", parallel)
    }
    is_sooner = makespan(plans[parallel], workers) < makespan(plans["chain"], workers)
    assert made.mode == (parallel if is_sooner else "chain")


def test_infill_comes_before_refine_which_softens(make: Any) -> None:
    spec = engine(make, "a14b")
    request = make.request(model="a14b", num_frames=384)
    ends = {m: makespan(plan(request.model_copy(update={"mode": m}), spec), 2) for m in ("refine", "infill")}
    assert ends["refine"] < ends["infill"]
    assert chosen(make, "a14b", 384, 2).mode == "infill"


def test_workers_that_cannot_hold_a_window_do_not_count(make: Any) -> None:
    workers = [make.worker("a/0", 24), *(make.worker(f"{i}/0", 0.25) for i in range(8))]
    assert plan_over(make.request(num_frames=96), engine(make, "tiny_wan"), workers).mode == "chain"


def test_the_plan_that_is_taken_stands_beside_the_chain_it_was_compared_with(make: Any) -> None:
    made = chosen(make, "tiny_wan", 96, 4)
    by_name = plan(make.request(model="tiny_wan", num_frames=96, mode="infill"), engine(make, "tiny_wan"))
    assert made.beside_chain is not None
    assert made.beside_chain == by_name.beside_chain
    assert chosen(make, "tiny_wan", 96, 1).beside_chain is None
