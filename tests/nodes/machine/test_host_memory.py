from __future__ import annotations

from pathlib import Path

import pytest

from nodes.machine.host_memory import GroupMemory, HostMemory, host_memory, within_limits

MIB = 2**20
MEMINFO = (
    "MemTotal:       32768 kB\nMemFree:         1024 kB\nMemAvailable:   24576 kB\nHugePages_Total:       0\n"
)


@pytest.mark.parametrize(
    ("groups", "total_mib", "available_mib"),
    [
        ([], 32, 24),
        ([GroupMemory(64 * MIB, 10 * MIB)], 32, 24),
        ([GroupMemory(16 * MIB, 10 * MIB)], 16, 6),
        ([GroupMemory(16 * MIB, 10 * MIB, 4 * MIB)], 16, 10),
        ([GroupMemory(16 * MIB, 10 * MIB), GroupMemory(20 * MIB, 18 * MIB)], 16, 2),
        ([GroupMemory(16 * MIB, 17 * MIB)], 16, 0),
    ],
)
def test_the_tightest_of_machine_and_groups_counts(
    groups: list[GroupMemory], total_mib: int, available_mib: int
) -> None:
    assert within_limits(MEMINFO, groups) == HostMemory(total_mib * MIB, available_mib * MIB)


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": cgroup, **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_limit_of_any_group_above_is_found(tmp_path: Path) -> None:
    above, own = "sys/fs/cgroup/user.slice/", "sys/fs/cgroup/user.slice/farm.scope/"
    root = machine(
        tmp_path,
        "0::/user.slice/farm.scope\n",
        {
            f"{above}memory.max": f"{16 * MIB}\n",
            f"{above}memory.current": f"{12 * MIB}\n",
            f"{above}memory.stat": f"anon 1\ninactive_file {5 * MIB}\n",
            f"{own}memory.max": "max\n",
            f"{own}memory.current": "1\n",
            f"{own}memory.stat": "inactive_file 0\n",
        },
    )
    assert host_memory(root) == HostMemory(16 * MIB, 9 * MIB)


def test_a_container_that_names_its_group_by_the_hosts_path_finds_its_limit(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "12:cpu:/docker/abc\n5:memory:/docker/abc\n",
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * MIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{6 * MIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {MIB}\n",
        },
    )
    assert host_memory(root) == HostMemory(8 * MIB, 3 * MIB)


def test_a_group_without_a_limit_leaves_what_the_machine_has(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{6 * MIB}\n",
        "sys/fs/cgroup/memory/memory.stat": "",
    }
    assert host_memory(machine(tmp_path, "5:memory:/\n", files)) == HostMemory(32 * MIB, 24 * MIB)


def test_this_machine_has_some() -> None:
    found = host_memory()
    assert 0 < found.available_bytes <= found.total_bytes
