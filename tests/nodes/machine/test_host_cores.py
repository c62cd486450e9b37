from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodes.machine.host_cores import usable_cores, within_shares

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
