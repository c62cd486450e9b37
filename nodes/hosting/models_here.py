"""What this machine can run of every model that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.capabilities import Worker
from farm.reporting import ModelReport, model_reports
from farm.state import JOURNAL_NAME, State, past
from nodes.engines import known_models, shape_of, spec_of


def models_here(workers: Sequence[Worker], folder: Path, names: Sequence[str] = ()) -> list[ModelReport]:
    """Reports of these models; without names, of all that have one and those of the jobs made here.

    Args:
        workers: Of this machine.
        folder: The state folder; what its journal tells of their speed is used, if there is one.
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

    if not (folder / JOURNAL_NAME).exists():
        return reports(State())
    with past(folder) as ledger:
        return reports(ledger.state)
