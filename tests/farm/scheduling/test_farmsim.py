"""Small farms under a virtual clock, on which everything happens: nothing is lost, doubled or left over."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.farmsim import small_farm


@pytest.mark.parametrize("seed", range(3))
def test_no_rule_breaks_on_a_farm_on_which_everything_happens(seed: int, tmp_path: Path) -> None:
    farm = small_farm(random.Random(seed), tmp_path)
    assert farm.finished
    assert farm.told.kills
