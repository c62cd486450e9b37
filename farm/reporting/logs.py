"""What a farm that is up writes down: JSON lines in its state folder, and text or JSON on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from farm.state import (
    Event,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobPrioritized,
    JobPublished,
    JobReopened,
    JobRetried,
    JobSubmitted,
    KeyframeReplaced,
    KeyframesReady,
    KeyframesRemade,
    Ledger,
    NodeAdmitted,
    NodeRemoved,
    ReviewApproved,
    TaskReopened,
    WorkerDraining,
    WorkerEnabled,
    WorkerJoined,
    WorkerLeft,
)

log = logging.getLogger(__name__)

LOG_NAME = "farm.log"
#: Of one file; so many older ones stand beside it.
MAX_BYTES = 10 << 20
OLDER_FILES = 5
ROOMS = ("farm", "nodes", "stitching", "dashboard")
#: What a record may carry besides its message, as ``extra``.
ID_FIELDS = ("job_id", "task_id", "attempt_id", "worker_id")

LogFormat = Literal["text", "json"]


class JsonLines(logging.Formatter):
    """One JSON object a line: ``at`` (seconds since the epoch), ``level``, ``logger``, ``message``, ids."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in ID_FIELDS if hasattr(record, name)})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """``11:02:33 WARNING message``; names in a message bring no terminal codes and no further lines."""

    def format(self, record: logging.LogRecord) -> str:
        message = "".join(c if c.isprintable() else " " for c in record.getMessage())
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname} {message}"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class _PrivateFile(RotatingFileHandler):
    """Only its owner may read it. A full disk costs the log, not the farm."""

    _failed = False

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(handle, self.mode, encoding=self.encoding)  # type: ignore[return-value]

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._failed:
            self._failed = True
            sys.stderr.write(f"{self.baseFilename} cannot be written ({sys.exc_info()[1]})\n")


def said(event: Event) -> str | None:
    """An event as a line of the log; None: who made it happen has logged it, or it says nothing new."""
    match event:
        case NodeAdmitted(node=node):
            return f"node {node} was let in"
        case NodeRemoved(node=node):
            return f"node {node} was removed"
        case WorkerJoined(worker=worker):
            return f"worker {worker.id} joined: {worker.device_name}"
        case WorkerLeft(worker_id=worker_id, reason=reason):
            return f"worker {worker_id} left: {reason}"
        case WorkerDraining(worker_id=worker_id):
            return f"worker {worker_id} is draining"
        case WorkerEnabled(worker_id=worker_id):
            return f"worker {worker_id} may work again"
        case JobSubmitted(job_id=job_id, plan=plan, submitted_by=name):
            by = f" by {name}" if name else ""
            return (
                f"job {job_id} was submitted{by}: {len(plan.segments)} segments of {plan.model}, {plan.mode}"
            )
        case JobPublished(job_id=job_id, num_frames=num_frames):
            return f"job {job_id} is done: {num_frames} frames"
        case JobFailed(job_id=job_id, reason=reason):
            return f"job {job_id} failed: {reason}"
        case JobPrioritized(job_id=job_id, priority=priority):
            return f"job {job_id} has priority {priority}"
        case JobCancelled() | JobRetried() | JobReopened() | JobDeleted():
            return f"job {event.job_id} was {event.type.removeprefix('job_')}"
        case KeyframesRemade(takes=takes, seed=seed):
            return f"{', '.join(takes)} of {event.job_id} are made again with seed {seed}"
        case KeyframeReplaced(task_id=task_id, position=position, media=media):
            what = "is what was rendered again" if media is None else f"is replaced by {media.sha256[:12]}"
            return f"keyframe {position} of {task_id} of {event.job_id} {what}"
        case KeyframesReady(job_id=job_id):
            return f"job {job_id} waits for its user: its keyframes are there"
        case ReviewApproved(job_id=job_id):
            return f"the keyframes of job {job_id} were approved"
        case TaskReopened(task_id=task_id, reason=reason):
            return f"segment {task_id} of {event.job_id} is rendered again: {reason}"
    return None


async def log_events(ledger: Ledger) -> None:
    """Log what happens, until cancelled."""
    with ledger.watch() as happened:
        while True:
            _, _, event = await happened.get()
            line = said(event)
            if line is not None:
                worker = {"worker_id": event.worker.id} if isinstance(event, WorkerJoined) else {}
                ids = {name: getattr(event, name) for name in ID_FIELDS if hasattr(event, name)}
                log.info("%s", line, extra=ids | worker)


@contextmanager
def logging_to(folder: Path, on_stderr: LogFormat = "text") -> Iterator[None]:
    """Log to ``folder`` until the block ends: what the farm does, and what goes wrong anywhere.

    Standard error gets warnings as text, or everything as JSON lines, for a supervisor that collects them.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = _PrivateFile(
        folder / LOG_NAME, maxBytes=MAX_BYTES, backupCount=OLDER_FILES, encoding="utf-8", delay=True
    )
    file.setFormatter(JsonLines())
    stderr = logging.StreamHandler()
    stderr.setFormatter(JsonLines() if on_stderr == "json" else TextLines())
    stderr.setLevel(logging.INFO if on_stderr == "json" else logging.WARNING)
    root = logging.getLogger()
    handlers: tuple[logging.Handler, ...] = (file, stderr)
    levels = {room: logging.getLogger(room).level for room in ROOMS}
    for handler in handlers:
        root.addHandler(handler)
    for room in ROOMS:
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        yield
    finally:
        for room, level in levels.items():
            logging.getLogger(room).setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
