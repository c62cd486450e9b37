"""What becomes of a state folder: a journal older than its folders, what the storage holds, copies."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.farm_meant import Farm, Json, StateFolder, Token
from farm.cli.key_commands import parse_duration_s
from farm.cli.remote_commands import journal_jobs
from farm.client import FarmClient, find_farm
from farm.errors import InvalidInput
from farm.keeping import (
    Amount,
    JournalIsOlder,
    Manifest,
    Survey,
    backup,
    known,
    restore,
    settle_folders,
    survey,
)
from farm.reporting import console, job_summary
from farm.running import Blobs, Storage
from farm.state import JobDeleted, blob_hashes, default_state_folder, in_use, locked, past

keeping = typer.Typer()

Adopt = Annotated[
    bool, typer.Option("--adopt", help="List the jobs again whose folders tell more than the journal.")
]
Ignore = Annotated[
    bool, typer.Option("--ignore", help="Go on without such jobs from now on; their files stay.")
]


@keeping.command()
def storage(
    older_than: Annotated[
        str | None,
        typer.Option(
            help="Name the jobs that ended longer ago than this, such as 12h, 30d or 1y.", show_default="none"
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--delete", help="Delete these jobs, with their files.")] = False,
    remove_unknown: Annotated[
        bool, typer.Option("--remove-unknown", help="Remove what the journal knows nothing of.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Show what lies in the storage, and where; old jobs, and what no job has, go when they are asked to."""
    if remove and older_than is None:
        raise InvalidInput("--delete goes with --older-than, such as --older-than 30d", param="older_than")
    age_s = None if older_than is None else parse_duration_s(older_than, "older-than")
    client = find_farm(farm, token, state)
    folder = state or default_state_folder()
    jobs = client.jobs() if client else journal_jobs(folder)
    old = [] if age_s is None else ended_before(jobs, time.time() - age_s)
    if remove and old:
        _confirm(f"Delete {_jobs_words(old)} with their files for good?", yes, "--delete")
        _delete(client, folder, old)
    found = Survey.model_validate(client.storage()) if client else _surveyed(folder)
    if remove_unknown and found.unknown.files:
        _confirm(f"Remove {_words(found.unknown)} for good?", yes, "--remove-unknown")
        found = Survey.model_validate(client.remove_unknown()) if client else _removed(folder)
    place = str(folder.absolute()) if client is None or farm is None else client.url
    if as_json:
        ids = [job["id"] for job in old]
        console.print_json({"folder": place, **found.model_dump(), "older_jobs": ids, "deleted": remove})
        return
    console.say(f"the storage of {place}" if farm else f"the storage in {place}")
    rows = [
        ("used", _words(found.used), "inputs and results of jobs"),
        ("published", _words(found.published), "folders of jobs: videos, sheets, logs"),
        ("unknown", _words(found.unknown), _unknown(found)),
        ("trash", _words(found.trash), "removed, not freed yet"),
        ("missing", f"{found.missing_files} files", "rendered again when they are wanted"),
        ("free", size(found.free_bytes), "on that disk"),
    ]
    console.print_rows(("what", "how much", ""), rows)
    if older_than is not None:
        done = "deleted" if remove else f"ended more than {older_than} ago; --delete removes them"
        console.say(f"{_jobs_words(old)}: {done}" if old else f"no job ended more than {older_than} ago")


@keeping.command()
def delete(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB...", help="As `farm jobs` shows them.")],
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Forget jobs that have ended, and remove their files: on the farm that is up, else here alone."""
    client = find_farm(farm, token, state)
    folder = state or default_state_folder()
    jobs = [client.job(job_id) for job_id in job_ids] if client else _named(folder, job_ids)
    _delete(client, folder, jobs)
    words = "\n".join(f"{job_id} is deleted" for job_id in job_ids)
    console.tell({"deleted": job_ids}, words, as_json=as_json)


def ended_before(jobs: Iterable[Mapping[str, Any]], at: float) -> list[Mapping[str, Any]]:
    """Those ``JobSummary`` of jobs that had ended by then, in seconds since the epoch."""
    return [job for job in jobs if job["finished_at"] is not None and job["finished_at"] <= at]


def _delete(client: FarmClient | None, folder: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Forget jobs and remove their files.

    Raises:
        InvalidInput: one of them runs; none is deleted.
    """
    for job in jobs:
        if job["status"] == "running":
            raise InvalidInput(f"job {job['id']} has not ended; `farm cancel {job['id']}` stops it first")
    if client is not None:
        for job in jobs:
            client.delete(job["id"])
        return
    with locked(folder, "storage"), past(folder) as ledger:
        blobs = Blobs(Storage(folder), ledger)
        for job in jobs:
            hashes = list(blob_hashes(ledger.job(job["id"])))
            ledger.record(JobDeleted(job_id=job["id"]))
            asyncio.run(blobs.remove_job(job["id"], hashes))


def _named(folder: Path, job_ids: Sequence[str]) -> list[Mapping[str, Any]]:
    with past(folder) as ledger:
        return [job_summary(ledger.job(job_id), None, 0.0) for job_id in job_ids]


def _jobs_words(jobs: Sequence[Mapping[str, Any]]) -> str:
    named = ", ".join(job["id"] for job in jobs[:3])
    return f"{len(jobs)} jobs ({named}, ...)" if len(jobs) > 3 else named


def _confirm(question: str, yes: bool, option: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{option} asks first; add --yes to go without", param="yes")
    typer.confirm(question, abort=True, err=True)


@keeping.command("backup")
def back_up(
    target: Annotated[Path, typer.Argument(help="A new or empty folder, best on another disk.")],
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Copy the whole farm of this machine, up or not: journal, inputs, results, videos, keys."""
    with _copying("backing up") as progress:
        manifest = backup(state or default_state_folder(), target, progress)
    _print_copy(manifest, f"{target} holds", as_json)


@keeping.command("restore")
def take_back(
    source: Annotated[Path, typer.Argument(help="A folder that `farm backup` has made.")],
    state: Annotated[Path, typer.Option("--state", help="A new or empty state folder.")],
    as_json: Json = False,
) -> None:
    """Make a new state folder of a backup; `farm up --state` goes on with it."""
    with _copying("restoring") as progress:
        manifest = restore(source, state, progress)
    _print_copy(manifest, f"{state} holds", as_json)


@contextmanager
def _copying(what: str) -> Iterator[Callable[[int, int, int, int], None]]:
    """Tells on the terminal how far a copy is."""
    with console.err.status(what) as status:
        yield lambda files, done, all_files, total: status.update(
            f"{what}: {files} of {all_files} files, {size(done)} of {size(total)}"
        )


def _print_copy(manifest: Manifest, who: str, as_json: bool) -> None:
    if as_json:
        console.print_json(manifest.model_dump())
        return
    said = f"{who} {manifest.jobs} jobs: {len(manifest.files)} files, {size(manifest.size_bytes)}"
    console.out.print(said, markup=False, soft_wrap=True)
    if manifest.missing:
        lost = f"the farm itself had lost {len(manifest.missing)} files; it makes them again when wanted"
        console.err.print(lost, style="yellow", markup=False)


def _surveyed(folder: Path) -> Survey:
    with past(folder) as ledger:
        return survey(Storage(folder), *known(ledger.state))


def _removed(folder: Path) -> Survey:
    with locked(folder, "storage"), past(folder) as ledger:
        files = Storage(folder)
        asyncio.run(Blobs(files, ledger).remove_unknown())
        return survey(files, *known(ledger.state))


def _unknown(found: Survey) -> str:
    if not found.unknown.files:
        return "nothing the journal does not know"
    jobs = f", of {', '.join(found.unknown_jobs[:3])}" if found.unknown_jobs else ""
    return f"not in the journal{jobs}; --remove-unknown removes it"


def _words(amount: Amount) -> str:
    return f"{amount.files} files, {size(amount.size_bytes)}"


def size(num_bytes: int) -> str:
    """Bytes for people, in units of a thousand."""
    value, units = float(num_bytes), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"


def settled(state: Path | None, adopt: bool, ignore: bool, *, for_render: bool = False) -> Path:
    """The state folder that is meant, after a journal older than its folders was dealt with.

    A render waits for the one that works in the folder, which has dealt with its journal.

    Raises:
        CannotRun: it is older, nobody has decided, and there is nobody to ask.
    """
    if adopt and ignore:
        raise InvalidInput("--adopt and --ignore exclude each other", param="adopt")
    folder = state or default_state_folder()
    if not os.path.isdir(folder / "jobs"):  # nothing that could be newer; nothing is made for looking
        return folder
    if for_render and (used := in_use(folder)) and used.by == "render":
        return folder
    with locked(folder, "storage"):
        try:
            adopted = settle_folders(folder, "adopt" if adopt else "ignore" if ignore else None)
        except JournalIsOlder as error:
            if not sys.stdin.isatty():
                raise
            console.err.print(error.message, markup=False)
            yes = typer.confirm("List these jobs again (no: go on without them from now on)?", err=True)
            adopted = settle_folders(folder, "adopt" if yes else "ignore")
    if adopted is not None:
        for job_id in adopted.jobs:
            console.err.print(f"{job_id} is listed again", markup=False)
        for job_id, why in adopted.refused.items():
            console.err.print(
                f"{job_id} is not listed: {why}; its folder stays", style="yellow", markup=False
            )
    return folder
