"""What becomes of a state folder: a journal older than its folders, what the storage holds, copies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.farm_meant import Farm, Json, StateFolder, Token, client_or_none
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
from farm.reporting import console
from farm.running import Blobs, Storage
from farm.state import default_state_folder, in_use, locked, past

keeping = typer.Typer()

Adopt = Annotated[
    bool, typer.Option("--adopt", help="List the jobs again whose folders tell more than the journal.")
]
Ignore = Annotated[
    bool, typer.Option("--ignore", help="Go on without such jobs from now on; their files stay.")
]


@keeping.command()
def storage(
    remove_unknown: Annotated[
        bool, typer.Option("--remove-unknown", help="Remove what the journal knows nothing of.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    farm: Farm = None,
    token: Token = None,
    state: StateFolder = None,
    as_json: Json = False,
) -> None:
    """Show what lies in the storage; what the journal does not know stays until it is asked for."""
    client = client_or_none(farm, token, state)
    folder = state or default_state_folder()
    found = Survey.model_validate(client.storage()) if client else _surveyed(folder)
    if remove_unknown and found.unknown.files:
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput("--remove-unknown asks first; add --yes to go without", param="yes")
            typer.confirm(f"Remove {_words(found.unknown)} for good?", abort=True, err=True)
        found = Survey.model_validate(client.remove_unknown()) if client else _removed(folder)
    if as_json:
        console.print_json(found.model_dump())
        return
    rows = [
        ("used", _words(found.used), "inputs and results of jobs"),
        ("published", _words(found.published), "folders of jobs: videos, sheets, logs"),
        ("unknown", _words(found.unknown), _unknown(found)),
        ("trash", _words(found.trash), "removed, not freed yet"),
        ("missing", f"{found.missing_files} files", "rendered again when they are wanted"),
        ("free", size(found.free_bytes), "on that disk"),
    ]
    console.print_rows(("what", "how much", ""), rows)


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
