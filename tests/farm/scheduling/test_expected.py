"""A mode is chosen by what a quote would say of it: the workers' rates, and what they have to load."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.planning.plan import Plan
from farm.planning.suggest import plan_over
from farm.scheduling import ends_on, quote
from farm.state import Profiles, State, WorkerState

BOTH_ENDS = frozenset({"image", "last_image", "keyframes", "text"})
CAUSAL = FrameRule.causal(4, min_frames=5, max_frames=81)


def spec(make: Any, weights_gb: float) -> Any:
    return make.spec(
        takes=BOTH_ENDS,
        frames=CAUSAL,
        window_frames=17,
        overlap_frames=5,
        default_steps=4,
        min_fps=0.5,
        component_bytes={"text": 1, "unet": round(weights_gb * 1e9)},
    )


def chosen(make: Any, weights_gb: float, workers: list[WorkerState], **learned: Any) -> tuple[Plan, State]:
    """What is planned on these workers, and the farm as it is."""
    profiles = Profiles(**learned)
    model = spec(make, weights_gb)
    rungs = tuple(r.model_copy(update={"resident": ()}) for r in model.rungs)
    model = model.model_copy(update={"rungs": rungs})
    ends = ends_on(workers, profiles)
    made = plan_over(
        make.request(num_frames=96, overlap_frames=1), model, [w.worker for w in workers], ends=ends
    )
    return made, State(workers={w.worker.id: w for w in workers}, profiles=profiles)


def cards(make: Any, num: int, warm: int = 0) -> list[WorkerState]:
    return [
        WorkerState(make.worker(f"{i}/0", 24), warm_model="synthetic" if i < warm else None)
        for i in range(num)
    ]


@pytest.mark.parametrize(
    ("weights_gb", "warm", "mode"),
    [
        (1, 0, "infill"),
        # Nobody has it: with ten minutes of loading each, one renders everything, and a chain is less work.
        (600, 0, "chain"),
        (600, 1, "chain"),
        (600, 4, "infill"),
    ],
)
def test_loading_counts_and_who_has_the_model_already(
    make: Any, weights_gb: float, warm: int, mode: str
) -> None:
    made, state = chosen(make, weights_gb, cards(make, 4, warm))
    assert made.mode == mode
    used = sum(share.segments > 0 for share in quote(state, made, 0.0).workers)
    assert used == (1 if mode == "chain" else 4)


def test_workers_that_are_slow_are_not_counted_as_equals(make: Any) -> None:
    rates = {(f"{i}/0", "synthetic"): 1.0 if i == 0 else 50.0 for i in range(4)}
    assert chosen(make, 1, cards(make, 4, 4), seconds_per_unit=rates)[0].mode == "chain"
    even = dict.fromkeys(rates, 1.0)
    assert chosen(make, 1, cards(make, 4, 4), seconds_per_unit=even)[0].mode == "infill"


def test_what_is_said_of_the_choice_is_what_is_quoted(make: Any) -> None:
    made, state = chosen(make, 40, cards(make, 4, 2))
    (note,) = (n for n in made.notes if "of chain's time" in n)
    chain = make.request(num_frames=96, overlap_frames=1, mode="chain")
    model = spec(make, 40)
    model = model.model_copy(
        update={"rungs": tuple(r.model_copy(update={"resident": ()}) for r in model.rungs)}
    )
    workers = [w.worker for w in state.workers.values()]
    ends = [quote(state, p, 0.0).predicted_s for p in (made, plan_over(chain, model, workers))]
    assert None not in ends
    assert f"about {ends[0] / ends[1]:.2f} of chain's time" in note
