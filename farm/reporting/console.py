"""What a person sees in a terminal: progress while a job runs, tables, one line for an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from farm.capabilities import Weights, Worker, gib
from farm.planning import Plan, loaded_as
from farm.reporting.advice import pasteable
from farm.reporting.keyframes import KeyframeDetail
from farm.reporting.models import ModelReport, runnable_lines
from farm.reporting.report import waits_words
from farm.state import (
    Event,
    Job,
    JobSubmitted,
    KeyframesRemade,
    SeamAccepted,
    State,
    TaskAssigned,
    TaskReopened,
    WorkerJoined,
    WorkerLeft,
    apply,
    default_state_folder,
    refusal,
    usual_state_folder,
)

#: Output that is not looked at in a terminal must not fold its tables to 80 columns.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()  # some of those who tell it stay


class _Aim:
    """The farm that this process' command was told to use, for the commands it advises."""

    farm: str | None = None
    state: Path | None = None


def aim_at_farm(farm: str | None) -> str | None:
    """Whatever is advised from now on is for the farm at this address."""
    _Aim.farm = farm
    return farm


def aim_at_state(state: Path | None) -> Path | None:
    """Whatever is advised from now on is for the farm of this state folder; None: of the environment's."""
    folder = state or default_state_folder()
    _Aim.state = None if folder == usual_state_folder() else folder
    return state


def advised(message: str) -> str:
    """A sentence for a person; the commands in it can be pasted as they stand."""
    return pasteable(message, _Aim.farm, _Aim.state)


def say(message: str, console: Console = out) -> None:
    console.print(advised(message), markup=False, soft_wrap=True)


def tell(value: Any, words: str, *, as_json: bool) -> None:
    """What was done: ``value`` for programs, or ``words`` for people."""
    if as_json:
        print_json(value)
    else:
        say(words)


def print_error(message: str) -> None:
    """One line, whatever names of files are in it: no line breaks, no terminal codes."""
    message = advised(message)
    message = "".join(c if c.isprintable() else "?" for c in message)
    err.print(f"error: {message}", style="red", markup=False, soft_wrap=True)


class _Bars:
    """Bars on a terminal while the block lasts, and none elsewhere."""

    def __init__(self, console: Console, *counts: ProgressColumn) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            *counts,
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class LookView(_Bars):
    """How far the look at each input is. A live bar on a terminal, a line for every tenth elsewhere."""

    def __init__(self, console: Console = err) -> None:
        super().__init__(console)
        self._tenths: dict[str, int] = {}

    def told(self, name: str, num_frames: int, share: float | None) -> None:
        """So many frames of that file were looked at, which is that share of it, where it is known."""
        name = "".join(c if c.isprintable() else "?" for c in name)
        if name not in self._rows:
            self._rows[name] = self._progress.add_task(f"looking at {escape(name)}", total=None, note="")
        self._progress.update(
            self._rows[name],
            total=None if share is None else 1.0,
            completed=share or 0.0,
            note=f"{num_frames} frames",
        )
        tenth = int(10 * (share or 0.0))
        if not self._console.is_terminal and tenth > self._tenths.get(name, 0):
            self._tenths[name] = tenth
            text = f"looking at {name}: {num_frames} frames, {10 * tenth} %"
            self._console.print(text, style="dim", markup=False, soft_wrap=True)


class FetchView(_Bars):
    """How far a model is that comes. A live bar on a terminal, a line for every tenth elsewhere."""

    def __init__(self, console: Console = err) -> None:
        super().__init__(console, DownloadColumn(), TransferSpeedColumn())
        self._row: TaskID | None = None
        self._tenth = 0

    def told(self, done_bytes: int, total_bytes: int, name: str) -> None:
        """So many of its bytes are here; the file that comes, or none: another process is at it."""
        if self._row is None:
            self._row = self._progress.add_task("fetching", total=total_bytes, note="")
        self._progress.update(self._row, total=total_bytes, completed=done_bytes, note=escape(name))
        tenth = 10 * done_bytes // max(1, total_bytes)
        if not self._console.is_terminal and tenth > self._tenth:
            self._tenth = tenth
            text = f"fetching: {done_bytes / 1e9:.2f} of {total_bytes / 1e9:.2f} GB, {10 * tenth} %"
            self._console.print(text, style="dim", markup=False, soft_wrap=True)


class JobView(_Bars):
    """Follows one job from its events. A live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console = err) -> None:
        super().__init__(console, MofNCompleteColumn())
        self._state = State()
        self._tenth = -1
        self._waits = ""

    def event(self, at: float, event: Event) -> None:
        """Take in what happened and redraw."""
        if refusal(self._state, event):
            return
        apply(self._state, event, at)
        match event:
            case JobSubmitted(plan=plan):
                for note in plan.notes:
                    self._say(note)
            case WorkerJoined(worker=worker):
                self._say(f"worker {worker.id} is here with {gib(worker.vram_bytes)}")
            case WorkerLeft():
                self._say(f"worker {event.worker_id} left: {event.reason}")
            case KeyframesRemade(takes=takes, seed=seed):
                self._say(f"{', '.join(takes)} are made again with seed {seed}")
            case TaskReopened():
                self._say(f"segment {event.task_id} is rendered again: {event.reason}")
        job = next(iter(self._state.jobs.values()), None)
        if job is not None:
            self._draw(job, event)

    def worker(self, worker: Worker) -> None:
        """A worker that is here from the start."""
        self.event(0.0, WorkerJoined(worker=worker))

    def step(self, attempt_id: str, phase: str, done_fraction: float) -> None:
        """Progress inside an attempt."""
        row = self._rows.get(attempt_id.split("/")[1])
        if row is not None:
            self._progress.update(row, completed=round(100 * done_fraction), note=phase)

    def waits(self, why: str) -> None:
        """What the job waits for, in words; empty when it waits for nothing."""
        if why and why != self._waits:
            self._say(f"waiting, {why}")
        self._waits = why

    def lost(self, reason: str) -> None:
        """The farm does not answer; empty when it does again."""
        self._say(f"{reason}; waiting for it, and the job stays as it is" if reason else "the farm is back")

    def _draw(self, job: Job, event: Event) -> None:
        total = len(job.tasks)
        joined = sum(1 for seam in job.seams.values() if seam.accepted_take is not None)
        note = f"{joined} seams joined"
        if "" not in self._rows:
            self._rows[""] = self._progress.add_task("segments", total=total, note=note)
        self._progress.update(self._rows[""], completed=job.num_done, note=note)
        for task in job.tasks.values():
            row = self._rows.get(task.id)
            attempts = task.running_attempts
            if attempts and row is None and self._console.is_terminal:
                described = f"{task.id} on {attempts[0].worker_id}"
                self._rows[task.id] = self._progress.add_task(described, total=100, note="")
            elif not attempts and row is not None:
                self._progress.remove_task(self._rows.pop(task.id))
        tenth = 10 * job.num_done // total
        if not self._console.is_terminal and tenth != self._tenth and not isinstance(event, TaskAssigned):
            self._tenth = tenth
            self._say(f"{job.num_done} of {total} segments, {note}")
        elif isinstance(event, SeamAccepted) and not job.seams[event.task_id].measured[event.take].passed:
            failed = job.seams[event.task_id].measured[event.take].report["failed_gates"]
            self._say(f"seam before {event.task_id} kept with failed gates: {', '.join(failed)}")

    def _say(self, text: str) -> None:
        self._progress.console.print(advised(text), style="dim", markup=False, soft_wrap=True)


def print_report(report: Mapping[str, Any], console: Console = out) -> None:
    """The story of a finished job: segments, workers, memory, seams, times."""
    segments = Table(title="Segments", title_justify="left", box=None, pad_edge=False)
    for name in ("segment", "frames", "worker", "rung", "need / VRAM", "seconds", "seam", "why there"):
        segments.add_column(name, overflow="fold")
    seams = {seam["before"]: seam for seam in report["seams"]}
    for segment in report["segments"]:
        need = (
            f"{gib(segment['need_bytes']).removesuffix(' GiB')} / {gib(segment['vram_bytes'])}"
            if segment["vram_bytes"]
            else ""
        )
        segments.add_row(
            segment["id"],
            f"{segment['start']}-{segment['end'] - 1}" if segment["num_frames"] else "none",
            segment["worker_id"] or "",
            segment["rung"] or "",
            need,
            f"{segment['wall_s']:.2f}" if segment["wall_s"] is not None else "",
            _seam_words(seams.get(segment["id"])) or _fill_words(segment["fill"]),
            # That it fits is in the columns before.
            (segment["why"] or "").split("; ", 1)[-1],
        )
    console.print(segments)
    workers = Table(title="Workers", title_justify="left", box=None, pad_edge=False)
    for name in ("worker", "VRAM", "segments", "busy seconds"):
        workers.add_column(name)
    if any(worker.get("idle_s") for worker in report["workers"].values()):
        workers.add_column("idle seconds", overflow="fold")
    for worker_id, worker in report["workers"].items():
        vram = gib(worker["vram_bytes"]) if worker["vram_bytes"] else ""
        idle = ", ".join(f"{cause} {s:.1f}" for cause, s in worker.get("idle_s", {}).items() if s >= 0.05)
        busy = f"{worker['busy_s']:.1f}"
        workers.add_row(worker_id, vram, str(worker["segments"]), busy, *([idle] if idle else []))
    console.print(workers)
    console.print(_models_words(report["settings"]), markup=False, soft_wrap=True)
    if why := waits_words(report):
        console.print(advised(f"waiting, {why}"), markup=False, soft_wrap=True)
    totals = report["totals"]
    if totals["wall_s"] is None or totals["stitch_s"] is None:
        return
    console.print(
        f"{report['num_frames']} frames {report['width']}x{report['height']} at {report['fps']} fps, "
        f"{len(report['segments'])} segments, "
        f"{sum(1 for s in report['seams'] if s['passed'])} of {len(report['seams'])} seams passed, "
        f"{totals['wall_s']:.1f} s from submit to video (joining {totals['stitch_s']:.1f} s), "
        f"{totals['refused_results']} late results refused"
    )


def _models_words(settings: Mapping[str, Any]) -> str:
    """What rendered, and what from: its weights and LoRAs."""
    drafted = settings.get("draft")
    models = [("", settings), *([("draft: ", drafted)] if drafted else [])]
    return "; ".join(
        f"{what}{loaded_as(of['model'], Weights.model_validate(of.get('weights') or {}))}"
        for what, of in models
    )


def print_notes(plan: Plan, console: Console = err) -> None:
    """What was chosen, rounded or changed, before anything is rendered."""
    for note in plan.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)


def _seam_words(seam: Mapping[str, Any] | None) -> str:
    if seam is None:
        return ""
    takes = f" (take {seam['accepted_take'] + 1})" if seam["accepted_take"] else ""
    return ("passed" if seam["passed"] else "failed: " + ", ".join(seam["failed_gates"])) + takes


def _fill_words(fill: Mapping[str, Any] | None) -> str:
    """Of a window between given frames that no seam is before."""
    failed = fill["failed_gates"] if fill else ()
    return f"failed: {', '.join(failed)}" if failed else ""


def print_rows(columns: Iterable[str], rows: Iterable[Iterable[str]], console: Console = out) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_models(found: Iterable[ModelReport], *, every: bool, console: Console = out) -> None:
    """What there is of each model and what runs of it; every setting, or the largest and the next."""
    for report in found:
        gigabytes = (report["disk_bytes"] or 0) / 1e9
        told = f"{gigabytes:.2f} GB on disk" if report["here"] else f"about {gigabytes:.0f} GB to fetch"
        disk = f", {told}" if gigabytes else ""
        about = f"{report['engine'] or 'unknown'}, {report['source']}{disk}"
        console.print(f"{report['model']} ({about})", markup=False, style="bold")
        lines = [f"takes {', '.join(report['takes'])}"] if report["takes"] else []
        if licence := report["licence"]:
            asks = f", to be accepted once: `farm models accept {report['model']}`"
            lines.append(f"weights: {licence.name}{asks if licence.restricts_use else ''}")
        if held_by := report["held_by"]:
            lines.append(f"on the disk of {', '.join(held_by)}")
        for line in (*lines, *runnable_lines(report, every=every)):
            console.print(Padding(Text(line), (0, 0, 0, 2), expand=False))


def print_keyframes(details: Sequence[KeyframeDetail], console: Console = out) -> None:
    """A job's keyframes, in the order of the video."""
    rows = (
        (
            str(d["number"]),
            str(d["frame"]),
            f"{d['time_s']:.2f} s",
            "a picture" if d["replaced"] else f"seed {d['seed']}",
            "there" if d["status"] == "done" else d["status"],
            ", ".join(map(str, d["made_again_with"])) or "none",
            d["prompt"],
        )
        for d in details
    )
    columns = ("keyframe", "frame", "at", "made with", "state", "made again with it", "prompt")
    print_rows(columns, rows, console)


def print_workers(workers: Iterable[Worker], console: Console = out) -> None:
    rows = ((w.id, w.kind, w.device_name, gib(w.vram_bytes)) for w in workers)
    print_rows(("worker", "kind", "device", "memory"), rows, console)
