"""Seconds, card bytes and host bytes of the phases of one process."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

#: Between two looks at the host's memory.
_LOOK_S = 0.02


class Watch:
    """Measures phase after phase of this process; a phase that comes again adds its seconds.

    Host memory is what the process holds that is no file's (``RssAnon``, pinned memory of its own within it),
    and what the machine's used memory grew by since the start, which counts pinned memory of the driver's.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self.phases: dict[str, dict[str, float]] = {}
        self._name: str | None = None
        self._steps: list[float] = []
        self._used_at_start = used_bytes()
        self._most_anon = self._most_used = 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            anon, used = anon_bytes(), used_bytes() - self._used_at_start
            with self._lock:
                self._most_anon, self._most_used = max(self._most_anon, anon), max(self._most_used, used)

    def begin(self, name: str) -> None:
        """End the phase before and begin another."""
        self.end()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        with self._lock:
            self._most_anon = self._most_used = 0
        self._name, self._start = name, time.perf_counter()
        self._steps.append(self._start)

    def step(self) -> None:
        """A step of the phase is done."""
        self._synchronize()
        self._steps.append(time.perf_counter())

    def end(self) -> None:
        if self._name is None:
            return
        self._synchronize()
        phase = self.phases.setdefault(self._name, {"seconds": 0.0})
        phase["seconds"] += time.perf_counter() - self._start
        peaks = {"anon_bytes": max(self._most_anon, anon_bytes()), "host_used_bytes": self._most_used}
        if self._cuda:
            peaks["reserved_bytes"] = torch.cuda.max_memory_reserved()
            peaks["allocated_bytes"] = torch.cuda.max_memory_allocated()
        for key, value in peaks.items():
            phase[key] = max(phase.get(key, 0), value)
        if len(self._steps) > 1:
            steps = [b - a for a, b in zip(self._steps, self._steps[1:], strict=False)]
            phase["steps_s"] = [*phase.get("steps_s", []), *steps]  # type: ignore[misc,list-item]
            phase["step_s"] = statistics.median(phase["steps_s"])  # type: ignore[arg-type]
        self._steps, self._name = [], None

    def seconds(self) -> dict[str, float]:
        """Of the phases that have ended."""
        return {name: phase["seconds"] for name, phase in self.phases.items()}

    def around(self, owner: Any, attribute: str, name: str, after: str | None = None) -> None:
        """Make a method a phase of its own; ``after``: the phase that goes on behind it."""
        call: Callable[..., Any] = getattr(owner, attribute)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            try:
                return call(*args, **kwargs)
            finally:
                self.end()
                if after is not None:
                    self.begin(after)

        object.__setattr__(owner, attribute, watched)

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def close(self) -> dict[str, dict[str, float]]:
        self.end()
        self._ended.set()
        return self.phases


def anon_bytes() -> int:
    """Resident bytes of this process that are no file's."""
    status = Path("/proc/self/status").read_text()
    told = "RssAnon:" if "RssAnon:" in status else "VmRSS:"
    return int(status.split(told)[1].split()[0]) * 1024


def largest_mappings(least: int = 48 * 2**20) -> list[int]:
    """Resident bytes of this process's largest mappings that are no file's, in their order."""
    sizes, is_files = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line[0] in "0123456789abcdef" and "-" in line.split()[0]:
            is_files = "/" in line
        elif line.startswith("Anonymous:") and not is_files:
            sizes.append(int(line.split()[1]) * 1024)
    return sorted((size for size in sizes if size >= least), reverse=True)


def used_bytes() -> int:
    """The machine's memory in use, files that may be forgotten not counted."""
    told = Path("/proc/meminfo").read_text()

    def of(name: str) -> int:
        return int(told.split(f"{name}:")[1].split()[0]) * 1024

    return of("MemTotal") - of("MemAvailable")


def seconds_of(call: Callable[[], Any], times: int, device: str) -> list[float]:
    """Of each of ``times`` calls, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return found[1:]
