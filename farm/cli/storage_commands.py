"""What becomes of a state folder: a journal older than its folders, what the storage holds, copies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import InvalidInput
from farm.keeping import JournalIsOlder, settle_folders
from farm.reporting import console
from farm.state import default_state_folder, locked

keeping = typer.Typer()

Adopt = Annotated[
    bool, typer.Option("--adopt", help="List the jobs again whose folders tell more than the journal.")
]
Ignore = Annotated[bool, typer.Option("--ignore", help="Go on without such jobs; their files stay.")]


def settled(state: Path | None, adopt: bool, ignore: bool) -> Path:
    """The state folder that is meant, after a journal older than its folders was dealt with.

    Raises:
        CannotRun: it is older, nobody has decided, and there is nobody to ask.
    """
    if adopt and ignore:
        raise InvalidInput("--adopt and --ignore exclude each other", param="adopt")
    folder = state or default_state_folder()
    with locked(folder):
        try:
            adopted = settle_folders(folder, "adopt" if adopt else "ignore" if ignore else None)
        except JournalIsOlder as error:
            if not sys.stdin.isatty():
                raise
            console.err.print(error.message, markup=False)
            yes = typer.confirm("List these jobs again (no: go on without them)?", err=True)
            adopted = settle_folders(folder, "adopt" if yes else "ignore")
    if adopted is not None:
        for job_id in adopted.jobs:
            console.err.print(f"{job_id} is listed again", markup=False)
        for job_id, why in adopted.refused.items():
            console.err.print(
                f"{job_id} is not listed: {why}; its folder stays", style="yellow", markup=False
            )
    return folder
