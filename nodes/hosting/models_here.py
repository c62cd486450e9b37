"""What this machine can run of every model that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.capabilities import Worker
from farm.errors import CannotRun
from farm.reporting import ModelReport, model_reports
from farm.state import JOURNAL_NAME, State, past
from nodes.engines import known_models, shape_of, spec_of


def models_here(workers: Sequence[Worker], folder: Path, names: Sequence[str] = ()) -> list[ModelReport]:
    """Reports of these models; without names, of all that have one and those of the jobs made here.

    Args:
        workers: Of this machine.
        folder: The state folder; what its journal tells of their speed is used, if there is one.

    Raises:
        CannotRun: the state folder cannot be looked into.
    """

    def reports(state: State) -> list[ModelReport]:
        return model_reports(
            known_models(),
            spec_of,
            workers,
            state.profiles,
            shape_of=shape_of,
            names=names,
            folders=state.models,
        )

    try:
        has_journal = (folder / JOURNAL_NAME).exists()
    except OSError as error:
        raise CannotRun(
            f"the state folder {folder} cannot be used ({error.strerror}); choose another with --state"
        ) from error
    if not has_journal:
        return reports(State())
    with past(folder) as ledger:
        return reports(ledger.state)
