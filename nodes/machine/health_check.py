"""Whether what runs here as a farm, or as a machine of one, is well: what container runtimes ask."""

from __future__ import annotations

from pathlib import Path

from farm.client import FarmClient
from farm.endpoint import read_endpoint
from farm.errors import CannotRun
from farm.values import Value
from nodes.machine import member


class Health(Value):
    is_well: bool
    text: str


def health(state: Path) -> Health:
    """Of the farm that is up with this state folder, or else of this machine's place in another's.

    A machine that waits for its farm to come back is not well: nothing is rendered on it.
    """
    try:
        endpoint = read_endpoint(state)
    except CannotRun as error:
        return Health(is_well=False, text=error.message)
    if endpoint is not None:
        # Coordinator and API share one event loop: an answer is word of both.
        if FarmClient(endpoint.url).is_up():
            return Health(is_well=True, text=f"the farm answers at {endpoint.url}")
        return Health(is_well=False, text=f"the farm at {endpoint.url} does not answer")
    here = member.current(state)
    if here is None:
        return Health(is_well=False, text="no farm is up here, and this machine is in none")
    if FarmClient(here.url).is_up():
        return Health(is_well=True, text=f"{here.node} is in the farm at {here.url}")
    return Health(is_well=False, text=f"{here.node} does not reach its farm at {here.url}")
