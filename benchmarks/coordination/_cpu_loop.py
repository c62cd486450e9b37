"""An event loop whose clock is its process' own: it goes on by the processor time that is used, and where
nothing is to be done it goes on to what is due next. What it tells does not depend on who else is at work."""

from __future__ import annotations

import asyncio
import selectors
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class CpuLoop(asyncio.SelectorEventLoop):
    """As fast as this process alone on its core; waiting takes no time."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self._threads = CountingThreads()
        super().__init__(_Selector(self))
        self.set_default_executor(self._threads)

    def time(self) -> float:
        return time.process_time() + self._skipped_s

    def idle(self, seconds: float) -> bool:
        """Nothing is to be done for so long; False: a thread has yet to bring its result."""
        if self._threads.num_running:
            return False
        self._skipped_s += seconds
        return True


class CountingThreads(ThreadPoolExecutor):
    """Knows how many calls are under way."""

    num_running = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.num_running += 1
        future = super().submit(*args, **kwargs)
        future.add_done_callback(self._over)
        return future

    def _over(self, future: Future[Any]) -> None:
        self.num_running -= 1


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: CpuLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        found: list[Any] = super().select(0)
        if found or timeout == 0:
            return found
        if timeout is None or not self._loop.idle(timeout):
            found = super().select(0.001)
        return found
