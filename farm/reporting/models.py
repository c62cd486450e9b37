"""Models as people are shown them: what each takes, and what the workers that are here can run of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from typing_extensions import TypedDict

from farm.capabilities import EngineSpec, Licence, Worker, gib
from farm.errors import FarmError
from farm.scheduling import Runnable, RunnableSetting, runnable
from farm.state import Profiles, WorkerState

_FETCHED = "its files are not on this disk; the first job with it fetches them"
#: What is known of a model that is asked for by its folder, before that is read.
_FOLDER: dict[str, Any] = {"engine": None, "takes": [], "source": "a folder", "here": True}


#: Where no machine has told what it has.
NOBODY: Mapping[str, Collection[str]] = {}
#: What is known of a model by its name without its files; None: nothing.
ShapeOf: TypeAlias = Callable[[str], EngineSpec | None]


def no_shapes(_: str) -> None:
    """Nothing is known of a model before its files are here."""


class ModelReport(TypedDict):
    """A model, and what of it runs. What is not known is null."""

    #: What it is asked for by: a name, or a folder.
    model: str
    engine: str | None
    #: Kinds of input: image, text, video and so on.
    takes: list[str]
    source: str
    #: Of its weights; None: a folder, whose owner knows.
    licence: Licence | None
    #: Whether its files are on this disk; else the first job with it fetches them.
    here: bool
    #: Other machines of the farm that have its files on their disk, by their own word; those that lack them
    #: take them from these when a segment of theirs wants them.
    held_by: list[str]
    #: What its files take of the disk, or would, in 16 bits.
    disk_bytes: int | None
    #: None where ``why_not`` says why nothing can be told.
    runnable: Runnable | None
    why_not: str | None


def model_reports(
    known: Sequence[Mapping[str, Any]],
    spec_of: Callable[[str], EngineSpec],
    workers: Iterable[Worker],
    profiles: Profiles,
    *,
    shape_of: ShapeOf = no_shapes,
    held_by: Mapping[str, Collection[str]] = NOBODY,
    names: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> list[ModelReport]:
    """What is to be said of models.

    Args:
        known: The models that have a name, as the table of models lists them.
        spec_of: Reads a spec. It is not asked for a model whose files are not here: it would fetch them.
        workers: That are here and not draining.
        profiles: What was learned of them.
        shape_of: What is known of a model whose files are not here.
        held_by: Names of the machines that have a model, by its name.
        names: Only these, names or folders.
        folders: Without ``names``, what is told beside all that have a name, where it can still be read.
    """
    by_name = {entry["model"]: entry for entry in known}
    here = list(workers)

    def report(name: str) -> ModelReport:
        entry = by_name.get(name)
        report = _report(entry or {**_FOLDER, "model": name}, spec_of, shape_of, here, profiles)
        report["held_by"] = sorted(held_by.get(name, ()))
        return report

    if names:
        return [report(name) for name in names]
    others = [report(folder) for folder in folders if folder not in by_name]
    return [*map(report, by_name), *(each for each in others if each["runnable"])]


def _report(
    entry: Mapping[str, Any],
    spec_of: Callable[[str], EngineSpec],
    shape_of: ShapeOf,
    workers: Sequence[Worker],
    profiles: Profiles,
) -> ModelReport:
    report = ModelReport(
        model=entry["model"],
        engine=entry["engine"],
        takes=entry["takes"],
        source=entry["source"],
        licence=entry.get("licence") and Licence.model_validate(entry["licence"]),
        here=entry["here"],
        held_by=[],
        disk_bytes=None,
        runnable=None,
        why_not=None,
    )
    spec: EngineSpec | None
    try:
        spec = spec_of(entry["model"]) if report["here"] else shape_of(entry["model"])
    except FarmError as error:
        report["why_not"] = error.message
        return report
    if spec is None:
        report["why_not"] = _FETCHED
        return report
    report["engine"], report["takes"] = spec.engine, sorted(spec.takes)
    report["disk_bytes"] = spec.disk_bytes
    report["runnable"] = runnable(spec, workers, profiles)
    return report


def machines_with_models(workers: Iterable[WorkerState]) -> dict[str, set[str]]:
    """By model, the machines that have its files on their disk, but for what comes with the farm."""
    found: dict[str, set[str]] = {}
    for worker in workers:
        for model, size_bytes in (worker.models or {}).items():
            if size_bytes:
                found.setdefault(model, set()).add(worker.worker.node)
    return found


def report_json(report: ModelReport) -> dict[str, Any]:
    """As programs get it."""
    found, licence = report["runnable"], report["licence"]
    return {
        **report,
        "licence": licence and licence.model_dump(),
        "runnable": found and found.model_dump(mode="json"),
    }


def runnable_lines(report: ModelReport, *, every: bool = False) -> list[str]:
    """What runs of a model, in sentences: the largest setting and what keeps the next from it, or every one
    that was tried."""
    found = report["runnable"]
    if found is None:
        return [report["why_not"] or ""]
    told = [] if report["here"] else [f"{_FETCHED}; by its published shapes:"]
    shown = found.settings if every else [s for s in (found.largest, found.next_larger) if s]
    return [*told, *(_setting_words(setting) for setting in shown)]


def _setting_words(setting: RunnableSetting) -> str:
    """Where and how a setting runs, or why it does not."""
    name = f"{setting.width}x{setting.height} in windows of {setting.window_frames}"
    holder = setting.holder
    if holder is None:
        lacking = f" ({gib(setting.lack.lacking_bytes)} more)" if setting.lack else ""
        return f"not {name}: {setting.why_not}{lacking}"
    others = setting.num_workers - 1
    more = f" and {others} more" if others else ""
    host = f" and {gib(holder.host_bytes)} of its machine's memory" if holder.host_bytes else ""
    return (
        f"{name}: {holder.rung} on {holder.worker_id}{more}, {gib(holder.need_bytes)}{host}; "
        f"{_pace_words(setting)}"
    )


def _pace_words(setting: RunnableSetting) -> str:
    seconds = setting.seconds_per_second
    if seconds is None:
        return "its time cannot be told"
    number = f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"
    return f"{number} s for a second of video ({'measured' if setting.measured else 'predicted'})"
