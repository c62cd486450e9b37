from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.worker import GIB, Worker
from nodes.machine.host_cores import threads_per_worker, usable_cores, within_shares

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cores", "shares", "usable"),
    [
        (8, [], 8),
        (8, [None, None], 8),
        (8, [2.0, None], 2),
        (8, [4.0, 2.5], 2),
        (8, [0.5], 1),
        (2, [16.0], 2),
    ],
)
def test_the_smallest_share_of_any_group_counts(cores: int, shares: list[float | None], usable: int) -> None:
    assert within_shares(cores, shares) == usable


@pytest.mark.parametrize(
    ("cgroup", "files", "usable"),
    [
        ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, HERE),
        ("0::/of/the/host\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "4:memory:/m\n3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            HERE,
        ),
        ("", {}, HERE),
    ],
)
def test_groups_of_both_versions_are_read(
    cgroup: str, files: dict[str, str], usable: int, tmp_path: Path
) -> None:
    told = {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    for name, text in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == usable


def worker(number: int, kind: Any) -> Worker:
    return Worker(id=f"a/{number}", node="a", kind=kind, device_name="one", vram_bytes=GIB)


@pytest.mark.parametrize(
    ("kinds", "cores", "threads"),
    [
        (["cpu", "cpu"], 2, 1),
        (["cpu", "cpu"], 9, 4),
        (["cpu"], 8, 8),
        (["cuda"] * 4, 64, 12),
        (["cuda"], 2, 1),
        (["cuda"] * 8, 4, 1),
        ([], 4, 4),
    ],
)
def test_cores_are_shared_by_all_workers_and_beside_cards_with_the_farm(
    kinds: list[str], cores: int, threads: int
) -> None:
    assert threads_per_worker([worker(i, kind) for i, kind in enumerate(kinds)], cores) == threads
