"""Models whose licence restricts their use: neither fetched nor planned with before it is accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from farm.capabilities import EngineSpec, Licence, SpecOf, Weights, check_accepted, listed_model
from farm.planning import of_draft
from farm.state import JOURNAL_NAME, LicenceAccepted, locked, past, replayed
from nodes.engines import known_models, licence_of


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

    As the API does on a farm that is up: one that restricts nothing, or is accepted, is not remembered anew.

    Raises:
        NotFound: there is no such model.
        FolderInUse: a farm works in the folder.
    """
    found = listed_model(known_models(), model)
    licence = Licence.model_validate(found["licence"])
    if licence.restricts_use:
        with locked(folder, "models"), replayed(folder) as ledger:
            if licence.name not in ledger.state.accepted_licences:
                ledger.record(LicenceAccepted(licence=licence.name, model=found["model"]))
    return licence.name
