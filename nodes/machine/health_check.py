"""Whether what runs here as a farm, or as a machine of one, is well: what container runtimes ask."""

from __future__ import annotations

import socket
from pathlib import Path

from farm.addresses import split_host_port
from farm.client import FarmClient
from farm.endpoint import read_endpoint
from farm.errors import CannotRun
from farm.values import Value
from nodes.machine import member

#: Of a health check that asks twice, and has some seconds.
CONNECT_S = 3.0


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
    if not FarmClient(here.url).is_up():
        return Health(is_well=False, text=f"{here.node} does not reach its farm at {here.url}")
    # A farm that was started anew may be elsewhere; it takes this machine's Ray a minute to notice.
    if here.ray_address and not is_reached(here.ray_address):
        return Health(is_well=False, text=f"{here.node} does not reach Ray of its farm at {here.ray_address}")
    return Health(is_well=True, text=f"{here.node} is in the farm at {here.url}")


def is_reached(address: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    try:
        socket.create_connection(split_host_port(address), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True
