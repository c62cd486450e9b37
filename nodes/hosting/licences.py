"""Models whose licence restricts their use: neither fetched nor planned with before it is accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from farm.capabilities import EngineSpec, SpecOf, Weights, check_accepted
from farm.errors import InvalidInput
from farm.planning import of_draft
from farm.state import JOURNAL_NAME, LicenceAccepted, locked, past, replayed
from nodes.engines import licence_of


def licensed(specs: SpecOf, accepted: Callable[[], Collection[str]]) -> SpecOf:
    """The same specs, but for models whose licence is not among those accepted.

    The specs raise LicenceNotAccepted for these.
    """

    def spec_of(model: str, weights: Weights) -> EngineSpec:
        check_accepted(model, licence_of(model), accepted())
        return specs(model, weights)

    return spec_of


def check_licences(options: Mapping[str, Any], folder: Path) -> None:
    """Whether the models of a request may be had.

    Args:
        options: Fields of a ``JobRequest``.
        folder: The state folder, in which licences are accepted.

    Raises:
        LicenceNotAccepted: one restricts its model's use, and was not accepted; ``param`` is the option that
            asks for the model.
    """
    accepted: Collection[str] = ()
    if (folder / JOURNAL_NAME).exists():
        with past(folder) as ledger:
            accepted = ledger.state.accepted_licences
    check_accepted(options["model"], licence_of(options["model"]), accepted)
    if draft := options.get("draft_model"):
        with of_draft():
            check_accepted(draft, licence_of(draft), accepted)


def accept_licence(model: str, folder: Path) -> str:
    """Remember in this state folder, whose farm is not up, that a model's licence is accepted; its name.

    Raises:
        InvalidInput: the model has no name, or its licence restricts nothing.
        FolderInUse: a farm works in the folder.
    """
    licence = licence_of(model)
    if licence is None or not licence.restricts_use:
        raise InvalidInput(
            f"model {model} has no licence that has to be accepted; `farm models` names those that have",
            param="model",
        )
    with locked(folder, "models"), replayed(folder) as ledger:
        ledger.record(LicenceAccepted(licence=licence.name, model=model))
    return licence.name
