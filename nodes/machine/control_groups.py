"""The control groups that this process is in: where the kernel limits what it may have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def group_folders(root: Path, controller: str) -> Iterable[Path]:
    """Folders of the process' groups, its own first, with the files of ``controller`` where it limits them.

    Args:
        root: Where ``proc`` and ``sys`` are.
        controller: Such as "memory"; groups of version 1 have a hierarchy for each.
    """
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # hierarchy:controllers:path
        _, controllers, path = line.split(":", 2)
        base = root / "sys" / "fs" / "cgroup"
        if controllers:
            if controller not in controllers.split(","):
                continue
            base /= controller
        inside = PurePosixPath(path).relative_to("/")
        # In a container the path may be the host's, of which nothing is here but the root.
        yield from dict.fromkeys((base / inside, *(base / each for each in inside.parents), base))
