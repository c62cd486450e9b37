"""How many cores a process here may keep busy, and what of them each worker of the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from farm.capabilities import Worker
from nodes.machine.control_groups import group_folders


def usable_cores(root: Path = Path("/")) -> int:
    """Cores of this machine that this process may use, at least one.

    A container may have the time of a few only; more threads than that are stopped in the middle of work.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return within_shares(here, (_share(folder) for folder in group_folders(root, "cpu")))


def threads_per_worker(workers: Sequence[Worker], cores: int | None = None) -> int:
    """CPU threads a worker of this machine may use: an even share.

    Beside cards as many are left as one of them has: for the farm itself, where it runs, and the rest.

    Args:
        workers: All of this machine.
        cores: That are shared; None: those that are usable.
    """
    cores = usable_cores() if cores is None else cores
    sharing = len(workers) + any(worker.kind == "cuda" for worker in workers)
    return max(1, cores // max(1, sharing))


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
