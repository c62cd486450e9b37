"""Jobs in a terminal: a line each in 80 columns, and how one ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.reporting import console

#: Jobs that are named beside one reason.
_MAX_NAMED = 3


def print_jobs(jobs: Sequence[Mapping[str, Any]], now: float, shown_on: Console = console.out) -> None:
    """Jobs a line each, as many of a prompt's words as there is room for, and below why some stand still.

    Args:
        jobs: Each a ``JobSummary``.
        now: Seconds since the epoch.
        shown_on: Where they are told.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("job", "status", "done"):
        table.add_column(name, no_wrap=True)
    table.add_column("prompt")
    for name in ("age", "time"):
        table.add_column(name, no_wrap=True, justify="right")
    for job in jobs:
        prompt = Text(" ".join(job["prompt"].split()), no_wrap=True, overflow="ellipsis")
        done = f"{job['segments']['done']}/{job['segments']['total']}"
        age = age_words(now - job["submitted_at"])
        table.add_row(job["id"], _status(job), done, prompt, age, _time(job))
    shown_on.print(table)
    # Outside of the table, whose lines are cut: what is advised there can be pasted.
    why: dict[str, list[str]] = {}
    for job in jobs:
        if job["waiting_for"]:
            why.setdefault(f"waiting: {job['waiting_for']}", []).append(job["id"])
        elif job["reason"]:
            why.setdefault(f"{job['status']}: {job['reason']}", []).append(job["id"])
    for reason, job_ids in why.items():
        more = f" and {len(job_ids) - _MAX_NAMED} more" if len(job_ids) > _MAX_NAMED else ""
        console.say(f"{', '.join(job_ids[:_MAX_NAMED])}{more} {reason}", shown_on)


def _status(job: Mapping[str, Any]) -> str:
    if not job["waiting_for"]:
        return str(job["status"])
    position = job["queue_position"]
    return "waiting" if position is None else f"waiting ({position})"


def _time(job: Mapping[str, Any]) -> str:
    """What it took, or what is left of it."""
    if job["finished_at"] is not None:
        return duration_words(job["finished_at"] - job["submitted_at"])
    return "" if job["eta_s"] is None else f"{duration_words(job['eta_s'])} left"


def age_words(seconds: float) -> str:
    """Such as ``12 m``: of the largest unit there is a whole one of, down to seconds."""
    for unit, unit_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{max(0, int(seconds))} s"


def duration_words(seconds: float) -> str:
    """Such as ``7.2 s``, ``1:41 min`` or ``2:05 h``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}:{minutes:02d} h"


def made_lines(report: Mapping[str, Any], video: str, sheet: str) -> list[str]:
    """How a job ended: where its video is, how long it took, how to read more.

    Args:
        report: As ``job_report`` makes it, of a job that has succeeded.
        video: Path of the video, whole.
        sheet: Path of its contact sheet.
    """
    took_s = report["totals"]["wall_s"]
    took = "" if took_s is None else f", made in {duration_words(took_s)}"
    failed = [seam["before"] for seam in report["seams"] if not seam["passed"]]
    beyond = [f"{len(failed)} of {len(report['seams'])} seams are beyond a gate"] if failed else []
    length = f"{report['num_frames']} frames, {report['num_frames'] / report['fps']:.1f} s"
    return [
        f"video: {video} ({length}{took})",
        f"contact sheet: {sheet}",
        "; ".join((f"job {report['id']}", *beyond, f"`farm report {report['id']}` tells of it")),
    ]
