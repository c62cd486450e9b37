"""How much memory there is for a process here: the kernel's word, and the limits of its control groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nodes.machine.control_groups import group_folders

#: Of a version 1 group without a limit: the largest whole number of pages.
_NO_LIMIT_BYTES = 2**62
#: Files of a group: limit, what is used, and what of it the kernel can take back, by version.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class HostMemory:
    """Bytes of memory: all that a process here may ever have, and what it can have now without swapping."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class GroupMemory:
    """A control group's limit and use; ``reclaimable_bytes`` of the use are files read lately."""

    limit_bytes: int
    used_bytes: int
    reclaimable_bytes: int = 0


def within_limits(meminfo: str, groups: Iterable[GroupMemory]) -> HostMemory:
    """The memory that is left by the tightest of machine and groups.

    Args:
        meminfo: Text of ``/proc/meminfo``.
        groups: The control groups with limits that the process is in, at any level.
    """
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.splitlines() if ":" in line}
    total, available = fields["MemTotal"], fields["MemAvailable"]
    for group in groups:
        total = min(total, group.limit_bytes)
        available = min(available, group.limit_bytes - group.used_bytes + group.reclaimable_bytes)
    return HostMemory(total, max(0, available))


def host_memory(root: Path = Path("/")) -> HostMemory:
    """This machine's memory for this process, now; elsewhere than on Linux the machine's alone.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    meminfo = root / "proc" / "meminfo"
    if not meminfo.is_file():
        import psutil

        memory = psutil.virtual_memory()
        return HostMemory(memory.total, memory.available)
    groups = (found for folder in group_folders(root, "memory") if (found := _group(folder)) is not None)
    return within_limits(meminfo.read_text(), groups)


def _group(folder: Path) -> GroupMemory | None:
    for limit, used, reclaimable in _FILES:
        try:
            limit_bytes = int((folder / limit).read_text())
            used_bytes = int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit_bytes < _NO_LIMIT_BYTES:
            return GroupMemory(limit_bytes, used_bytes, int(stat.get(reclaimable, 0)))
    return None
