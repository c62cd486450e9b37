"""How many cores a process here may keep busy: those it may run on, and what its control groups allow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nodes.machine.control_groups import group_folders


def usable_cores(root: Path = Path("/")) -> int:
    """Cores of this machine that this process may use, at least one.

    A container may have the time of a few only; more threads than that are stopped in the middle of work.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return within_shares(here, (_share(folder) for folder in group_folders(root, "cpu")))


def within_shares(cores: int, shares: Iterable[float | None]) -> int:
    """``cores``, or the smallest of the shares, in cores, rounded down; None is no limit."""
    return max(1, int(min([cores, *(share for share in shares if share is not None)])))


def _share(folder: Path) -> float | None:
    """Cores' worth of time that a group may have; None: as much as there is."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        share = int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return share if share > 0 else None
