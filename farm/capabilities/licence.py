"""What a model's weights may be used for, and whether somebody here has agreed to it."""

from __future__ import annotations

from collections.abc import Collection

from farm.errors import LicenceNotAccepted
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
