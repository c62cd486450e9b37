"""What a worker notes while an attempt runs: its phases, its memory, and what libraries warn of."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from farm.planning import Phase
from farm.running import MAX_LOG_BYTES

_CUT_LINE = "... lines left out ...\n"
_MAX_LINE_BYTES = 4096


class AttemptLog:
    """Lines "time level text", times in UTC. Of a log that grows too long the middle is left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._first_bytes = self._last_bytes = 0
        self._cut = False
        self._phase: tuple[Phase, float] | None = None
        #: Of each phase it went through and left.
        self.phases_s: dict[Phase, float] = {}

    def note(self, text: str, level: int = logging.INFO, *, at: float | None = None) -> None:
        """Add a line, or several where the text has several. ``at``: seconds since the epoch."""
        when = time.time() if at is None else at
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}Z"
        for line in text.splitlines():
            self._add(f"{stamp} {logging.getLevelName(level)} {line}")

    def phase(self, phase: Phase | None) -> None:
        """The attempt goes on to a phase, or ends (None): note how long the one before took."""
        now = time.monotonic()
        if self._phase is not None and self._phase[0] != phase:
            before, since = self._phase
            self.phases_s[before] = self.phases_s.get(before, 0.0) + now - since
            self.note(f"{before}: {now - since:.2f} s")
        if self._phase is None or self._phase[0] != phase:
            self._phase = None if phase is None else (phase, now)

    def failed(self, error: BaseException) -> None:
        """Note where an unexpected error came from."""
        self.note("".join(traceback.format_exception(error)), logging.ERROR)

    def text(self) -> str:
        """All lines, at most ``MAX_LOG_BYTES``."""
        with self._lock:
            return "".join([*self._first, _CUT_LINE if self._cut else "", *self._last])

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take in what this thread logs through ``logging`` at WARNING and above."""
        handler = _OfThisThread(self)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)

    def _add(self, line: str) -> None:
        whole = line.encode(errors="replace")
        if len(whole) > _MAX_LINE_BYTES:
            whole = whole[: _MAX_LINE_BYTES - 4] + b" ..."
        kept = whole.decode(errors="ignore") + "\n"
        size = len(kept.encode())
        half = (MAX_LOG_BYTES - len(_CUT_LINE)) // 2
        with self._lock:
            if not self._last and self._first_bytes + size <= half:
                self._first.append(kept)
                self._first_bytes += size
                return
            self._last.append(kept)
            self._last_bytes += size
            while self._last_bytes > half:
                self._last_bytes -= len(self._last.popleft().encode())
                self._cut = True


class _OfThisThread(logging.Handler):
    """Other workers may share the process: each hears its own thread."""

    def __init__(self, log: AttemptLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._thread_id = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread_id:
            try:
                self._log.note(f"{record.name}: {self.format(record)}", record.levelno, at=record.created)
            except Exception:  # a malformed message of a library is no reason to lose a render
                self.handleError(record)
