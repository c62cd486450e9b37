"""The resident memory of this process and its peak, without torch."""

from __future__ import annotations

import sys
from pathlib import Path


def reset_peak_rss() -> None:
    """Start a new measurement for ``peak_rss_bytes`` (Linux; elsewhere it counts from the start)."""
    if sys.platform == "linux":
        # "5" resets the peak resident size of this process (man 5 proc).
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_bytes() -> int | None:
    """The most bytes resident since ``reset_peak_rss``; None where the system does not say."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    if sys.platform == "win32":
        return None
    import resource  # does not exist on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
