"""A card that another program fills is passed over, with the reason, and comes back by itself."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities.worker import GIB
from farm.scheduling.schedule import explain, schedule
from farm.scheduling.waiting import waiting
from farm.state.index import index_of, noticed
from farm.state.state import State
from farm.state.workers import OTHERS_STEP_BYTES, Telemetry, as_others_leave

TOTAL = 12 * GIB


def look(others: int | None, *, worker: str = "a/0", used: int = 0) -> Telemetry:
    return Telemetry(worker, vram_used_bytes=used, vram_total_bytes=TOTAL, vram_others_bytes=others)


@pytest.mark.parametrize(
    ("has", "others", "usable"),
    [
        (TOTAL - 400 * 2**20, 0, TOTAL - 400 * 2**20),
        (TOTAL - 400 * 2**20, 390 * 2**20, TOTAL - 400 * 2**20),  # the desktop, for which that is left
        (TOTAL - 400 * 2**20, 3 * GIB, 9 * GIB),
        (TOTAL - 400 * 2**20, 3 * GIB - 1, 9 * GIB),
        (TOTAL - 400 * 2**20, 3 * GIB + 1, 9 * GIB - OTHERS_STEP_BYTES),
        (8 * GIB, 3 * GIB, 8 * GIB),  # its owner's limit is smaller
        (8 * GIB, TOTAL, 1),
        (8 * GIB, None, 8 * GIB),
    ],
)
def test_what_others_hold_is_taken_off_beyond_the_desktops_share(
    make: Any, has: int, others: int | None, usable: int
) -> None:
    worker = make.worker("a/0", vram_bytes=has)
    assert as_others_leave(worker, look(others)).vram_bytes == usable


@pytest.fixture
def farm(make: Any) -> State:
    """A job that needs 4.5, 3.5 or 2 GiB, and one card."""
    state: State = make.state([*make.joined(make.worker("a/0", 11)), make.submitted(num_frames=8)])
    index_of(state)
    return state


def test_a_smaller_rung_is_taken_where_others_leave_less(farm: State) -> None:
    assert schedule(farm, 0.0)[0].rung == "resident"
    assert noticed(farm, look(8 * GIB), 1.0)
    (given,) = schedule(farm, 0.0)
    assert given.rung == "evict"
    assert given.why == "evict fits (3.50 GiB of 4.00 GiB); the only worker that can"


def test_a_filled_card_gets_nothing_says_why_and_comes_back_by_itself(make: Any, farm: State) -> None:
    assert noticed(farm, look(11 * GIB), 1.0)
    assert schedule(farm, 0.0) == []
    job = farm.jobs["job"]
    said = explain(farm, job, job.tasks["s0-0"])["a/0"]
    assert said.endswith("; other programs hold 11.00 GiB of its card")
    found = waiting(farm, job)
    assert found is not None
    assert found.reason.endswith("; a/0 could, and other programs hold 11.00 GiB of its card")
    assert not noticed(farm, look(11 * GIB - 5), 2.0), "as good as the same"
    assert noticed(farm, look(100), 3.0)
    assert [given.worker_id for given in schedule(farm, 0.0)] == ["a/0"]
    assert farm.workers["a/0"].limited is None


def test_what_a_worker_holds_itself_takes_nothing_from_it(farm: State) -> None:
    assert not noticed(farm, look(0, used=TOTAL), 1.0)
    assert farm.workers["a/0"].telemetry == look(0, used=TOTAL)


def test_a_look_at_a_worker_that_has_left_is_nothing(farm: State) -> None:
    assert not noticed(farm, look(0, worker="gone/0"), 1.0)


def test_a_farm_without_an_index_knows_as_much(make: Any) -> None:
    state: State = make.state([*make.joined(make.worker("a/0", 11)), make.submitted(num_frames=8)])
    assert noticed(state, look(11 * GIB), 1.0)
    assert schedule(state, 0.0) == []
