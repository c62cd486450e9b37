"""What a model's weights may be used for, and whether somebody here has agreed to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from farm.errors import LicenceNotAccepted, NotFound
from farm.values import Value


class Licence(Value):
    """Of a model's weights."""

    name: str
    #: Where it can be read.
    url: str
    #: It restricts what they are used for: somebody has to accept it once, for the whole farm.
    restricts_use: bool = False


def check_accepted(model: str, licence: Licence | None, accepted: Collection[str]) -> None:
    """
    Raises:
        LicenceNotAccepted: the licence restricts use, and is not among the names of those accepted.
    """
    if licence is None or not licence.restricts_use or licence.name in accepted:
        return
    raise LicenceNotAccepted(
        f"{model} is under the {licence.name}, which restricts its use: read it at {licence.url}, and accept "
        f"it once for this farm with `farm models accept {model}`",
        param="model",
    )


def listed_model(models: Sequence[Mapping[str, Any]], asked: str) -> Mapping[str, Any]:
    """The entry of a model among those that are listed, by its name or its hub repository; a commit behind it
    changes no licence.

    Raises:
        NotFound: there is no such model.
    """
    name = asked.partition("@")[0]
    for entry in models:
        if name in (entry["model"], entry["repository"]):
            return entry
    raise NotFound(f"model {asked} is none of {', '.join(entry['model'] for entry in models)}", param="model")
