"""Who can reach what listens, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodes.machine.listeners import asks_for, listening, reached_by


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("127.0.0.1", "programs on this machine"),
        ("::1", "programs on this machine"),
        ("0.0.0.0", "whoever reaches any address of this machine"),
        ("::", "whoever reaches any address of this machine"),
        ("192.168.1.10", "whoever reaches 192.168.1.10"),
    ],
)
def test_an_address_says_who_can_reach_it(address: str, who: str) -> None:
    assert reached_by(address) == who


@pytest.mark.parametrize(
    ("process", "guard"),
    [
        ("raylet", "Ray's token"),
        ("ray::_Worker.run", "Ray's token; for models, the farm's secret of the day"),
        ("nodes.ray.driver", "Ray's token"),
        ("farm", "a key, the secret of a worker, or for models the farm's secret of the day"),
        ("sshd", "unknown"),
    ],
)
def test_a_process_says_what_it_asks_for(process: str, guard: str) -> None:
    assert asks_for(process) == guard


def test_a_folder_without_a_farm_has_no_listeners(tmp_path: Path) -> None:
    assert listening(tmp_path) == []
